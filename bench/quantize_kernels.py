#!/usr/bin/env python3
"""Times the kernels that quantize, and ModelOpt's own torch code on the same BF16, in one run, and writes the table.

    python3 bench/quantize_kernels.py --bench build/bench/quantport_quantize_bench --python PYTHON [--output FILE]

PYTHON has torch and nvidia-modelopt. Both sides get what they need beside the weights: scales where a format's scales
are one for many rows, none where a block's own weights give them. Best of several repetitions, as GB (10^9 bytes) of
BF16 a second. In cache: 512 KiB, with codes within the second cache. From memory: 512 MiB here, 32 MiB in torch, whose
intermediate tensors are many times as large. memcpy and amax, which only reads, show what the machine gives.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import report

COLUMNS = 4096
ROWS = {"cache": 64, "memory": 4096}
PATTERN_ROWS = 1024  # of the weights, repeated
AMAX = 0.1074
FORMATS = {"memcpy": "memcpy", "amax": "amax, reads only", "nvfp4": "NVFP4", "nvfp4_errors": "NVFP4 and its errors",
           "fp8_tensor": "FP8 per tensor", "fp8_tensor_errors": "FP8 per tensor and its errors",
           "fp8_channel": "FP8 per channel", "fp8_128x128": "FP8 128x128", "mxfp8": "MXFP8", "mxfp4": "MXFP4",
           "int8_channel": "INT8", "int4_group128": "INT4"}
# What is measured: a target and where the weights are.
NATIVE = [("AVX3", "cache"), ("AVX3", "memory"), ("AVX2", "cache"), ("AVX2", "memory"), ("SSE4", "cache"),
          ("SSSE3", "cache"), ("SCALAR", "cache")]
TORCH = [(1, "cache"), (1, "memory"), (2, "memory")]


def torch_cases(torch, weights):
    """Format -> a function that does what the kernel of that name does, by ModelOpt."""
    from modelopt.torch.export.quant_utils import to_quantized_weight
    from modelopt.torch.quantization.qtensor import MXFP4QTensor, MXFP8QTensor, NVFP4QTensor

    rows = weights.shape[0]

    def scales(largest, *shape):
        return torch.full(shape, AMAX / largest)

    def quantized(name, scale, block=None):
        return lambda: to_quantized_weight(weights, scale, name, block_size=block)

    return {
        "amax": lambda: weights.abs().amax(),
        "nvfp4": lambda: NVFP4QTensor.quantize(weights, 16, None, torch.tensor(AMAX / 2688)),
        "fp8_tensor": quantized("fp8", scales(448)),
        "fp8_channel": quantized("fp8_pc_pt", scales(448, rows)),
        "fp8_128x128": quantized("fp8_pb_wo", scales(448, rows // 128, COLUMNS // 128), 128) if rows >= 128 else None,
        "mxfp8": lambda: MXFP8QTensor.quantize(weights),
        "mxfp4": lambda: MXFP4QTensor.quantize(weights, 32),
        "int8_channel": quantized("int8_wo", scales(127, rows)),
        "int4_group128": quantized("int4_awq", scales(7, rows, COLUMNS // 128), 128),
    }


def best_time(action, least=2, enough=0.3):
    times, start = [], time.perf_counter()
    while len(times) < least or time.perf_counter() - start < enough and len(times) < 1000:
        begin = time.perf_counter()
        action()
        times.append(time.perf_counter() - begin)
    return min(times)


def run_torch(path):
    """In the interpreter that has torch: prints GB/s by format, threads and place, and the versions."""
    import warnings
    warnings.simplefilter("ignore")
    import modelopt
    import torch

    found = {}
    for place in ROWS:
        pattern = torch.frombuffer(bytearray(Path(path).read_bytes()), dtype=torch.bfloat16).view(-1, COLUMNS)
        repeats = -(-ROWS[place] // PATTERN_ROWS)
        weights = pattern.repeat(repeats, 1)[:ROWS[place]].contiguous()
        for threads in (1, 2):
            if (threads, place) not in TORCH:
                continue
            torch.set_num_threads(threads)
            for name, action in torch_cases(torch, weights).items():
                if action is not None:
                    with torch.inference_mode():
                        seconds = best_time(action)
                    found[f"{name}/{threads}/{place}"] = weights.numel() * 2 / 1e9 / seconds
    print(json.dumps({"versions": f"torch {torch.__version__}, nvidia-modelopt {modelopt.__version__}", "rates": found}))


def run_native(bench, weights):
    """GB/s by format, target and place."""
    wanted = "|".join(f"/{target}/{place}" for target, place in NATIVE)
    output = subprocess.run(
        [str(bench), f"--benchmark_filter=({wanted})", "--benchmark_format=json", "--benchmark_repetitions=3"],
        env={**os.environ, "QUANTPORT_BENCH_WEIGHTS": str(weights)}, check=True, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL).stdout
    best = {}
    for run in json.loads(output)["benchmarks"]:
        if run["run_type"] == "iteration":
            key = "/".join(run["name"].split("/")[:3])
            best[key] = max(best.get(key, 0), run["bytes_per_second"] / 1e9)
    return best


def write_weights(path, python):
    """Normally distributed, as weights are."""
    code = (f"import sys, torch; torch.manual_seed(3); "
            f"w = (torch.randn({PATTERN_ROWS}, {COLUMNS}) * 0.02).bfloat16(); "
            f"open(sys.argv[1], 'wb').write(w.view(torch.uint8).numpy().tobytes())")
    subprocess.run([str(python), "-c", code, str(path)], check=True)


def cell(rate):
    return "" if rate is None else f"{rate:.3f}" if rate < 0.1 else f"{rate:.2f}" if rate < 2 else f"{rate:.1f}"


def table(native, torch_rates):
    head = [f"{target}, {place}" for target, place in NATIVE]
    head += [f"ModelOpt, {threads} thread{'s' * (threads > 1)}, {place}" for threads, place in TORCH]
    head += ["AVX3 to ModelOpt, one thread, memory"]
    lines = ["| GB/s | " + " | ".join(head) + " |", "|---|" + "---:|" * len(head)]
    for key, name in FORMATS.items():
        rates = [native.get(f"{key}/{target}/{place}") for target, place in NATIVE]
        theirs = [torch_rates.get(f"{key}/{threads}/{place}") for threads, place in TORCH]
        ours, one = native.get(f"{key}/AVX3/memory"), torch_rates.get(f"{key}/1/memory")
        ratio = f"{ours / one:.0f}" if ours and one else ""
        lines.append(f"| {name} | " + " | ".join([*map(cell, rates), *map(cell, theirs), ratio]) + " |")
    return "\n".join(lines)


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=Path, help="quantport_quantize_bench")
    parser.add_argument("--python", type=Path, help="an interpreter with torch and nvidia-modelopt")
    parser.add_argument("--output", type=Path, help="Markdown file whose generated part is replaced; default: print")
    parser.add_argument("--torch", metavar="WEIGHTS", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    options = parse_options()
    if options.torch:
        run_torch(options.torch)
        return
    machine = report.machine()
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights"
        write_weights(weights, options.python)
        native = run_native(options.bench, weights)
        output = subprocess.run([str(options.python), __file__, "--torch", str(weights)], check=True, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    theirs = json.loads(output.splitlines()[-1])
    text = "\n".join([
        table(native, theirs["rates"]), "",
        f"- Machine: {re.sub(r'; load average.*', '', machine)}. {theirs['versions']}.",
        "- GB (10^9 bytes) of BF16 a second, best of two or more repetitions; kernels on one thread, by processor time.",
        "- Cache: 512 KiB, which with its codes stays in the second cache. Memory: 512 MiB in huge pages; in torch 32 MiB.",
        "- Errors: the codes are held against the weights afterwards, as `quantize` does it for its report.",
        "- Empty: not measured; ModelOpt's tiles of 128 rows do not fit the cached size.",
        "- Command: `make bench-kernels`"])
    if options.output:
        report.replace_generated(options.output, report.KERNELS, text)
    print(text, file=sys.stdout)


if __name__ == "__main__":
    main()
