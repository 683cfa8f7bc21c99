"""State dicts under the names of their hub checkpoints, as views of the tensors that are there."""
from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Literal, overload

from quantport import _core, conversions
from quantport.arrays import Arrays, NumpyArrays, TorchArrays
from quantport.errors import InvalidConfigError, IoError, Problem
from quantport.files import ExpertForm, MergeScales, OnUnsupported, Path, filled
from quantport.reports import RevertReport

_QUANT_CONFIG = "hf_quant_config.json"


class QuantportWarning(UserWarning):
    """Something was done other than asked for, or may not be what is wanted."""


# ---- what is given ------------------------------------------------------------------------------------------------------


def arrays_of(state_dict: Mapping[str, Any]) -> tuple[list[str], Arrays]:
    """The names and tensors of a dict, checked.

    :raises TypeError: it is no mapping, a name is no string, or a value is no tensor or of a dtype that files don't have.
    """
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"a state dict maps names to tensors; this is a {_type_name(state_dict)}"
                        + (": pass its state_dict()" if hasattr(state_dict, "state_dict") else ""))
    names, tensors = list(state_dict), list(state_dict.values())
    if set(map(type, names)) - {str}:
        wrong = next(name for name in names if type(name) is not str)
        raise TypeError(f"a state dict maps names to tensors; the key {wrong!r} is a {_type_name(wrong)}, not a string")
    return names, _library(names, tensors)


def _library(names: list[str], tensors: list[Any]) -> Arrays:
    libraries = {}
    for kind in set(map(type, tensors)):
        library = _library_of(kind)
        if library is None:
            name, value = next((n, t) for n, t in zip(names, tensors) if type(t) is kind)
            raise TypeError(f"state_dict[{name!r}] is a {_type_name(value)}, not a torch tensor or numpy array: leave it out, "
                            "and add it to the result under the name that it is to have")
        libraries[library] = kind
    if len(libraries) > 1:
        raise TypeError("the state dict holds torch tensors and numpy arrays: make all of them one or the other "
                        "(torch.from_numpy, tensor.numpy())")
    arrays: Arrays = TorchArrays(tensors) if "torch" in libraries else NumpyArrays(tensors) if libraries else Arrays(tensors)
    return arrays


def _library_of(kind: type) -> str | None:
    for library, name in (("torch", "Tensor"), ("numpy", "ndarray")):
        module = sys.modules.get(library)  # whose tensors can't be there unless it is
        if module is not None and issubclass(kind, getattr(module, name)):
            return library
    return None


def _type_name(thing: Any) -> str:
    kind = type(thing)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _codes(names: list[str], arrays: Arrays) -> list[int]:
    if not names:
        return []
    try:
        return arrays.codes()
    except TypeError as error:
        for name, tensor in zip(names, arrays.tensors):
            try:
                type(arrays)([tensor]).codes()
            except TypeError:
                raise TypeError(f"state_dict[{name!r}] {error}") from None
        raise


def check_memory(names: list[str], arrays: Arrays) -> None:
    """Refuses dicts whose tensors lie partly in each other.

    One tensor under several names is a tied weight: it keeps all its names, and who saves the result leaves out those that
    the model ties. Neighbours in one storage are fine as well. But of two that overlap otherwise, a fused weight and a slice
    of it for example, both would be converted, and the same bytes saved twice under names that contradict each other.

    :raises ValueError: naming both tensors.
    """
    if not names:
        return
    places = []
    for i, tensor in enumerate(arrays.tensors):
        memory = arrays.memory(tensor)
        if memory is not None:  # of what is not dense the first element: others may lie between the rest
            places.append((str(memory[0]), memory[1], -memory[2] if memory[3] else 0, i))
    places.sort()
    owner = None
    for place in places:
        device, begin, size, i = place
        if owner is not None and owner[0] == device and begin < owner[1] - owner[2]:
            if (begin, size) != owner[1:3] and not _is_scalar(arrays.tensors[i]):
                raise ValueError(
                    f"state_dict[{names[i]!r}] lies in the memory of state_dict[{names[owner[3]]!r}] without being the same "
                    "tensor: leave one of them out, or pass a copy (clone()) if both are meant to be there")
        elif size:
            owner = place


def _is_scalar(tensor: Any) -> bool:
    count = 1
    for size in tensor.shape:
        count *= size
    return count == 1


