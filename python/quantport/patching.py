"""`patch`: ModelOpt's export and transformers' save use quantport's reversal for a while."""
from __future__ import annotations

import contextlib
import functools
import importlib
import os
import re
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable
from typing import Any, Optional, Union

from quantport.errors import IoError, QuantportError, UnknownVersionError

# Versions whose own code was read and is tested against: where their functions are looked up is no interface of theirs.
KNOWN_VERSIONS = {"transformers": ("5.17.0", "5.24.0"), "nvidia-modelopt": ("0.47.*",)}

_SAVE = "revert_weight_conversion"
_EXPORT = ("revert_weight_conversion_quant_aware", "build_reverse_name_mapper", "revert_quant_config_names")
# Each name is bound again in every module that imports it, and looked up there.
_SAVE_PLACES = {"transformers.core_model_loading": (_SAVE,), "transformers.modeling_utils": (_SAVE,)}
_UNIFIED = "modelopt.torch.export.unified_export_hf"
_STREAMING = "modelopt.torch.export.unified_export_hf_streaming"
_EXPORT_PLACES = {
    "modelopt.torch.export.quant_aware_conversion": _EXPORT,
    _UNIFIED: (*_EXPORT, "_write_hf_export_config"),
    _STREAMING: ("build_reverse_name_mapper", "_assert_no_split_rules", "_export_transformers_checkpoint_streaming"),
}
# What is stored beside a quantized weight, or in its place.
_COMPANIONS = re.compile(
    r"(?:^|\.)(?:\w+_)?(?:weight_scale(?:_2|_inv)?|input_scale|weight_global_scale|input_global_scale|weight_packed|"
    r"weight_zero_point|pre_quant_scale|qweight|qzeros|scales|blocks|absmax|quant_map|[kv]_scale)$")

_Replacing = Callable[[Callable[..., Any]], Callable[..., Any]]

_lock = threading.RLock()
_installed: list[tuple[Any, str, Any, Any]] = []  # module, name, what was there, what is there now
_active: list["patch"] = []
_streamed: set[int] = set()  # ids of models whose tensors an export wrote by their names in memory, configs to follow


class patch(contextlib.ContextDecorator):
    """`with quantport.patch():` names what ModelOpt and transformers save as the hub has it.

    Inside, `modelopt.torch.export.export_hf_checkpoint` reverts names, tensors and both config files through
    quantport, and so does transformers' `save_pretrained` where the state dict is a quantized one; of any other it
    does as always. What cannot be reverted keeps its names in memory, tensors and configs alike, with a warning, as
    in ModelOpt. Afterwards everything is as it was, also after an exception. It may be nested, used again, and put
    before a function as a decorator. It applies to the whole process, all threads.

    Args:
        reference: the hub checkpoint that was loaded, a folder or its model.safetensors.index.json: its names decide where
            several load to the same tensor. Of nested patches the innermost counts.
        by_rules: without a reference, take the names that transformers' rules give, where they are undecided too. By default
            names that stay undecided are kept as they are in memory, with a warning.

    Raises:
        UnknownVersionError: transformers or ModelOpt is installed in a version that this was not written for.
        ImportError: neither is installed.
    """

    def __init__(self, reference: Union[str, "os.PathLike[str]", None] = None, *, by_rules: bool = False) -> None:
        self.reference = None if reference is None else os.fspath(reference)
        self.by_rules = by_rules

    def __enter__(self) -> "patch":
        if self.reference is not None and not os.path.exists(self.reference):
            raise FileNotFoundError(f"{self.reference} is not there: reference is the hub checkpoint's folder or its index")
        with _lock:
            if not _active:
                _install()
            _active.append(self)
        return self

    def __exit__(self, *error: Any) -> None:
        with _lock:
            _active.reverse()  # the same one may be there twice: the inner ends first
            _active.remove(self)
            _active.reverse()
            if not _active:
                _uninstall()


def _installed_version(package: str) -> Optional[str]:
    import importlib.metadata  # takes a while, and nothing else needs it

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _is_known(version: str, patterns: Iterable[str]) -> bool:
    return any(version == pattern or (pattern.endswith("*") and version.startswith(pattern[:-1]))
               for pattern in patterns)


def _places() -> dict[str, tuple[str, ...]]:
    """Module -> names to replace, of what is installed."""
    places: dict[str, tuple[str, ...]] = {}
    for package, own in (("transformers", _SAVE_PLACES), ("nvidia-modelopt", _EXPORT_PLACES)):
        version = _installed_version(package)
        if version is None:
            continue
        if not _is_known(version, KNOWN_VERSIONS[package]):
            raise UnknownVersionError(
                f"{package} {version} is installed, and patch() knows {' and '.join(KNOWN_VERSIONS[package])}: export "
                "without it, and give the files their names with `quantport revert` afterwards")
        places |= own
    if not places:
        raise ImportError("patch() needs transformers or nvidia-modelopt, and neither is installed")
    return places


