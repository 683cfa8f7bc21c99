#!/usr/bin/env python3
"""Times `quantport quantize` of a synthetic BF16 checkpoint, cold, against reading it with cat and writing the result.

    python3 bench/quantize.py PROGRAM FOLDER [--size 10GB] [--recipe NAME] [--runs 3] [--threads 1,2,4]

FOLDER needs room for the model and twice the result. Caches are dropped by POSIX_FADV_DONTNEED on every file, so that it
needs no privileges. Weights are random BF16 near 0.02, in the shapes of a Llama with 8 billion.
"""
import argparse
import json
import os
import random
import resource
import shutil
import struct
import subprocess
import time

CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
          "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False,
          "torch_dtype": "bfloat16"}
LINEARS = {"self_attn.q_proj": (4096, 4096), "self_attn.k_proj": (1024, 4096), "self_attn.v_proj": (1024, 4096),
           "self_attn.o_proj": (4096, 4096), "mlp.gate_proj": (14336, 4096), "mlp.up_proj": (14336, 4096),
           "mlp.down_proj": (4096, 14336)}
UNITS = {"GB": 10**9, "MB": 10**6}


def random_block(size=1 << 24):
    """BF16 with exponents around 2^-6, all signs and mantissas."""
    source = random.Random(1).randbytes(size)
    block = bytearray(size)
    block[0::2] = source[0::2]
    block[1::2] = bytes((b & 0x80) | 0x3C | (b & 1) for b in source[1::2])
    return bytes(block)


def write_shard(path, tensors, block):
    header, offset = {}, 0
    for name, shape in tensors:
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % 4096)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        left = offset
        while left > 0:
            f.write(block[:min(left, len(block))])
            left -= len(block)
        f.flush()
        os.fsync(f.fileno())


def make_model(folder, size):
    os.makedirs(folder)
    block = random_block()
    layer_bytes = sum(2 * rows * columns for rows, columns in LINEARS.values())
    layers = max(1, size // layer_bytes)
    weight_map = {}
    for layer in range(layers):
        file = f"model-{layer + 1:05d}-of-{layers:05d}.safetensors"
        tensors = [(f"model.layers.{layer}.{name}.weight", shape) for name, shape in LINEARS.items()]
        tensors += [(f"model.layers.{layer}.input_layernorm.weight", (4096,))]
        write_shard(f"{folder}/{file}", tensors, block)
        weight_map |= {name: file for name, _ in tensors}
    with open(f"{folder}/config.json", "w", encoding="utf-8") as f:
        json.dump(CONFIG | {"num_hidden_layers": layers}, f)
    with open(f"{folder}/model.safetensors.index.json", "w", encoding="utf-8") as f:
        json.dump({"metadata": {"total_size": layers * layer_bytes}, "weight_map": weight_map}, f)


def drop_caches(folder):
    for file in os.listdir(folder):
        with open(f"{folder}/{file}", "rb") as f:
            os.fsync(f.fileno())
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed(action):
    start = time.monotonic()
    action()
    return time.monotonic() - start


def read_all(folder):
    files = sorted(f"{folder}/{file}" for file in os.listdir(folder))
    with open(os.devnull, "wb") as null:
        subprocess.run(["cat", *files], stdout=null, check=True)


def write_copy(folder, target):
    """What is in the page cache, written as fast as the disk takes it."""
    subprocess.run(["cp", "-r", folder, target], check=True)
    for file in os.listdir(target):
        with open(f"{target}/{file}", "rb") as f:
            os.fsync(f.fileno())


def quantize(program, model, out, recipe, threads):
    args = [program, "quantize", model, "-o", out, "--recipe", recipe, "-q"]
    subprocess.run(args + (["--threads", str(threads)] if threads else []), check=True)


def median(values):
    return sorted(values)[len(values) // 2]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("folder")
    parser.add_argument("--size", default="10GB")
    parser.add_argument("--recipe", default="nvfp4_weight_only-kv_fp8_cast")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", default="")
    options = parser.parse_args()
    model, out, copy = (f"{options.folder}/{name}" for name in ("model", "out", "copy"))
    if not os.path.exists(model):
        make_model(model, int(float(options.size[:-2]) * UNITS[options.size[-2:]]))
    reads, writes, runs = [], [], {threads: [] for threads in options.threads.split(",")}
    for _ in range(options.runs):
        for threads in runs:
            shutil.rmtree(out, ignore_errors=True)
            drop_caches(model)
            runs[threads].append(timed(lambda: quantize(options.program, model, out, options.recipe, threads)))
        drop_caches(model)
        reads.append(timed(lambda: read_all(model)))
        shutil.rmtree(copy, ignore_errors=True)
        read_all(out)
        writes.append(timed(lambda: write_copy(out, copy)))
        shutil.rmtree(copy)
    shutil.rmtree(out)
    bound = median(reads) + median(writes)
    print(f"reading {median(reads):.2f} s, writing {median(writes):.2f} s, together {bound:.2f} s")
    for threads, times in runs.items():
        print(f"quantize, {threads or 'default'} threads: {median(times):.2f} s of {[f'{t:.2f}' for t in times]}, "
              f"{median(times) / bound:.2f} of reading and writing")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000:.0f} MB")


if __name__ == "__main__":
    main()