def config_of(model_or_config: Any, architecture: str | None) -> tuple[str, str, dict[str, str], str | None]:
    """(text of config.json, its folder, texts of other config files, architecture) of a model, a config or a path."""
    thing, folder = model_or_config, ""
    more: dict[str, str] = {}
    if conversions.is_model(thing):
        architecture = architecture or type(thing).__name__
        thing = thing.config
    if isinstance(thing, (str, os.PathLike)):
        text, folder, more = _read_config(os.fspath(thing))
    elif isinstance(thing, Mapping):
        text = json.dumps(thing, default=str)
    elif callable(getattr(thing, "to_dict", None)):
        text = json.dumps(thing.to_dict(), default=str)
    else:
        raise TypeError(f"model_or_config is a {_type_name(thing)}: pass a transformers model, its config, a dict or the path "
                        "of a config.json")
    if architecture is None:
        _check_architectures(text, os.path.join(folder, "config.json") if folder else "")
    return text, folder, more, architecture


def _check_architectures(text: str, file: str) -> None:
    try:
        config = json.loads(text)
    except ValueError:
        return  # the library says what is wrong, and where
    if isinstance(config, dict) and not (isinstance(config.get("architectures"), list) and config["architectures"]):
        hint = 'pass architecture="<class of the model>", or the model itself'
        message = "the config names no architecture, so that nobody knows how the model's tensors were converted"
        raise InvalidConfigError([Problem("InvalidConfigError", message, file, "", hint)])


def _read_config(path: str) -> tuple[str, str, dict[str, str]]:
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    file = os.path.join(path, "config.json") if os.path.isdir(path) else path
    more = {}
    try:
        with open(file, encoding="utf-8") as f:
            text = f.read()
        other = os.path.join(folder, _QUANT_CONFIG)
        if os.path.exists(other):
            with open(other, encoding="utf-8") as f:
                more[_QUANT_CONFIG] = f.read()
    except (OSError, UnicodeDecodeError) as error:
        raise IoError(f"{file}: can't read the config: {getattr(error, 'strerror', None) or error} (model_or_config is the path "
                      "of a config.json or of the folder that holds it)") from error
    return text, folder, more


def _add_reference(reference: Any, options: Any) -> None:
    """Tensors or shapes by name, or names alone."""
    if reference is None:
        return
    if isinstance(reference, Mapping) and all(type(name) is str for name in reference):
        names = list(reference)
        values = list(reference.values())
        if all(value is None for value in values):
            options.set_reference_names(names)
            return
        if all(isinstance(value, (tuple, list)) and all(isinstance(size, int) for size in value) for value in values):
            options.set_reference_tensors(names, [_core.DTYPES.index("BF16")] * len(names), values)
            return
        if all(_library_of(type(value)) for value in values):
            _, arrays = arrays_of(reference)
            options.set_reference_tensors(names, _codes(names, arrays), values)
            return
    elif isinstance(reference, Iterable) and not isinstance(reference, Mapping):
        names = list(reference)
        if all(type(name) is str for name in names):
            options.set_reference_names(names)
            return
    raise TypeError(f"reference is a {_type_name(reference)}: pass the hub checkpoint's folder, its index, the names of its "
                    "tensors, or a dict of its tensors or their shapes")


# ---- what is made of it --------------------------------------------------------------------------------------------------


def make_plan(names: list[str], arrays: Arrays, model_or_config: Any, *, reference: Any = None,
              on_unsupported: str = "keep-names", by_rules: bool = False, experts: str = "expanded",
              merge_scales: str = "refuse", strict: bool = False,
              quantization: Mapping[str, Any] | None = None, mapping: Mapping[str, Any] | None = None, mapping_file: Any = None,
              transformers_version: str | None = None, architecture: str | None = None, stated_quantization: bool = True,
              as_plain: bool = False) -> Any:
    """The engine's plan for a checked dict; arguments as revert_state_dict's. ``stated_quantization``: whether to believe what
    the model's config says of its quantization. ``as_plain``: take every tensor for one that is not quantized, whatever
    its shape."""
    model_or_config = getattr(model_or_config, "_orig_mod", model_or_config)  # torch.compile's wrapper
    if quantization is not None and not isinstance(quantization, Mapping):
        raise TypeError(f"quantization can't be {quantization!r}: it is a dict, as hf_quant_config.json holds it")
    revert = filled(_core.RevertOptions(), on_unsupported=on_unsupported, by_rules=by_rules, experts=experts, merge_scales=merge_scales,
                    strict=strict)
    text, folder, more, chosen = config_of(model_or_config, architecture)
    revert.mapping = _mapping_options(model_or_config, mapping, mapping_file, transformers_version, chosen)
    if isinstance(reference, (str, os.PathLike)):
        revert.reference, reference = os.fspath(reference), None
    options = _core.state_dict_options(revert)
    options.config = text if stated_quantization and quantization is None else _without_quantization(text)
    options.folder = folder
    options.shapes_known = not as_plain
    options.more = more if quantization is None else {_QUANT_CONFIG: _quantization_text(quantization)}
    _add_reference(reference, options)
    codes = [_core.DTYPES.index("BF16")] * len(names) if as_plain else _codes(names, arrays)
    return _core.plan_state_dict(names, codes, arrays.tensors, options,
                                 lambda i: arrays.content(arrays.tensors[i]))


