"""The operations on files: what the command line does, with its options under the names of the C++ interface.

A checkpoint is a folder with a config.json and safetensors files, single or sharded with an index. Paths are strings or
``os.PathLike``. Nothing is loaded: memory holds headers, names and buffers, whatever the size. The GIL is released; Ctrl-C
stops an operation, which then leaves nothing behind at its output, or the folder as it was, and raises KeyboardInterrupt.

Errors: a subclass of ``QuantportError`` named after the kind of problem, with all problems in ``errors``; ValueError for an
option's value that does not exist. ``progress`` is what ``quantport.progress.reporting`` says: a callable(done, total) in bytes,
True, False, or None, which shows a bar on a terminal where tqdm is installed.

The options that pick the mapping, of every function that needs one:

- ``mapping_file``: a mapping file of another transformers version or of a private model, instead of a built-in one
- ``transformers_version``: a built-in version, "5.17.0"; by default config.json's, or the nearest older one
- ``architecture``: a model class, instead of config.json's

Those of functions that write a folder:

- ``output``: must not exist, or be an empty folder
- ``reflink``: "auto" shares blocks with the input's files where the file system can, "always" fails where it can't, "never"
- ``max_shard_bytes``: new shards of at most so many bytes; by default the input's shards
- ``repair_index``: rebuild an index that contradicts the headers, instead of failing
- ``follow_links``: copy files without tensors that are links out of the input's folder, instead of failing
- ``all_files``: copy safetensors files that are no shards of the checkpoint, such as adapters, along
- ``threads``: 1 to 256; 0 chooses from the machine
"""
from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeVar, Union

from quantport import _core
from quantport.progress import ProgressCallback, reporting
from quantport.reports import (
    DiffReport,
    InspectReport,
    QuantizePlan,
    QuantizeReport,
    RecipeList,
    RecoverReport,
    RepairReport,
    RevertPlan,
    RevertReport,
    RulesReport,
    VerifyReport,
)

Path = Union[str, "os.PathLike[str]"]
Progress = Union[ProgressCallback, bool, None]
Reflink = Literal["auto", "always", "never"]
OnUnsupported = Literal["fail", "keep-names"]
ExpertForm = Literal["expanded", "stacked"]
MergeScales = Literal["refuse", "max"]
Arithmetic = Literal["cpu", "cuda"]


Options = TypeVar("Options")


def filled(options: Options, **values: object) -> Options:
    """``options`` with attributes set; a value of a wrong type is an error that names the option."""
    for name, value in values.items():
        try:
            setattr(options, name, value)
        except TypeError:
            raise TypeError(f"{name} can't be {value!r}, of type {type(value).__name__}") from None
    return options


def _mapping(mapping_file: Path | None, transformers_version: str | None, architecture: str | None) -> _core.MappingOptions:
    if mapping_file is not None and transformers_version is not None:
        raise ValueError("mapping_file and transformers_version both say which mapping applies: give one of them")
    return filled(_core.MappingOptions(), mapping_file=mapping_file, transformers_version=transformers_version,
                   architecture=architecture)


def _list(name: str, values: object) -> list[Any]:
    """``values`` as a list; a string is one value, not a list of its letters."""
    if isinstance(values, (str, bytes, os.PathLike)) or not isinstance(values, Iterable):
        raise TypeError(f"{name} can't be {values!r}: it is a list, put it in brackets")
    return list(values)


# ---- names


