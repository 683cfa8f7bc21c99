"""The cells of the table that engines and quantport are both asked: a model, a recipe and what is done to the result.

Needs no package, so that the recorder (record.py, in the engines' environment) and the test (tests/cli/engines_test.py)
make the same checkpoints.
"""
import json
import os
import shutil
import struct
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, f"{ROOT}/tests/cli")

import hub_models
import program

GOLDENS = f"{ROOT}/tests/golden/engines"
DATA_FREE = ["nvfp4_weight_only-kv_fp8_cast", "w4a16_nvfp4", "nvfp4_experts_only_input_scale1-kv_fp8_cast", "mxfp8",
             "fp8_per_channel_per_token", "fp8_2d_blockwise_weight_only", "nvfp4_mlp_weight_only", "mxfp4",
             "mxfp4_mlp_weight_only", "w4a8_mxfp4_fp8", "int8_weight_only", "int4_blockwise_weight_only"]
CALIBRATED = ["nvfp4_default-kv_fp8", "fp8_default-kv_fp8"]
RECIPES = CALIBRATED + DATA_FREE
# Formats that engines load are where a change of the checkpoint can make a difference.
MUTATED = ["nvfp4_default-kv_fp8", "fp8_default-kv_fp8"]


def read_model(folder):
    """config.json and (name, dtype, shape) of every tensor, as a golden keeps a hub checkpoint."""
    with open(f"{folder}/config.json") as file:
        config = json.load(file)
    tensors = [[name, dtype, shape] for name, (dtype, shape, _) in program.read_checkpoint(folder).items()]
    return {"config": config, "tensors": sorted(tensors)}


def write_model(model, folder):
    """The hub checkpoint of a golden, with numbers that follow from the names."""
    program.write_checkpoint(folder, model["config"], [
        (name, dtype, shape, numbers(name, dtype, program.byte_count(dtype, shape)))
        for name, dtype, shape in model["tensors"]])


def numbers(name, dtype, count):
    """Bytes that follow from the name, of numbers of usual sizes."""
    pattern = hub_models.fill(name, (512,)) if dtype == "BF16" else struct.pack("<f", 1.0)
    return (pattern * (count // len(pattern) + 1))[:count]


def write_calibration(hub, scratch):
    """An amax for every input, under the names that transformers has in memory."""
    memory = f"{scratch}/in-memory"
    done = program.run("apply", hub, "-o", memory, "-q")
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    amax = {}
    for name, (_, shape, _) in program.read_checkpoint(memory).items():
        module = name.removesuffix(".weight")
        if len(shape) >= 2:
            amax[f"{module}.input_amax"] = 6.0
        if module.endswith(".o_proj"):
            attention = module.rpartition(".")[0]
            amax[f"{attention}.k_amax"] = amax[f"{attention}.v_amax"] = 11.0
    path = f"{scratch}/amax.safetensors"
    program.write(path, program.safetensors([(n, "F32", [], struct.pack("<f", v)) for n, v in sorted(amax.items())]))
    return path


def quantize(hub, recipe, folder, calibration):
    """The finished process of `quantport quantize`."""
    more = ["--calibration", calibration] if recipe in CALIBRATED else []
    return program.run("quantize", hub, "-o", folder, "--recipe", recipe, "-q", *more)


# ---- what is done to a checkpoint --------------------------------------------------------------------------------


class Checkpoint:
    """A folder with one file of tensors, in memory."""

    def __init__(self, folder):
        self.folder = folder
        self.tensors = program.read_checkpoint(folder)
        self.configs = {}
        for name in ("config.json", "hf_quant_config.json"):
            if os.path.exists(f"{folder}/{name}"):
                with open(f"{folder}/{name}") as file:
                    self.configs[name] = json.load(file)

    def write(self, folder):
        shutil.copytree(self.folder, folder)
        program.write(f"{folder}/model.safetensors",
                      program.safetensors([(name, *tensor) for name, tensor in sorted(self.tensors.items())]))
        for name, config in self.configs.items():
            program.write(f"{folder}/{name}", config)

    def first(self, *endings):
        return next((name for name in sorted(self.tensors) if name.endswith(endings)), None)

    def lists(self):
        yield self.configs["config.json"]["quantization_config"]["ignore"]
        yield self.configs["hf_quant_config.json"]["quantization"]["exclude_modules"]


def dropped_scale(checkpoint):
    del checkpoint.tensors[checkpoint.first(".weight_scale")]


def renamed_scale(checkpoint):
    name = checkpoint.first(".weight_scale")
    checkpoint.tensors[name + "s"] = checkpoint.tensors.pop(name)


def wrong_group(checkpoint):
    own = checkpoint.configs["config.json"]["quantization_config"]
    if checkpoint.first(".weight_scale_2") is None:
        return False
    own["group_size"] = 32
    for group in own["config_groups"].values():
        group["weights"]["group_size"] = 32
    checkpoint.configs["hf_quant_config.json"]["quantization"]["group_size"] = 32
    return True


def widened_exclude(checkpoint):
    module = checkpoint.first(".weight_scale").rpartition(".")[0]
    for entries in checkpoint.lists():
        entries.append(module.rpartition(".")[0] + "*")


def unequal_scales(checkpoint):
    """Of the two projections that share an input, in experts where there are any."""
    pair = (".0.w3.weight_scale_2", ".0.up_proj.weight_scale_2")
    name = checkpoint.first(*pair) or checkpoint.first(".up_proj.weight_scale_2")
    if name is None:
        return False
    dtype, shape, data = checkpoint.tensors[name]
    checkpoint.tensors[name] = (dtype, shape, struct.pack("<f", 2 * struct.unpack("<f", data)[0]))
    return True


def missing_expert(checkpoint):
    name = checkpoint.first(".2.w1.weight", ".2.gate_proj.weight")
    if name is None:
        return False
    expert = name.removesuffix(".weight").rpartition(".")[0] + "."
    checkpoint.tensors = {n: t for n, t in checkpoint.tensors.items() if not n.startswith(expert)}
    return True


MUTATIONS = {function.__name__: function for function in
             (dropped_scale, renamed_scale, wrong_group, widened_exclude, unequal_scales, missing_expert)}


def variants(folder, recipe, scratch):
    """(variant, folder) of a quantized checkpoint: as written, with names in memory, and changed."""
    yield "as_written", folder
    if recipe not in MUTATED:
        return
    memory = f"{scratch}/in_memory"
    if program.run("apply", folder, "-o", memory, "-q").returncode == 0:
        yield "in_memory", memory
        shutil.rmtree(memory)
    for name, mutate in MUTATIONS.items():
        checkpoint = Checkpoint(folder)
        if mutate(checkpoint) is False:
            continue
        checkpoint.write(f"{scratch}/{name}")
        yield name, f"{scratch}/{name}"
        shutil.rmtree(f"{scratch}/{name}")
