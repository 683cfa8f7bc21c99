"""The conversion objects of a live transformers model as a mapping that quantport reads (docs/mappings.md).

transformers keeps on a model what it did to the checkpoint's tensors at load, and has tables for the models that were not
loaded, to which users add their own. Read from there, a mapping holds for classes that no registry knows. The registry
itself is written with the same functions (tools/generate_mappings.py).
"""
from __future__ import annotations

import inspect
import json
from collections.abc import Iterable
from typing import Any

# What the engine carries out; docs/mapping.md says what each does.
TRANSFORMS = frozenset({
    "WeightRenaming", "GroupWeightRename", "PrefixChange", "WeightConverter", "Inkling2IndexOffsetWeightRename",
    "LayerPairCollapse"})
OPERATIONS = frozenset({
    "Chunk", "Concatenate", "Split", "MergeModulelist", "SplitModulelist", "Transpose", "Interleave", "PermuteForRope",
    "Conv3dToLinear", "LinearToConv3d", "ErnieFuseAndSplitTextVisionExperts", "ErnieSplitAndDecoupleTextVisionExperts",
    "Inkling2UnpadVocab", "Inkling2LoopDequantizeExperts", "Inkling2LoopMergeMessageQueries"})


def arguments_of(thing: Any) -> dict[str, Any]:
    """An object's constructor arguments, which transformers keeps as attributes; those of ``object`` are none."""
    parameters = inspect.signature(type(thing).__init__).parameters.values()
    return {p.name: getattr(thing, p.name) for p in parameters
            if p.name != "self" and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def describe_transform(transform: Any) -> dict[str, Any]:
    """A transform as a mapping file states it: its kind and its constructor's arguments, patterns unprocessed."""
    kind = type(transform).__name__
    described: dict[str, Any] = {"type": kind}
    if kind == "PrefixChange":
        return described | arguments_of(transform)
    described["source_patterns"] = transform._original_source_patterns
    described["target_patterns"] = transform._original_target_patterns
    if kind == "Inkling2IndexOffsetWeightRename":
        described["offset"] = transform.offset
    if hasattr(transform, "operations"):
        described["operations"] = [{"op": type(op).__name__} | arguments_of(op) for op in transform.operations]
    return described


def pattern_rules() -> int:
    """Which of the two ways to read patterns (docs/mappings.md) the installed transformers has.

    :raises UnknownVersionError: it reads them in a way of its own.
    """
    from transformers.core_model_loading import WeightRenaming

    bounded = WeightRenaming("a", "b").compiled_sources.search("ab") is None
    longest_first = WeightRenaming(["a_", "ab_"], ["c", "d"]).compiled_sources.pattern.startswith("(?P<g1>")
    if bounded != longest_first:
        import transformers

        from quantport.errors import UnknownVersionError
        raise UnknownVersionError(
            f"transformers {transformers.__version__} reads the patterns of its conversion mappings in a way that quantport "
            "does not know: use transformers 5.17 or 5.24, or convert the saved files with `quantport revert`")
    return 2 if bounded else 1


def is_model(thing: Any) -> bool:
    """Whether it is a module with a config, as transformers' models are."""
    return hasattr(thing, "named_modules") and hasattr(thing, "config")


def conversions_of(model: Any) -> list[Any]:
    """The conversion objects that saving ``model`` has to undo, in load order.

    A loaded model carries those that matched something in its checkpoint. For any other the tables of transformers are
    asked, user-registered entries included. As transformers does when it saves, changes of prefixes are left out then:
    nobody knows whether the checkpoint had the prefix.

    :raises InvalidMappingError: the installed transformers has no such tables.
    """
    attached = getattr(model, "_weight_conversions", None)
    if attached is not None:
        return list(attached)
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
    except ImportError as error:
        from quantport.errors import InvalidMappingError
        raise InvalidMappingError(
            f"the installed transformers has no conversion mappings ({error}): update it to version 5, or pass the model's "
            "config instead of the model") from error
    found = get_model_conversion_mapping(model, add_legacy=False)
    return [transform for transform in found if type(transform).__name__ != "PrefixChange"]


def mapping_of(model: Any, conversions: Iterable[Any] | None = None) -> dict[str, Any]:
    """The mapping of one live model, in the form of a mapping file.

    :param model: a transformers model; its modules are looked at, its tensors are not.
    :param conversions: the objects to take instead of ``conversions_of(model)``, in load order.

    :raises InvalidMappingError: an object of a kind that quantport does not carry out, or that is no conversion at all.
    :raises UnknownVersionError: see ``pattern_rules``.
    """
    import transformers

    name = type(model).__name__
    transforms = conversions_of(model) if conversions is None else list(conversions)
    mapping = {
        "format": 1, "library": "transformers", "version": transformers.__version__, "pattern_rules": pattern_rules(),
        "conversions": {name: [_describe_live(transform) for transform in transforms], "legacy": _legacy()},
        "classes": {name: {
            "model_type": _text(getattr(model.config, "model_type", "")),
            "base_model_prefix": _text(getattr(model, "base_model_prefix", "")),
            "tied_weights": _tied_weights(model), "submodels": _submodels(model)}},
    }
    return mapping


def mapping_json(model: Any, conversions: Iterable[Any] | None = None) -> str:
    """``mapping_of`` as the text of a mapping file."""
    return json.dumps(mapping_of(model, conversions))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _describe_live(transform: Any) -> dict[str, Any]:
    _check_known(transform)
    described = describe_transform(transform)
    scope = getattr(transform, "scope_prefix", None)
    if scope is not None:
        described |= {"scope_prefix": scope, "base_model_prefix": transform.base_model_prefix or ""}
    return described


def _check_known(transform: Any) -> None:
    """A class of the same name that is not transformers' own may do anything."""
    for thing, known, what in [(transform, TRANSFORMS, "conversion"),
                               *((op, OPERATIONS, "operation") for op in getattr(transform, "operations", ()))]:
        kind = type(thing)
        if kind.__name__ in known and kind.__module__.split(".")[0] == "transformers":
            continue
        from quantport.errors import InvalidMappingError
        patterns = getattr(transform, "_original_source_patterns", None)
        where = f" in the conversion of {', '.join(patterns)}" if patterns and thing is not transform else ""
        raise InvalidMappingError(
            f"{kind.__module__}.{kind.__qualname__}{where}: quantport does not know how to undo this {what}. State what it "
            f"does with those of transformers ({', '.join(sorted(known))}), or pass a mapping file of the model as mapping "
            "(docs/mappings.md)")


def _legacy() -> list[dict[str, Any]]:
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping
    return [describe_transform(transform) for transform in get_checkpoint_conversion_mapping("legacy") or ()]


def _tied_weights(model: Any) -> list[str]:
    return list(getattr(model, "_tied_weights_keys", None) or ())


def _submodels(model: Any) -> list[dict[str, str]]:
    """All below the root, each by its whole path: the list of transforms is flattened, so nothing is looked up by them."""
    from transformers import PreTrainedModel
    return [{"path": path, "config": "", "class": type(module).__name__} for path, module in model.named_modules()
            if path and isinstance(module, PreTrainedModel)]
