#!/usr/bin/env python3
"""Make a large synthetic export to measure with: MiniMax-M3 in NVFP4 as ModelOpt writes it, under in-memory names.

    python3 bench/make_checkpoint.py --size 10GB DIR

Config files come from the sample that transformers and ModelOpt wrote (samples/minimax-m3-tiny/export), with larger
sizes put in. Names, dtypes and the order inside a shard are the sample's too: experts expanded and NVFP4, attention,
shared experts and the vision tower BF16, `gate_up_proj` fused in dense linears, FP8 KV scales, shards of 5 GB.

The model is a part of the published one: all 128 experts of a layer, fewer layers (22 sparse and 3 dense ones of 60 at
10 GB, about 35,000 tensors), smaller matrices. --sparse-layers fixes the number of layers, and so of tensors, while
the size changes. Data are random bytes, drawn once and reused at shifting offsets: no file system shrinks them, and
nothing that is measured reads them as numbers. --data holes leaves them out: files of full length, of which only
headers are stored, for what should not depend on the bytes.
"""

import argparse
import json
import os
import re
import shutil
import sys
from pathlib import Path

SAMPLE = Path(__file__).resolve().parent.parent / "samples" / "minimax-m3-tiny" / "export"
SHARD_BYTES = 5_000_000_000  # what transformers and ModelOpt users mostly ask for
CHUNK = 8 << 20
EXPERTS = 128
HEAD_DIM = 128
KV_HEADS = 4
INDEX_HEADS = 4
SPARSE_LAYERS_AT_10GB = 22
VOCABULARY_SHARE = 0.03  # at least so much of the size; the vocabulary also takes what rounding leaves over

BYTES = {"U8": 1, "F8_E4M3": 1, "BF16": 2, "F32": 4}