def revert(
    input: Path,
    output: Path | None = None,
    *,
    in_place: bool = False,
    detach_links: bool = False,
    reference: Path | None = None,
    no_reference: bool = False,
    by_rules: bool = False,
    experts: ExpertForm = "expanded",
    carry_missing: bool = False,
    strict: bool = False,
    on_unsupported: OnUnsupported = "fail",
    merge_scales: MergeScales = "refuse",
    mapping_file: Path | None = None,
    transformers_version: str | None = None,
    architecture: str | None = None,
    max_shard_bytes: int | None = None,
    reflink: Reflink = "auto",
    repair_index: bool = False,
    follow_links: bool = False,
    all_files: bool = False,
    threads: int = 0,
    progress: Progress = None,
) -> RevertReport:
    """Give a quantized export the names of its hub checkpoint, scales and config files included.

    :param input: the export.
    :param output: the folder to write; not with ``in_place``.
    :param in_place: change the export itself: all files change or none, and ``recover`` finishes or undoes what a crash
        interrupts.
    :param detach_links: with ``in_place``, replace files that are links or have several names instead of failing.
    :param reference: the hub checkpoint, or its model.safetensors.index.json: its names decide. Without one it is looked for in
        the local Hugging Face cache, by config.json's _name_or_path and the model card's base_model.
    :param no_reference: don't look for one.
    :param by_rules: without a reference, take the names that the mapping's rules give, where they are undecided too, and leave
        aside what is known of published names.
    :param experts: what becomes of experts that the hub keeps in one tensor: "expanded" (2-D linears) or "stacked".
    :param carry_missing: bring over what only the reference has.
    :param strict: names that only the reference has are an error.
    :param on_unsupported: when a transform can't be carried through, "fail", or "keep-names": write the export with its
        in-memory names, outcome "kept_names".
    :param merge_scales: when weights that become one have different per-tensor scales, "refuse" or "max".
    :raises QuantConversionUnsupportedError, NameCollisionError, MissingCompanionError: the export can't be reverted as it is;
        UndecidedNamesError, where nothing says which of several names the hub has; not
        with ``on_unsupported="keep-names"``.
    :raises UnknownArchitectureError, UnknownVersionError, InvalidMappingError: no mapping applies.
    :raises ReferenceMismatchError: the result would contradict the reference.
    :raises InvalidHeaderError, InvalidIndexError, InvalidConfigError: the export is broken.
    :raises OutputExistsError, LinkedFileError, LockedError, UnfinishedChangeError, IoError: it can't be written there.
    """
    if output is None and not in_place:
        raise ValueError("say where to write: output, or in_place=True")
    if in_place and (output is not None or max_shard_bytes is not None):
        raise ValueError("in_place keeps the folder and its shards: it goes with neither output nor max_shard_bytes")
    if detach_links and not in_place:
        raise ValueError("detach_links goes with in_place: other runs leave the input's files alone")
    _check_reference(carry_missing, no_reference, reference)
    mapping = _mapping(mapping_file, transformers_version, architecture)
    options = filled(
        _core.RevertOptions(), input=input, output="" if output is None else output, in_place=in_place, detach_links=detach_links,
        reference=reference, find_reference=not no_reference, by_rules=by_rules, experts=experts, carry_missing=carry_missing,
        strict=strict, on_unsupported=on_unsupported, merge_scales=merge_scales, mapping=mapping, max_shard_bytes=max_shard_bytes,
        reflink=reflink, repair_index=repair_index, all_files=all_files, follow_links=follow_links, threads=threads)
    with reporting(progress, "revert") as callback:
        return RevertReport._of(_core.revert(options, callback))


def plan_revert(
    input: Path,
    *,
    reference: Path | None = None,
    no_reference: bool = False,
    by_rules: bool = False,
    experts: ExpertForm = "expanded",
    carry_missing: bool = False,
    strict: bool = False,
    on_unsupported: OnUnsupported = "fail",
    merge_scales: MergeScales = "refuse",
    mapping_file: Path | None = None,
    transformers_version: str | None = None,
    architecture: str | None = None,
    max_shard_bytes: int | None = None,
    repair_index: bool = False,
    follow_links: bool = False,
    all_files: bool = False,
) -> RevertPlan:
    """What ``revert`` would do: every tensor of the output, and where its bytes come from. Writes nothing, reads headers."""
    _check_reference(carry_missing, no_reference, reference)
    mapping = _mapping(mapping_file, transformers_version, architecture)
    options = filled(
        _core.RevertOptions(), input=input, reference=reference, find_reference=not no_reference, by_rules=by_rules,
        experts=experts, carry_missing=carry_missing, strict=strict, on_unsupported=on_unsupported, merge_scales=merge_scales,
        mapping=mapping, max_shard_bytes=max_shard_bytes, repair_index=repair_index, all_files=all_files, follow_links=follow_links)
    return RevertPlan._of(_core.plan_revert(options, None))


