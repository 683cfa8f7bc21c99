#!/usr/bin/env python3
"""Runs every test that needs the oracle (transformers, safetensors, ModelOpt), and says how each ended."""
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAM = os.path.abspath(os.environ.get("QUANTPORT", f"{ROOT}/build/release/quantport"))
STEPS = [
    ("registry against transformers, all classes", ["tools/check_mappings.py", "--program", PROGRAM]),
    ("revert against transformers, all classes", ["tests/conformance/classes_test.py"]),
    ("revert against transformers, composite models", ["tests/conformance/composites_test.py"]),
    ("apply against transformers, round trips", ["tests/conformance/roundtrip_test.py"]),
    ("state dicts against transformers, all classes", ["tests/conformance/state_dict_test.py"]),
    ("outputs load with safetensors and transformers", ["tests/conformance/loads_test.py"]),
    ("headers against the official safetensors", ["tests/conformance/headers_test.py"]),
    ("quantize against ModelOpt's logits", ["tests/conformance/quantize_test.py"]),
    ("dequantize against compressed-tensors", ["tests/conformance/dequantize_test.py"]),
    ("casts of FP4 to NVFP4 against ModelOpt's", ["tests/conformance/cast_test.py"]),
    ("what quantize writes, read by others", ["tests/conformance/quantize_readers_test.py"]),
    ("calibrate against ModelOpt, five mixtures of experts", ["tests/conformance/calibrate_test.py"]),
    ("ModelOpt's export and transformers' save under patch", ["tests/conformance/patch_test.py"]),
    ("example: a ModelOpt export, patched and reverted", ["examples/modelopt_export.py"]),
    ("example: calibrated and quantized to NVFP4", ["examples/calibrate_and_quantize.py"]),
    ("example: an export of llm-compressor", ["examples/llm_compressor.py"]),
]
# An environment of its own, since it needs other versions than the oracle.
PYTHON = {"examples/llm_compressor.py": os.environ.get("QUANTPORT_LLM_COMPRESSOR", sys.executable)}


def main():
    failed = 0
    for title, command in STEPS:
        print(f"== {title}", flush=True)
        python = os.path.abspath(PYTHON.get(command[0], sys.executable))
        result = subprocess.run([python, *command], cwd=ROOT, env={**os.environ, "QUANTPORT": PROGRAM})
        failed += result.returncode != 0
        print(f"== {title}: {'ok' if result.returncode == 0 else 'FAILED'}", flush=True)
    print(f"{len(STEPS) - failed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