def _mapping_options(model_or_config: Any, mapping: Mapping[str, Any] | None, mapping_file: Any,
                     transformers_version: str | None, architecture: str | None) -> Any:
    given = {"mapping": mapping, "mapping_file": mapping_file, "transformers_version": transformers_version}
    said = [name for name, value in given.items() if value is not None]
    if len(said) > 1:
        raise ValueError(f"{' and '.join(said)} both say which mapping applies: give one of them")
    options = filled(_core.MappingOptions(), architecture=architecture, transformers_version=transformers_version,
                     mapping_file=mapping_file)
    if mapping is not None:
        options.mapping_json = json.dumps(mapping)
    elif not said and conversions.is_model(model_or_config):
        options.mapping_json = conversions.mapping_json(model_or_config)
    return options


def _quantization_text(quantization: Mapping[str, Any]) -> str:
    """A section by itself, or with the key that hf_quant_config.json or config.json has before it."""
    for key in ("quantization", "quantization_config"):
        if isinstance(quantization.get(key), Mapping):
            quantization = quantization[key]
    return json.dumps({"quantization": quantization}, default=str)


def _without_quantization(text: str) -> str:
    try:
        config = json.loads(text)
    except ValueError:
        return text  # the library says what is wrong, and where
    sections = (config, config.get("text_config")) if isinstance(config, dict) else ()
    for section in sections:
        if isinstance(section, dict):
            for key in ("quantization_config", "compression_config", "quantization"):
                section.pop(key, None)
    return json.dumps(config)


class Step:
    """What a merged scale does to elements on their way into the result."""

    def __init__(self, engine: Any, scalars: list[list[Any]]) -> None:
        self.engine = engine
        self.scalar = scalars[engine.merge][engine.winner] if engine.merged else None
        self.counts = [0] * 256

    def apply(self, arrays: Arrays, source: Any) -> Any:
        if self.scalar is not None:
            return self.scalar
        recoded, counts = arrays.recode(source, self.engine.codes())
        self.counts = [a + b for a, b in zip(self.counts, counts)]
        return recoded


def _checked(plan: Any, arrays: Arrays) -> Any:
    """The plan, or the one that keeps all names where scalars that should be equal are not. On meta nobody can tell."""
    checks = plan.checks()
    failed = arrays.unequal(checks) if checks else []
    return plan.without(failed) if failed else plan


def _merged(plan: Any, arrays: Arrays) -> tuple[Any, list[Step]]:
    """The plan and its steps, or the plan that keeps all names where scalars can't be merged."""
    merges = plan.merges()
    if not merges:
        return plan, []
    scalars = [[arrays.view(tensor, offset, (), ()) for tensor, offset in zip(*merge)] for merge in merges]
    contents = [[arrays.content(scalar) for scalar in merge] for merge in scalars]
    if any(content is None for merge in contents for content in merge):
        raise ValueError("scales can't be merged on the meta device, where they have no values")
    results = plan.merge_scalars(contents)
    if not isinstance(results, list):
        return results, []
    return plan, [Step(engine, scalars) for engine in results]


def _carry_out(plan: Any, arrays: Arrays, steps: list[Step]) -> dict[str, Any]:
    tensors = arrays.tensors
    values = [tensors[i] if i >= 0 else None for i in plan.whole()]
    for result in plan.copied():
        values[result] = arrays.copy(values[result])
    for tensor, offset, distance, shape, strides, copied, results in plan.series():
        if len(results) == 1:
            view = arrays.view(tensor, offset, shape, strides)
            values[results[0]] = arrays.copy(view) if copied else view
            continue
        for result, view in zip(results, arrays.series(tensor, len(results), distance, offset, shape, strides, copied)):
            values[result] = view
    for result, array in plan.joined():
        values[result] = arrays.join(array, steps)
    for result, code, shape, content in plan.literals():
        values[result] = arrays.from_bytes(content, code, shape)
    return dict(zip(plan.names(), values))


@overload
def revert_state_dict(
    state_dict: Mapping[str, Any], model_or_config: Any, reference: Any = ..., on_unsupported: OnUnsupported = ..., *,
    by_rules: bool = ..., experts: ExpertForm = ..., merge_scales: MergeScales = ..., strict: bool = ...,
    quantization: Mapping[str, Any] | None = ..., mapping: Mapping[str, Any] | None = ..., mapping_file: Path | None = ...,
    transformers_version: str | None = ..., architecture: str | None = ..., return_report: Literal[False] = ...,
) -> dict[str, Any]: ...


