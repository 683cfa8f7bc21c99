"""The names and signatures of ModelOpt's reversal (modelopt.torch.export.quant_aware_conversion), on quantport's engine.

As there, what can't be reverted is an exception, and whoever exports falls back: it warns, and keeps the names in memory for
tensors and configs both. Beyond what ModelOpt reverses, experts may be stacked or expanded, transforms may be scoped, rows may be
reordered, and module references are rewritten by what they match.
"""
from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from quantport import _core
from quantport.errors import QuantConversionUnsupportedError
from quantport.state_dict import arrays_of, carry_out, make_plan

__all__ = [
    "NameMapper",
    "QuantConversionUnsupportedError",
    "build_reverse_name_mapper",
    "revert_quant_config_names",
    "revert_weight_conversion_quant_aware",
]

# Tensors of quantizers, which ModelOpt keeps in the model and leaves out of an export.
_QUANTIZER = "_quantizer"


def revert_weight_conversion_quant_aware(model: Any, state_dict: Mapping[str, Any], *, reference: Any = None,
                                         by_rules: bool = False) -> dict[str, Any]:
    """The state dict of ``model`` under the names of its hub checkpoint.

    Every tensor is dense, as writers of safetensors ask for; all else is as ``quantport.revert_state_dict`` has it.

    :param model: the transformers model that is exported, whose conversion objects are the mapping.
    :param state_dict: what is about to be saved, quantized weights with their scales. It is not changed.
    :param reference: the hub checkpoint, as in ``quantport.revert_state_dict``; ModelOpt has no such parameter.
    :param by_rules: likewise.

    :raises QuantConversionUnsupportedError: the conversion can't be carried through the stored tensors;
        NameCollisionError, MissingCompanionError, UndecidedNamesError and InvalidMappingError likewise.
    """
    names, arrays = arrays_of(state_dict)
    # The config may still describe the quantization of what was loaded, and the new one is yet to be written.
    plan = make_plan(names, arrays, model, reference=reference, on_unsupported="fail", by_rules=by_rules,
                     stated_quantization=False)
    result, _ = carry_out(plan, arrays)
    return {name: tensor.contiguous() if hasattr(tensor, "contiguous") else tensor for name, tensor in result.items()}


class NameMapper:
    """Maps a module's name in memory, or a pattern of names, to that on the hub."""

    def __init__(self, plan: Any) -> None:
        self._plan = plan

    def __call__(self, name: str) -> str:
        """The hub's name; for a pattern the one that matches the same modules there, where there is one."""
        entries = self.map_entries([name])
        if len(entries) == 1:
            return entries[0]
        base = name.rstrip("*").rstrip(".")
        return str(self._plan.rename_module(base)) + name[len(base):]

    def map_entries(self, entries: list[str]) -> list[str]:
        """A list of references that match on the hub what ``entries`` match in memory. Some may become several."""
        mapped: list[str] = self.map_quantization({"exclude_modules": list(entries)})["exclude_modules"]
        return mapped

    def map_quantization(self, quantization: Mapping[str, Any]) -> dict[str, Any]:
        """A quantization section, as hf_quant_config.json has it, with all references mapped."""
        text = self._plan.rewrite_references(json.dumps({"quantization": quantization}, default=str), "hf_quant_config.json")
        mapped: dict[str, Any] = json.loads(text)["quantization"]
        return mapped


def build_reverse_name_mapper(model: Any, *, reference: Any = None, by_rules: bool = False) -> NameMapper | None:
    """What maps names of the modules of ``model`` to the hub's; None where they are the same.

    :param reference: as of ``revert_weight_conversion_quant_aware``; ``by_rules`` too.

    :raises QuantConversionUnsupportedError: as ``revert_weight_conversion_quant_aware``, for the model's own tensors.
    """
    tensors = {name: tensor for name, tensor in model.state_dict().items() if _QUANTIZER not in name and hasattr(tensor, "shape")}
    # Names alone matter here. Scales may be missing still, before the export has made them.
    values = {name: tensors[name] for name in _core.value_names(list(tensors)) if name in tensors}
    _, arrays = arrays_of(values)
    plan = make_plan(list(values), arrays, model, reference=reference, on_unsupported="fail", by_rules=by_rules,
                     stated_quantization=False, as_plain=True)
    return None if plan.unchanged() else NameMapper(plan)


def revert_quant_config_names(quantization: Any, mapper: NameMapper | Callable[[str], str] | None) -> None:
    """Gives the module references of a quantization section the hub's names, in place.

    :param quantization: the value of "quantization" in hf_quant_config.json: ``exclude_modules`` and, in mixed precision,
        ``quantized_layers``. Anything but a dict is left alone, and so is everything where ``mapper`` is None.
    :param mapper: from ``build_reverse_name_mapper``; another callable is applied to each name.
    """
    if mapper is None or not isinstance(quantization, dict):
        return
    if isinstance(mapper, NameMapper):
        for key, value in mapper.map_quantization(quantization).items():
            if json.dumps(value) != json.dumps(quantization[key], default=str):
                quantization[key] = value
        return
    if quantization.get("exclude_modules"):
        quantization["exclude_modules"] = [mapper(name) for name in quantization["exclude_modules"]]
    layers = quantization.get("quantized_layers")
    if isinstance(layers, dict):
        quantization["quantized_layers"] = {mapper(name): value for name, value in layers.items()}