def parse_size(text):
    """Bytes of "10GB" (decimal) or "8GiB" (binary)."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", text.strip(), re.IGNORECASE)
    if not match:
        raise argparse.ArgumentTypeError(f"not a size: {text}")
    number, unit, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** " KMGT".index(unit.upper() or " "))


class Sizes:
    """The model's dimensions; the published ones keep their proportions to the hidden size."""

    def __init__(self, expert_size, sparse_layers, vocabulary):
        self.expert = expert_size  # a multiple of NVFP4's group of 16
        self.hidden = 2 * expert_size
        self.dense = 4 * expert_size
        self.shared = expert_size
        self.heads = max(KV_HEADS, round(self.hidden * 4 / 3 / HEAD_DIM))
        self.sparse_layers = sparse_layers
        self.dense_layers = 3 if sparse_layers >= 10 else 1
        self.vision_layers = sparse_layers
        self.vision = max(64, self.hidden // 4 // 64 * 64)
        self.vocabulary = vocabulary

    @property
    def layers(self):
        return self.dense_layers + self.sparse_layers


def nvfp4(name, rows, columns):
    yield f"{name}.weight", "U8", (rows, columns // 2)
    yield f"{name}.weight_scale", "F8_E4M3", (rows, columns // 16)
    yield f"{name}.weight_scale_2", "F32", ()
    yield f"{name}.input_scale", "F32", ()


def attention(layer, s):
    name = f"{layer}.self_attn"
    for linear, rows, columns in [
        ("q_proj", s.heads * HEAD_DIM, s.hidden),
        ("k_proj", KV_HEADS * HEAD_DIM, s.hidden),
        ("v_proj", KV_HEADS * HEAD_DIM, s.hidden),
        ("o_proj", s.hidden, s.heads * HEAD_DIM),
    ]:
        yield f"{name}.{linear}.weight", "BF16", (rows, columns)
    yield f"{name}.q_norm.weight", "BF16", (HEAD_DIM,)
    yield f"{name}.k_norm.weight", "BF16", (HEAD_DIM,)
    yield f"{name}.k_proj.k_scale", "F32", ()
    yield f"{name}.v_proj.v_scale", "F32", ()


def fused_mlp(name, size, s):
    yield f"{name}.gate_up_proj.weight", "BF16", (2 * size, s.hidden)
    yield f"{name}.down_proj.weight", "BF16", (s.hidden, size)


def sparse_parts(layer, s):
    indexer = f"{layer}.self_attn.indexer"
    yield f"{indexer}.q_proj.weight", "BF16", (INDEX_HEADS * HEAD_DIM, s.hidden)
    yield f"{indexer}.k_proj.weight", "BF16", (HEAD_DIM, s.hidden)
    yield f"{indexer}.q_norm.weight", "BF16", (HEAD_DIM,)
    yield f"{indexer}.k_norm.weight", "BF16", (HEAD_DIM,)
    yield f"{layer}.mlp.gate.weight", "BF16", (EXPERTS, s.hidden)
    yield f"{layer}.mlp.gate.e_score_correction_bias", "BF16", (EXPERTS,)
    yield from fused_mlp(f"{layer}.mlp.shared_experts", s.shared, s)
    for expert in range(EXPERTS):
        name = f"{layer}.mlp.experts.{expert}"
        yield from nvfp4(f"{name}.gate_proj", s.expert, s.hidden)
        yield from nvfp4(f"{name}.up_proj", s.expert, s.hidden)
        yield from nvfp4(f"{name}.down_proj", s.hidden, s.expert)


def with_bias(name, *shape):
    yield f"{name}.weight", "BF16", shape
    yield f"{name}.bias", "BF16", shape[:1]


def vision(s):
    tower, mlp, projector = "model.vision_tower", 4 * s.vision, "model.multi_modal_projector"
    yield f"{tower}.embeddings.proj.weight", "BF16", (s.vision, 3, 2, 14, 14)
    yield from with_bias(f"{tower}.pre_layrnorm", s.vision)
    for layer in range(s.vision_layers):
        name = f"{tower}.layers.{layer}"
        yield from with_bias(f"{name}.layer_norm1", s.vision)
        yield from with_bias(f"{name}.layer_norm2", s.vision)
        for linear in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from with_bias(f"{name}.self_attn.{linear}", s.vision, s.vision)
        yield from with_bias(f"{name}.mlp.fc1", mlp, s.vision)
        yield from with_bias(f"{name}.mlp.fc2", s.vision, mlp)
    yield from with_bias(f"{projector}.linear_1", s.hidden, s.vision)
    yield from with_bias(f"{projector}.linear_2", s.hidden, s.hidden)
    yield from with_bias(f"{projector}.merge_linear_1", s.hidden, 4 * s.hidden)
    yield from with_bias(f"{projector}.merge_linear_2", s.hidden, s.hidden)


def tensors(s):
    """Every tensor as (name, dtype, shape), in the order of the modules."""
    yield from vision(s)
    yield "model.language_model.embed_tokens.weight", "BF16", (s.vocabulary, s.hidden)
    for number in range(s.layers):
        layer = f"model.language_model.layers.{number}"
        yield from attention(layer, s)
        yield f"{layer}.input_layernorm.weight", "BF16", (s.hidden,)
        yield f"{layer}.post_attention_layernorm.weight", "BF16", (s.hidden,)
        if number < s.dense_layers:
            yield from fused_mlp(f"{layer}.mlp", s.dense, s)
        else:
            yield from sparse_parts(layer, s)
    yield "model.language_model.norm.weight", "BF16", (s.hidden,)
    yield "lm_head.weight", "BF16", (s.vocabulary, s.hidden)


def tensor_bytes(dtype, shape):
    count = BYTES[dtype]
    for extent in shape:
        count *= extent
    return count


def total_bytes(s):
    return sum(tensor_bytes(dtype, shape) for _, dtype, shape in tensors(s))


def choose_sizes(target, sparse_layers=None):
    """The largest model of `target` bytes of tensors: experts first, the vocabulary fills the rest."""
    layers = sparse_layers or max(1, round(SPARSE_LAYERS_AT_10GB * target / 10_000_000_000))
    low, high = 1, 4096  # expert size in groups of 16
    while low < high:
        middle = (low + high + 1) // 2
        fits = total_bytes(Sizes(16 * middle, layers, 0)) <= target * (1 - VOCABULARY_SHARE)
        low, high = (middle, high) if fits else (low, middle - 1)
    left = target - total_bytes(Sizes(16 * low, layers, 0))
    vocabulary = max(64, left // (2 * 2 * 2 * 16 * low) // 64 * 64)  # embedding and head, BF16
    return Sizes(16 * low, layers, vocabulary)


def split_into_shards(items, shard_bytes):
    """Consecutive tensors up to `shard_bytes`, as save_pretrained does it."""
    shards, used = [[]], 0
    for item in items:
        size = tensor_bytes(*item[1:])
        if used + size > shard_bytes and shards[-1]:
            shards.append([])
            used = 0
        shards[-1].append(item)
        used += size
    return shards


def header_bytes(items):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, dtype, shape in items:
        size = tensor_bytes(dtype, shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, offset


class RandomBytes:
    """Endless random bytes from one pool; each round through it starts elsewhere."""

    def __init__(self):
        self.pool = memoryview(os.urandom(8 * CHUNK + 65536))
        self.round = 0

    def chunk(self, size):
        self.round += 1
        start = self.round * CHUNK % (8 * CHUNK) + self.round * 4093 % 65536
        return self.pool[start:start + size]


def write_shard(path, items, random):
    """`random` is None for data that are one hole, which reads as zeros."""
    # The official writer's order: wide elements first, so that every tensor is aligned, then by name.
    items = sorted(items, key=lambda item: (-BYTES[item[1]], item[1], item[0]))
    header, size = header_bytes(items)
    with open(path, "wb", buffering=0) as file:
        if random is None:
            file.write(header)
            file.truncate(len(header) + size)
            return
        os.posix_fallocate(file.fileno(), 0, len(header) + size)
        file.write(header)
        while size:
            size -= file.write(random.chunk(min(CHUNK, size)))


def write_configs(directory, s):
    """The sample's config files with this model's sizes, module lists rebuilt in the same form."""
    for path in SAMPLE.iterdir():
        if path.suffix != ".safetensors" and not path.name.endswith("index.json"):
            shutil.copyfile(path, directory / path.name)
    config = json.loads((SAMPLE / "config.json").read_text(encoding="utf-8"))
    config["text_config"].update(
        hidden_size=s.hidden, intermediate_size=s.expert, dense_intermediate_size=s.dense,
        shared_intermediate_size=s.shared, num_hidden_layers=s.layers, num_attention_heads=s.heads,
        num_key_value_heads=KV_HEADS, head_dim=HEAD_DIM, index_head_dim=HEAD_DIM, index_n_heads=INDEX_HEADS,
        num_local_experts=EXPERTS, vocab_size=s.vocabulary,
        layer_types=["full_attention"] * s.dense_layers + ["minimax_m3_sparse"] * s.sparse_layers,
        mlp_layer_types=["dense"] * s.dense_layers + ["sparse"] * s.sparse_layers)
    config["vision_config"].update(
        hidden_size=s.vision, intermediate_size=4 * s.vision, num_hidden_layers=s.vision_layers, patch_size=14)
    config.update(projector_hidden_size=s.hidden, merged_hidden_size=4 * s.hidden)
    text = "model.language_model"
    excluded = ["lm_head", f"{text}.embed_tokens", "model.multi_modal_projector*", "model.vision_tower*"]
    excluded += [f"{text}.layers.{n}.self_attn*" for n in range(s.layers)]
    excluded += [f"{text}.layers.{n}.mlp*" for n in range(s.dense_layers)]
    for n in range(s.dense_layers, s.layers):
        excluded += [f"{text}.layers.{n}.mlp.gate", f"{text}.layers.{n}.mlp.shared_experts*"]
    excluded.sort()
    config["quantization_config"]["ignore"] = excluded
    quantization = json.loads((SAMPLE / "hf_quant_config.json").read_text(encoding="utf-8"))
    quantization["quantization"]["exclude_modules"] = excluded
    (directory / "config.json").write_text(json.dumps(config, indent=4), encoding="utf-8")
    (directory / "hf_quant_config.json").write_text(json.dumps(quantization, indent=4), encoding="utf-8")


def make(directory, target, sparse_layers=None, shard_bytes=SHARD_BYTES, data="random"):
    """Writes the export. Returns its number of tensors and their bytes."""
    directory = Path(directory)
    directory.mkdir(parents=True)
    sizes = choose_sizes(target, sparse_layers)
    write_configs(directory, sizes)
    shards = split_into_shards(tensors(sizes), shard_bytes)
    random = RandomBytes() if data == "random" else None
    weight_map, total = {}, 0
    for number, items in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors" if len(shards) > 1 else "model.safetensors"
        write_shard(directory / name, items, random)
        weight_map.update((item[0], name) for item in items)
        total += sum(tensor_bytes(*item[1:]) for item in items)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        path = directory / "model.safetensors.index.json"
        path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return len(weight_map), total


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", metavar="DIR", help="must not exist")
    parser.add_argument("--size", type=parse_size, default="10GB", help="bytes of tensors (default: 10GB; quick: 1GB)")
    parser.add_argument("--sparse-layers", type=int, help="layers with experts, 1536 NVFP4 tensors each")
    parser.add_argument("--shard-size", type=parse_size, default=SHARD_BYTES, help="default: 5GB")
    parser.add_argument("--data", choices=("random", "holes"), default="random", help="default: random")
    options = parser.parse_args()
    if Path(options.directory).exists():
        sys.exit(f"error: {options.directory} exists")
    count, total = make(options.directory, options.size, options.sparse_layers, options.shard_size, options.data)
    print(f"{options.directory}: {count} tensors, {total / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