def _check_reference(carry_missing: bool, no_reference: bool, reference: Path | None) -> None:
    if carry_missing and reference is None:
        raise ValueError("carry_missing needs a reference to carry from")
    if no_reference and reference is not None:
        raise ValueError("no_reference goes without a reference")


def apply(
    input: Path,
    output: Path,
    *,
    merge_scales: MergeScales = "refuse",
    mapping_file: Path | None = None,
    transformers_version: str | None = None,
    architecture: str | None = None,
    max_shard_bytes: int | None = None,
    reflink: Reflink = "auto",
    repair_index: bool = False,
    follow_links: bool = False,
    all_files: bool = False,
    threads: int = 0,
    progress: Progress = None,
) -> RevertReport:
    """Give a hub checkpoint, quantized or not, the names and shapes that transformers has in memory: what ``revert`` undoes.

    ``revert`` with ``reference=input`` undoes it. Raises as ``revert`` does.
    """
    mapping = _mapping(mapping_file, transformers_version, architecture)
    options = filled(
        _core.ApplyOptions(), input=input, output=output, merge_scales=merge_scales, mapping=mapping,
        max_shard_bytes=max_shard_bytes, reflink=reflink, repair_index=repair_index, all_files=all_files, follow_links=follow_links, threads=threads)
    with reporting(progress, "apply") as callback:
        return RevertReport._of(_core.apply(options, callback))


def repair(
    input: Path,
    output: Path | None = None,
    *,
    in_place: bool = False,
    detach_links: bool = False,
    reflink: Reflink = "auto",
    follow_links: bool = False,
    threads: int = 0,
    progress: Progress = None,
) -> RepairReport:
    """Mend what makes engines fail or talk nonsense and has one right answer; tensors, names and shapes stay.

    Global scales that differ among linears that engines load as one come under the largest, a missing or wrong index is made
    from the headers, and exclude lists and group sizes of configs become what the tensors are.

    :param input: the checkpoint.
    :param output: the folder to write; not with ``in_place``.
    :param in_place: change the checkpoint itself: all files change or none, and ``recover`` finishes or undoes what a crash
        interrupts.
    :param detach_links: with ``in_place``, replace files that are links or have several names instead of failing.
    :raises QuantportError: everything that has no one right answer, by its name; nothing is changed then.
    """
    if output is None and not in_place:
        raise ValueError("say where to write: output, or in_place=True")
    if in_place and output is not None:
        raise ValueError("in_place keeps the folder: it does not go with output")
    if detach_links and not in_place:
        raise ValueError("detach_links goes with in_place: other runs leave the input's files alone")
    options = filled(
        _core.RepairOptions(), input=input, output="" if output is None else output, in_place=in_place, detach_links=detach_links,
        reflink=reflink, follow_links=follow_links, threads=threads)
    with reporting(progress, "repair") as callback:
        return RepairReport._of(_core.repair(options, callback))


def recover(folder: Path, *, undo: bool = False) -> RecoverReport:
    """Finish a ``revert`` in place that a crash interrupted, or take it back. May be interrupted and called again itself.

    :raises LockedError: another process is changing the folder.
    :raises UnfinishedChangeError: a file is not one that an interruption leaves.
    """
    return RecoverReport._of(_core.recover(folder, undo))


# ---- numbers


