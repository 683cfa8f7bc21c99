#!/usr/bin/env python3
"""What vLLM and SGLang make of checkpoint folders: one line of JSON a folder.

    harness.py vllm|sglang FOLDER ...

Every folder is loaded in a process of its own by the engine's own config parsing, model class and load_weights
(docs/engines.md says what is stubbed). "verdict" is "loads", "raises" with the error, or "misloads": something was left
over or left unwritten, or the engine itself warned that scales don't go together.
"""
import importlib
import json
import os
import re
import sys
import traceback

import tracking

# The engine sets these itself; their absence is no fault of a checkpoint.
DEFAULTED = re.compile(r"\.(q|k|v|prob)_scale$|\.(k|v)_range$|_blockscale_swizzled$")
# Scales of the KV cache that nobody reads cost accuracy and not the model.
CACHE_SCALE = re.compile(r"\.(k|v)_scale$")


def judge(report):
    """What is wrong with a load that raised nothing, as a list of sentences."""
    faults = []
    unused = [name for name in report["unused"] if not CACHE_SCALE.search(name)]
    unwritten = [name for name in report["unwritten"] if not DEFAULTED.search(name) and name not in report["ignored"]]
    if unused:
        faults.append(f"{len(unused)} tensors unused, such as {unused[0]}")
    if unwritten:
        faults.append(f"{len(unwritten)} parameters unwritten, such as {unwritten[0]}")
    if report["partly"]:
        faults.append(f"{len(report['partly'])} parameters partly written, such as {report['partly'][0]}")
    for cast, names in report["casts"].items():
        # Codes taken for numbers: quantized weights that land in an unquantized parameter.
        if cast.startswith(("uint8", "int8", "float8")) and "bfloat16" in cast:
            faults.append(f"{len(names)} tensors cast {cast}, such as {names[0]}")
    faults += report["warnings"]
    return faults


def run(engine, folder, **how):
    """The report of a load in a process of its own."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        try:
            report = engine.load(os.path.abspath(folder), **how)
            report["faults"] = judge(report)
            report["verdict"] = "misloads" if report["faults"] else "loads"
        except BaseException as error:  # engines exit, assert and raise
            report = {"verdict": "raises", "faults": [f"{type(error).__name__}: {error}"[:600]],
                      "traceback": traceback.format_exc()[-3000:]}
        with os.fdopen(write, "w") as out:
            json.dump(report, out, default=str)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as lines:
        text = lines.read()
    os.waitpid(pid, 0)
    if os.path.exists(tracking.rendezvous(pid)):
        os.remove(tracking.rendezvous(pid))
    return json.loads(text) if text else {"verdict": "raises", "faults": ["the process died"]}


def engine(name):
    return importlib.import_module(f"{name}_engine")


def main(arguments):
    if len(arguments) < 2 or arguments[0] not in ("vllm", "sglang"):
        sys.exit(__doc__)
    loaded = engine(arguments[0])
    for folder in arguments[1:]:
        sys.stdout.flush()
        report = run(loaded, folder)
        report.pop("placed", None)
        print(json.dumps({"folder": folder, **report}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
