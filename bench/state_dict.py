#!/usr/bin/env python3
"""How long revert_state_dict takes for large state dicts on the meta device, where tensors have no bytes.

    state_dict.py [--tensors 200000] [--rounds 5] [--output docs/benchmarks.md]

Names and shapes are DeepSeek-V3's in NVFP4: experts one by one, as ModelOpt exports them, and stacked, as other producers leave
them; and MiniMax-M3's, where nearly every name changes. With --output the table in the file's section on state dicts is written.
Needs torch and the installed package. Nothing else should run on the machine.
"""
import argparse
import gc
import re
import resource
import statistics
import time

import quantport
import torch

EXPERTS, HIDDEN, EXPERT = 256, 7168, 2048
SECTION = "## State dicts"


def add(tensors, name, shape, dtype):
    tensors[name] = torch.empty(shape, dtype=dtype, device="meta")


def add_linear(tensors, module, rows, columns):
    add(tensors, f"{module}.weight", (rows, columns // 2), torch.uint8)
    add(tensors, f"{module}.weight_scale", (rows, columns // 16), torch.float8_e4m3fn)
    add(tensors, f"{module}.weight_scale_2", (), torch.float32)
    add(tensors, f"{module}.input_scale", (), torch.float32)


def add_stack(tensors, name, rows, columns):
    add(tensors, name, (EXPERTS, rows, columns // 2), torch.uint8)
    add(tensors, f"{name}_weight_scale", (EXPERTS, rows, columns // 16), torch.float8_e4m3fn)
    add(tensors, f"{name}_weight_scale_2", (EXPERTS,), torch.float32)
    add(tensors, f"{name}_input_scale", (EXPERTS,), torch.float32)


def expanded(count, layers):
    tensors = {}
    for number in range(count):  # ends at the first whole layer that has enough
        layer = f"{layers}.{number}"
        for projection, rows, columns in (("q_proj", 1536, HIDDEN), ("k_proj", 512, HIDDEN), ("o_proj", HIDDEN, 16384)):
            add_linear(tensors, f"{layer}.self_attn.{projection}", rows, columns)
        add(tensors, f"{layer}.input_layernorm.weight", (HIDDEN,), torch.bfloat16)
        for expert in range(EXPERTS):
            for linear, rows, columns in (("gate_proj", EXPERT, HIDDEN), ("up_proj", EXPERT, HIDDEN), ("down_proj", HIDDEN, EXPERT)):
                add_linear(tensors, f"{layer}.mlp.experts.{expert}.{linear}", rows, columns)
        if len(tensors) >= count:
            return tensors
    return tensors


def stacked(count, layers):
    tensors = {}
    for number in range(-(-count // (EXPERTS * 12))):  # three linears of four tensors each come of an expert
        container = f"{layers}.{number}.mlp.experts"
        add_stack(tensors, f"{container}.gate_up_proj", 2 * EXPERT, HIDDEN)
        add_stack(tensors, f"{container}.down_proj", HIDDEN, EXPERT)
    return tensors


def config(name, model_type):
    return {"architectures": [name], "model_type": model_type, "transformers_version": "5.17.0"}


CASES = {
    "DeepSeek-V3, experts one by one": (expanded, "model.layers", config("DeepseekV3ForCausalLM", "deepseek_v3")),
    "MiniMax-M3, experts one by one": (expanded, "model.language_model.layers",
                                       config("MiniMaxM3SparseForConditionalGeneration", "minimax_m3")),
    "DeepSeek-V3, experts stacked": (stacked, "model.layers", config("DeepseekV3ForCausalLM", "deepseek_v3")),
}


def measure(tensors, model_config, rounds):
    """(seconds of each round, tensors of the result)."""
    seconds, results = [], 0
    for _ in range(rounds):
        gc.collect()
        begin = time.perf_counter()
        result, report = quantport.revert_state_dict(tensors, model_config, on_unsupported="fail", return_report=True)
        seconds.append(time.perf_counter() - begin)
        results = len(result)
        assert report.outcome in ("reverted", "copied"), report
        del result, report
    return seconds, results


def lines(options):
    yield "| state dict | tensors | of the result | wall, median (range) | a tensor of the result |"
    yield "|---|---:|---:|---:|---:|"
    for label, (make, layers, model_config) in CASES.items():
        tensors = make(options.tensors, layers)
        seconds, results = measure(tensors, model_config, options.rounds)
        median = statistics.median(seconds)
        yield (f"| {label} | {len(tensors):,} | {results:,} | {median:.2f} s ({min(seconds):.2f} to {max(seconds):.2f}) "
               f"| {median / results * 1e6:.1f} us |")


def write(path, table):
    with open(path, encoding="utf-8") as f:
        text = f.read()
    section = text.index(SECTION)
    head, body = text[:section], text[section:]
    with open(path, "w", encoding="utf-8") as f:
        f.write(head + re.sub(r"\|.*\|\n(\|.*\n)+", lambda _: table + "\n", body, count=1))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tensors", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output")
    options = parser.parse_args()
    table = "\n".join(lines(options))
    print(table)
    print(f"peak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
    if options.output:
        write(options.output, table)


if __name__ == "__main__":
    main()