@overload
def revert_state_dict(
    state_dict: Mapping[str, Any], model_or_config: Any, reference: Any = ..., on_unsupported: OnUnsupported = ..., *,
    by_rules: bool = ..., experts: ExpertForm = ..., merge_scales: MergeScales = ..., strict: bool = ...,
    quantization: Mapping[str, Any] | None = ..., mapping: Mapping[str, Any] | None = ..., mapping_file: Path | None = ...,
    transformers_version: str | None = ..., architecture: str | None = ..., return_report: Literal[True],
) -> tuple[dict[str, Any], RevertReport]: ...


def revert_state_dict(
    state_dict: Mapping[str, Any],
    model_or_config: Any,
    reference: Any = None,
    on_unsupported: OnUnsupported = "keep-names",
    *,
    by_rules: bool = False,
    experts: ExpertForm = "expanded",
    merge_scales: MergeScales = "refuse",
    strict: bool = False,
    quantization: Mapping[str, Any] | None = None,
    mapping: Mapping[str, Any] | None = None,
    mapping_file: Path | None = None,
    transformers_version: str | None = None,
    architecture: str | None = None,
    return_report: bool = False,
) -> dict[str, Any] | tuple[dict[str, Any], RevertReport]:
    """The state dict of a quantized model under the names of its hub checkpoint.

    Renamed tensors are the same objects, and what is cut, un-stacked or transposed is a view of the same storage. What
    exists once a weight (0-d and one-element scales, scales of the inputs) is copied where several results get it. Only
    tensors that are put together of several, or whose rows change their order, need memory of their own. The input is
    not changed. A tensor of the result stands where the first one that it is made of stood.

    :param state_dict: names to torch tensors of any device (meta too), dtype and shape, or to numpy arrays (of ml_dtypes
        where numpy has no such type). Weights with the tensors that are stored for them: NVFP4 values uint8 [out, in / 2],
        their block scales float8_e4m3fn [out, in / 16], scales of a tensor float32 [] and so on (docs/layouts.md). Names
        that share a tensor keep sharing it.
    :param model_or_config: a transformers model, whose own conversion objects are the mapping then; or its config, a dict, or
        the path of a config.json or its folder, for which a built-in mapping is looked up.
    :param reference: the hub checkpoint, which decides where a rule could not: its folder or index, the names of its
        tensors, or a dict of its tensors or their shapes.
    :param on_unsupported: where the conversion can't be carried through a stored layout, "keep-names" returns a dict with the
        names as they are and warns; "fail" raises.
    :param by_rules: without a reference, take the names that the mapping's rules give, where other hub names would load to the
        same tensors too. By default what is known of published names decides, and names that stay undecided are kept as they
        are, with a QuantportWarning ("fail" raises).
    :param experts: "expanded" or "stacked", for containers that the hub keeps in one tensor and the dict one by one.
    :param merge_scales: where weights that become one have different scales, "refuse" or "max".
    :param strict: names that only the reference has are errors.
    :param quantization: how the tensors are quantized, as hf_quant_config.json or a quantization_config states it, instead of
        what the model's config says; {} for nothing.
    :param mapping: the content of a mapping file (docs/mappings.md), instead of the model's own mapping or a built-in one.
    :param mapping_file: a mapping file, likewise.
    :param transformers_version: the version whose built-in mapping applies.
    :param architecture: the model's class, instead of what the model or its config says.
    :param return_report: return (dict, report).

    :raises TypeError: a value that is no tensor, a name that is no string, a config or reference of another kind.
    :raises ValueError: tensors that lie partly in each other; an option's value that does not exist.
    :raises InvalidConfigError: the config names no architecture.
    :raises InvalidMappingError: the model was converted by objects that quantport does not know.
    :raises QuantConversionUnsupportedError: with ``on_unsupported="fail"``; NameCollisionError, MissingCompanionError and
        UndecidedNamesError too.
    :raises UnknownArchitectureError: also UnknownVersionError, ReferenceMismatchError and IoError, as for files.
    """
    names, arrays = arrays_of(state_dict)
    check_memory(names, arrays)
    plan = make_plan(names, arrays, model_or_config, reference=reference, on_unsupported=on_unsupported, by_rules=by_rules,
                     experts=experts, merge_scales=merge_scales, strict=strict, quantization=quantization, mapping=mapping,
                     mapping_file=mapping_file, transformers_version=transformers_version, architecture=architecture)
    result, plan = carry_out(plan, arrays)
    for text in plan.warnings():
        warnings.warn(text, QuantportWarning, stacklevel=2)
    return (result, RevertReport._of(plan.report())) if return_report else result


def carry_out(plan: Any, arrays: Arrays) -> tuple[dict[str, Any], Any]:
    """The dict that a plan describes, and the plan that was followed."""
    with arrays.recording():
        plan = _checked(plan, arrays)
        plan, steps = _merged(plan, arrays)
        result = _carry_out(plan, arrays, steps)
    if steps:
        plan.report_rescaled([step.engine for step in steps], [step.counts for step in steps])
    return result, plan
