#!/usr/bin/env python3
"""Write what the quantizers of transformers do to tensor names at load: data/quantizers/transformers-<version>.json.

Beside a model's conversion mapping (generate_mappings.py), a quantizer brings renames and converters of its own. Every quantizer
of the installed transformers is asked for them, as if it loaded a checkpoint that is quantized already. The result, one
quant_method a line:

class       the quantizer
renames     [{"stored", "loaded"}]: the leaf of a tensor in a checkpoint, and in memory. The module around it stays.
except      model_types that a quantizer spares a rename: {model_type: [stored leaf]}
converters  [{"sources", "targets", "operations"}]: what is put together into another object in memory. quantport reads these
            tensors by their formats (docs/layouts.md); they are recorded so that a new one shows.
skipped     why a quantizer could not be asked
"""

import argparse
import json
import os
import types
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from generate_mappings import write
from transformers.core_model_loading import WeightConverter, WeightRenaming
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

MODULE = "model.layers.0.mlp.down_proj"


class Anything:
    """A quantization config with nothing switched on."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return None


def model_of(model_type):
    model = torch.nn.Module()
    model.config = types.SimpleNamespace(model_type=model_type)
    return model


def conversions_of(quantizer, model_type=""):
    try:
        return quantizer.update_weight_conversions([], model_of(model_type))
    except TypeError:  # before it was given the model
        return quantizer.update_weight_conversions([])


def same_name(conversion):
    """Whether a converter gives one tensor another name and leaves it as it is: Quark's, before it was a renaming."""
    operations = [type(operation).__name__ for operation in conversion.operations]
    return operations == ["QuarkDeserialize"] and len(conversion.source_patterns) == 1


def rename_of(conversion):
    """What a renaming does to a leaf below some module."""
    pattern = conversion._original_source_patterns[0]
    stored = pattern.rstrip("$").rpartition("\\.")[2] if "\\." in pattern else pattern
    renamed, matched = WeightRenaming(
        conversion._original_source_patterns, conversion._original_target_patterns).rename_source_key(f"{MODULE}.{stored}")
    if matched is None or not renamed.startswith(MODULE + "."):
        raise ValueError(f"{conversion} is no renaming of a leaf")
    return {"stored": stored, "loaded": renamed.removeprefix(MODULE + ".")}


def describe(quantizer_class):
    # What a constructor would have set is as good as absent.
    kind = type(quantizer_class.__name__, (quantizer_class,), {"__getattr__": lambda self, name: None})
    quantizer = kind.__new__(kind)
    quantizer.pre_quantized, quantizer.quantization_config = True, Anything()
    quantizer._discover_quantized_param_names = lambda: {"weight"}  # torchao's, from the metadata of a file
    described = {"class": quantizer_class.__name__}
    try:
        conversions = conversions_of(quantizer)
    except ImportError as error:
        return described | {"renames": [], "skipped": f"{type(error).__name__}: {error}"}
    renames = [c for c in conversions if isinstance(c, WeightRenaming) or isinstance(c, WeightConverter) and same_name(c)]
    described["renames"] = [rename_of(c) for c in renames]
    spared = {}
    for model_type in CONFIG_MAPPING:
        found = [c for c in conversions_of(quantizer, model_type) if isinstance(c, WeightRenaming)]
        kept = {rename_of(c)["stored"] for c in found}
        missing = [r["stored"] for r in described["renames"] if r["stored"] not in kept]
        if found and missing:
            spared[model_type] = missing
    converters = [{"sources": c._original_source_patterns, "targets": c._original_target_patterns,
                   "operations": [type(operation).__name__ for operation in c.operations]}
                  for c in conversions if c not in renames]
    return described | {key: value for key, value in (("except", spared), ("converters", converters)) if value}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default=f"data/quantizers/transformers-{transformers.__version__}.json")
    arguments = parser.parse_args()
    quantizers = {method: describe(quantizer) for method, quantizer in AUTO_QUANTIZER_MAPPING.items()}
    Path(arguments.output).parent.mkdir(parents=True, exist_ok=True)
    write(arguments.output, {"format": 1, "library": "transformers", "version": transformers.__version__,
                             "quantizers": quantizers})
    for method, quantizer in quantizers.items():
        for rename in quantizer["renames"]:
            print(f"{method}: {rename['stored']} -> {rename['loaded']}")


if __name__ == "__main__":
    main()