def _install() -> None:
    places = _places()
    from quantport import modelopt as reversal

    replacements: dict[tuple[str, str], _Replacing] = {(module, _SAVE): _for_save for module in _SAVE_PLACES}
    ours: dict[str, Callable[..., Any]] = {
        "revert_weight_conversion_quant_aware": _reverted, "build_reverse_name_mapper": _mapper,
        "revert_quant_config_names": reversal.revert_quant_config_names}
    replacements |= {(module, name): functools.partial(_instead, ours=ours[name])
                     for module in _EXPORT_PLACES for name in ours}
    replacements |= {(_UNIFIED, "build_reverse_name_mapper"): _mapper_unless_streamed,
                     (_UNIFIED, "_write_hf_export_config"): _configs_then_names,
                     (_STREAMING, "_export_transformers_checkpoint_streaming"): _streaming,
                     (_STREAMING, "build_reverse_name_mapper"): functools.partial(_instead, ours=lambda model: None),
                     (_STREAMING, "_assert_no_split_rules"): functools.partial(_instead, ours=lambda model: None)}
    targets = [(importlib.import_module(module), name) for module, names in places.items() for name in names]
    missing = [f"{module.__name__}.{name}" for module, name in targets if not hasattr(module, name)]
    if missing:
        raise UnknownVersionError(f"{', '.join(missing)} is not there: this is not a version that patch() knows")
    for module, name in targets:
        before = getattr(module, name)
        after = replacements[module.__name__, name](before)
        _installed.append((module, name, before, after))
        setattr(module, name, after)


def _uninstall() -> None:
    while _installed:
        module, name, before, after = _installed.pop()
        # Whoever replaced ours meanwhile will put it back: then it does as the original.
        if getattr(module, name, None) is after:
            setattr(module, name, before)


def _sources() -> dict[str, Any]:
    """What says which names the hub has."""
    return {"reference": _active[-1].reference, "by_rules": _active[-1].by_rules} if _active else {}


def _reverted(model: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
    from quantport import modelopt as reversal

    return reversal.revert_weight_conversion_quant_aware(model, state_dict, **_sources())


def _mapper(model: Any) -> Any:
    from quantport import modelopt as reversal

    return reversal.build_reverse_name_mapper(model, **_sources())


def _instead(theirs: Callable[..., Any], ours: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(theirs)
    def replacement(*args: Any, **kwargs: Any) -> Any:
        return (ours if _active else theirs)(*args, **kwargs)
    return replacement


def _for_save(theirs: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(theirs)
    def replacement(model: Any, state_dict: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        if _active and is_quantized(state_dict):
            return _reverted_for_save(theirs, model, state_dict)
        saved: dict[str, Any] = theirs(model, state_dict, *args, **kwargs)
        return saved
    return replacement


# ModelOpt writes a model that accelerate offloads tensor by tensor. Names can't be given one at a time: what an expert is
# called depends on its neighbours, and fused weights are cut. So these files get names in memory, and are then reverted in
# place, which moves no tensor that only changes its name.


def _streaming(theirs: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(theirs)
    def replacement(model: Any, *args: Any, **kwargs: Any) -> Any:
        active = bool(_active)
        result = theirs(model, *args, **kwargs)
        if active:
            _streamed.add(id(model))
        return result
    return replacement


def _mapper_unless_streamed(theirs: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(theirs)
    def replacement(model: Any) -> Any:
        if not _active:
            return theirs(model)
        return None if id(model) in _streamed else _mapper(model)
    return replacement


def _configs_then_names(theirs: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(theirs)
    def replacement(model: Any, hf_quant_config: Any, export_dir: Any) -> Any:
        in_memory = id(model) in _streamed
        _streamed.discard(id(model))
        theirs(model, hf_quant_config, export_dir)
        if in_memory:
            _revert_in_place(model, os.fspath(export_dir))
    return replacement


def _revert_in_place(model: Any, folder: str) -> None:
    from quantport.conversions import mapping_json
    from quantport.files import revert

    try:
        with tempfile.TemporaryDirectory(prefix="quantport-") as work:
            mapping = os.path.join(work, "mapping.json")
            with open(mapping, "w", encoding="utf-8") as file:
                file.write(mapping_json(model))
            sources = _sources()
            revert(folder, in_place=True, no_reference=sources.get("reference") is None, **sources, mapping_file=mapping,
                   architecture=type(model).__name__, progress=False)
    except IoError:
        raise  # a full disk, an unreadable reference: nothing that other names would mend
    except QuantportError as error:
        warnings.warn(f"{folder} keeps the names that {type(model).__name__} has in memory: {error}", stacklevel=4)


def _reverted_for_save(theirs: Callable[..., Any], model: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
    """As ModelOpt's export does: what can't be reverted keeps its names, with a warning."""
    try:
        return _reverted(model, state_dict)
    except IoError:
        raise  # a full disk, an unreadable reference: nothing that other names would mend
    except QuantportError as error:
        if getattr(model, "hf_quantizer", None) is not None:
            saved: dict[str, Any] = theirs(model, state_dict)  # a quantizer of transformers' own, which knows how to save
            return saved
        if {"cpu", "disk"} & set((getattr(model, "hf_device_map", None) or {}).values()):
            raise  # transformers saves an offloaded model part by part, and one part alone can't keep its names
        warnings.warn(f"the state dict of {type(model).__name__} keeps its names in memory: {error}", stacklevel=4)
        return state_dict


def is_quantized(names: Iterable[str]) -> bool:
    """Whether a state dict holds quantized weights, by the names of what is stored beside them."""
    return any(_COMPANIONS.search(name) for name in names)
