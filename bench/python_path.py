#!/usr/bin/env python3
"""The reversal as it is done in Python today: load the state dict, apply rules, save shards. A baseline, not a tool.

    python3 bench/python_path.py EXPORT OUT        (needs torch and safetensors)

Loads every shard with safetensors.torch.load_file, un-fuses gate_up_proj and renames with the rules that ModelOpt 0.47
derives from transformers' mapping of MiniMax-M3 (its quant_aware_conversion: splits first, then each rename as re.sub
on every key), saves shards of 5 GB with save_file, and writes index and config files. No model is built.
"""

import json
import os
import re
import shutil
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

SHARD_BYTES = 5_000_000_000
INDEX = "model.safetensors.index.json"
FUSED, PARTS = ".gate_up_proj", (".gate_proj", ".up_proj")
LEAVES = (".weight", ".weight_scale", ".weight_scale_2", ".weight_scale_inv", ".input_scale", ".bias")
TOWER, PROJECTOR = r"^model.vision_tower.", r"^model.multi_modal_projector."
RENAMES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"(\.experts\.\d+\.)gate_proj\b", r"\g<1>w1"),
        (r"(\.experts\.\d+\.)up_proj\b", r"\g<1>w3"),
        (r"(\.experts\.\d+\.)down_proj\b", r"\g<1>w2"),
        (r".self_attn.indexer.k_norm.", ".self_attn.index_k_norm."),
        (r".self_attn.indexer.q_norm.", ".self_attn.index_q_norm."),
        (r".self_attn.indexer.k_proj.", ".self_attn.index_k_proj."),
        (r".self_attn.indexer.q_proj.", ".self_attn.index_q_proj."),
        (r"\.gate\.e_score_correction_bias", ".e_score_correction_bias"),
        (r"\.mlp\.", ".block_sparse_moe."),
        (PROJECTOR + "merge_linear_2.", "patch_merge_mlp.linear_2."),
        (PROJECTOR + "merge_linear_1.", "patch_merge_mlp.linear_1."),
        (PROJECTOR + "linear_2.", "multi_modal_projector.linear_2."),
        (PROJECTOR + "linear_1.", "multi_modal_projector.linear_1."),
        (TOWER + "pre_layrnorm.", "vision_tower.vision_model.pre_layrnorm."),
        (TOWER + "layers.", "vision_tower.vision_model.encoder.layers."),
        (TOWER + "embeddings.proj.", "vision_tower.vision_model.embeddings.patch_embedding."),
        (r"^model.language_model.", "language_model.model."),
        (r"^lm_head", "language_model.lm_head"),
    ]
]


def rename(key):
    for pattern, replacement in RENAMES:
        key = pattern.sub(replacement, key)
    return key


def unfuse(state):
    for key in list(state):
        leaf = next((leaf for leaf in LEAVES if key.endswith(FUSED + leaf)), None)
        if leaf is None:
            continue
        tensor = state.pop(key)
        module = key.removesuffix(FUSED + leaf)
        for number, part in enumerate(PARTS):
            scalar = tensor.dim() == 0
            state[module + part + leaf] = tensor.clone() if scalar else tensor.chunk(2, dim=0)[number].clone()


def shards_of(state):
    shards, used = [{}], 0
    for key in list(state):
        size = state[key].nbytes
        if used + size > SHARD_BYTES and shards[-1]:
            shards.append({})
            used = 0
        shards[-1][key] = state.pop(key)
        used += size
    return shards


def sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def save(state, output):
    weight_map = {}
    total = sum(tensor.nbytes for tensor in state.values())
    shards = shards_of(state)
    for number, shard in enumerate(shards, 1):
        single = len(shards) == 1
        name = "model.safetensors" if single else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, output / name, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(shard, name))
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        (output / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def rename_module(pattern):
    """A module or glob of an exclude list; the sentinel gives rules that end in a dot something to match."""
    base, star = (pattern[:-1], "*") if pattern.endswith("*") else (pattern, "")
    return rename(base + ".\0").removesuffix(".\0") + star


def write_configs(export, output):
    for path in export.iterdir():
        if path.suffix != ".safetensors" and path.name != INDEX:
            shutil.copyfile(path, output / path.name)
    for name, section, field in [("config.json", "quantization_config", "ignore"),
                                 ("hf_quant_config.json", "quantization", "exclude_modules")]:
        config = json.loads((output / name).read_text(encoding="utf-8"))
        config[section][field] = [rename_module(entry) for entry in config[section][field]]
        (output / name).write_text(json.dumps(config, indent=4), encoding="utf-8")


def main():
    export, output = Path(sys.argv[1]), Path(sys.argv[2])
    output.mkdir()
    state = {}
    for path in sorted(export.glob("*.safetensors")):
        state.update(load_file(path))
    unfuse(state)
    save({rename(key): tensor for key, tensor in state.items()}, output)
    write_configs(export, output)
    for path in output.iterdir():
        sync(path)
    sync(output)


if __name__ == "__main__":
    main()