def quantize(
    input: Path,
    output: Path,
    recipe: Path,
    *,
    recipe_folders: Sequence[Path] = (),
    kv_cache: str | None = None,
    calibration: Path | None = None,
    arithmetic: Arithmetic = "cpu",
    allow_nonfinite: bool = False,
    bit_exact_zeros: bool = False,
    quantize_mtp: bool = False,
    mapping_file: Path | None = None,
    transformers_version: str | None = None,
    architecture: str | None = None,
    max_shard_bytes: int | None = None,
    reflink: Reflink = "auto",
    repair_index: bool = False,
    follow_links: bool = False,
    all_files: bool = False,
    threads: int = 0,
    progress: Progress = None,
) -> QuantizeReport:
    """Quantize a hub checkpoint (BF16, F16, F32 or fine-grained FP8) by a recipe of ModelOpt's, with ModelOpt's bytes.

    :param recipe: a built-in recipe or preset by name (``list_recipes``), or a recipe file.
    :param recipe_folders: recipe libraries of one's own, looked into before the built-in one.
    :param kv_cache: a KV preset or "none", instead of what the recipe says.
    :param calibration: safetensors with F32 scalars ``<module>.input_amax``, ``<attention>.k_amax`` and ``.v_amax``; needed where
        activations have static scales.
    :param arithmetic: whose bits to reproduce: ModelOpt's on a "cpu", or on "cuda".
    :param allow_nonfinite: quantize weights with NaN or infinity as well.
    :param bit_exact_zeros: give weights that are all zero ModelOpt's NaN scales.
    :param quantize_mtp: leave draft (MTP) layers to the recipe too, instead of leaving them as they are.
    :raises InvalidRecipeError: the recipe is malformed, or there is none of that name.
    :raises UnsupportedRecipeError: it can't be carried out, or needs a calibration.
    """
    mapping = _mapping(mapping_file, transformers_version, architecture)
    options = filled(
        _core.QuantizeOptions(), input=input, output=output, recipe=_recipe(recipe, recipe_folders, kv_cache),
        calibration=calibration, arithmetic=arithmetic, allow_nonfinite=allow_nonfinite, bit_exact_zeros=bit_exact_zeros,
        quantize_mtp=quantize_mtp, mapping=mapping, max_shard_bytes=max_shard_bytes, reflink=reflink, repair_index=repair_index,
        all_files=all_files, follow_links=follow_links, threads=threads)
    with reporting(progress, "quantize") as callback:
        return QuantizeReport._of(_core.quantize(options, callback))


def plan_quantize(
    input: Path,
    recipe: Path,
    *,
    recipe_folders: Sequence[Path] = (),
    kv_cache: str | None = None,
    calibration: Path | None = None,
    quantize_mtp: bool = False,
    mapping_file: Path | None = None,
    transformers_version: str | None = None,
    architecture: str | None = None,
    max_shard_bytes: int | None = None,
    repair_index: bool = False,
    follow_links: bool = False,
    all_files: bool = False,
) -> QuantizePlan:
    """What ``quantize`` would make of each module. Writes nothing, reads headers."""
    mapping = _mapping(mapping_file, transformers_version, architecture)
    options = filled(
        _core.QuantizeOptions(), input=input, recipe=_recipe(recipe, recipe_folders, kv_cache), calibration=calibration,
        quantize_mtp=quantize_mtp, mapping=mapping, max_shard_bytes=max_shard_bytes, repair_index=repair_index, all_files=all_files,
        follow_links=follow_links)
    return QuantizePlan._of(_core.plan_quantize(options, None))


def _recipe(recipe: Path, folders: Sequence[Path], kv_cache: str | None) -> _core.RecipeOptions:
    return filled(_core.RecipeOptions(), name=os.fspath(recipe), folders=_list("recipe_folders", folders), kv_cache=kv_cache)


def dequantize(
    input: Path,
    output: Path,
    *,
    max_shard_bytes: int | None = None,
    reflink: Reflink = "auto",
    repair_index: bool = False,
    follow_links: bool = False,
    all_files: bool = False,
    threads: int = 0,
    progress: Progress = None,
) -> QuantizeReport:
    """Write a quantized checkpoint's weights (in hub names) as BF16, and its configs without their quantization.

    :raises QuantConversionUnsupportedError: with each weight in a format that is not dequantized.
    """
    options = filled(
        _core.DequantizeOptions(), input=input, output=output, max_shard_bytes=max_shard_bytes, reflink=reflink,
        repair_index=repair_index, all_files=all_files, follow_links=follow_links, threads=threads)
    with reporting(progress, "dequantize") as callback:
        return QuantizeReport._of(_core.dequantize(options, callback))


def list_recipes() -> RecipeList:
    """The built-in recipes and presets for ``quantize``, and its presets for ``kv_cache``."""
    return RecipeList._of(_core.recipe_list())


# ---- looking


def verify(
    checkpoint: Path,
    reference: Path | None = None,
    *,
    no_reference: bool = False,
    engine: str | None = None,
    engine_file: Path | None = None,
    mapping_file: Path | None = None,
    transformers_version: str | None = None,
    architecture: str | None = None,
) -> VerifyReport:
    """Hold a checkpoint's names, logical shapes, scales, index and configs against the hub checkpoint, or its index.

    With ``engine`` ("vllm", "sglang" or "tensorrt-llm", and "@VERSION" where it isn't the newest known), say whether
    that engine loads it whole; ``engine_file`` has facts about another version.

    Without a reference it is looked for in the local Hugging Face cache. A disagreement is a problem in the report and no
    exception.

    :param no_reference: hold the checkpoint against itself alone, and names against nothing.
    :raises ReferenceMismatchError: no reference and no engine is given, and no reference is found.
    """
    if no_reference and reference is not None:
        raise ValueError("no_reference goes without a reference")
    mapping = _mapping(mapping_file, transformers_version, architecture)
    options = filled(_core.VerifyOptions(), checkpoint=checkpoint, reference="" if reference is None else reference,
                     find_reference=not no_reference, mapping=mapping, engine=engine or "", engine_file=engine_file or "")
    return VerifyReport._of(_core.verify(options))


def inspect(checkpoint: Path) -> InspectReport:
    """What a checkpoint is made of: its modules with their formats, logical shapes and bytes.

    What is wrong with it, such as a missing scale, is in the report's ``problems``; what can't be read is raised.
    """
    return InspectReport._of(_core.inspect(checkpoint))


def diff(
    a: Path,
    b: Path,
    *,
    data: bool = True,
    map: bool = False,
    mapping_file: Path | None = None,
    transformers_version: str | None = None,
    architecture: str | None = None,
    threads: int = 0,
    progress: Progress = None,
) -> DiffReport:
    """Compare two checkpoints: tensors by name, bytes and config files.

    :param data: compare the bytes of tensors that agree in dtype and shape.
    :param map: bring in-memory names and hub names together through the model's conversion mapping.
    """
    mapping = _mapping(mapping_file, transformers_version, architecture)
    options = filled(_core.DiffOptions(), a=a, b=b, data=data, map=map, mapping=mapping, threads=threads)
    with reporting(progress, "diff") as callback:
        return DiffReport._of(_core.diff(options, callback))


def rules(
    checkpoint: Path,
    *,
    names: Sequence[str] = (),
    reference: Path | None = None,
    mapping_file: Path | None = None,
    transformers_version: str | None = None,
    architecture: str | None = None,
) -> RulesReport:
    """The conversion mapping that applies to a checkpoint's config.json.

    :param names: explain which transforms fire on each of these names, and why.
    :param reference: the hub checkpoint: list the names and transforms for which the rules alone go wrong.
    """
    mapping = _mapping(mapping_file, transformers_version, architecture)
    return RulesReport._of(_core.rules(checkpoint, _list("names", names), reference, mapping))


def transformers_versions() -> list[str]:
    """The transformers versions whose mappings are built in, oldest first."""
    return list(_core.transformers_versions())
