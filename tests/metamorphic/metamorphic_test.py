"""Every golden of tests/golden/layouts with one tensor changed: what each command makes of it (outcomes.py), counted.

Changed is the shape or the dtype of each tensor of a quantized weight in turn (variants.py). Without arguments a fixed sample of each
kind is run; --all runs every case, a sample of 1 in N otherwise with --sample N. None may be bad.
"""
import argparse
import collections
import functools
import multiprocessing
import os
import sys
import tempfile
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, f"{os.path.dirname(HERE)}/cli"]

import goldens  # noqa: E402
import outcomes  # noqa: E402
import variants  # noqa: E402

SAMPLE = 32  # of which `make test` runs one
Q = f"{goldens.HUB}.attn.q"
golden_of = functools.lru_cache(maxsize=4)(goldens.Golden)


@functools.lru_cache(maxsize=8)
def variants_of(name, from_hub, tensor_name):
    """Cases come tensor by tensor."""
    golden = golden_of(name)
    return variants.variants((golden.hub if from_hub else golden.export)[tensor_name])


def modules_of(golden):
    """(module, whether of the hub checkpoint, commands)."""
    everything = tuple(command for command in outcomes.COMMANDS if command != "apply")
    for module in golden.modules():
        yield module, False, ("revert",) if module == goldens.SINGLE else everything
    if goldens.parts_of(golden.hub, Q):
        yield Q, True, ("apply",)


def number_of(command, golden, tensor_name, label):
    """Of a case, the same on every machine: the cases of 1 in N are those that N divides."""
    return zlib.crc32(f"{golden} {tensor_name} {label} {command}".encode())


def cases(sample):
    """(golden, module, from_hub, tensor, label, commands), a spread of 1 in `sample` for each command."""
    for name in goldens.NAMES:
        golden = golden_of(name)
        for module, from_hub, commands in modules_of(golden):
            tensors = golden.hub if from_hub else golden.export
            for tensor_name in tensors:
                if tensor_name != module and not tensor_name.startswith((f"{module}.", f"{module}_")):
                    continue
                for label in variants_of(name, from_hub, tensor_name):
                    chosen = tuple(c for c in commands if number_of(c, name, tensor_name, label) % sample == 0)
                    if chosen:
                        yield name, module, from_hub, tensor_name, label, chosen


def run(job):
    name, module, from_hub, tensor_name, label, commands = job
    golden = golden_of(name)
    variant = variants_of(name, from_hub, tensor_name)[label]
    with tempfile.TemporaryDirectory(prefix="quantport-test-", dir=outcomes.MEMORY) as folder:
        case = outcomes.Case(golden, module, tensor_name, variant, folder, from_hub)
        return [(command, outcomes.outcome(command, case), name, tensor_name, label) for command in commands]


def wrong_unchanged(name):
    """The decoders and the program agree on what nobody has changed; nothing right is refused."""
    golden, wrong = golden_of(name), []
    for module, from_hub, commands in modules_of(golden):
        with tempfile.TemporaryDirectory(prefix="quantport-test-", dir=outcomes.MEMORY) as folder:
            case = outcomes.Case(golden, module, None, None, folder, from_hub)
            for command in commands:
                refused = (command in ("dequantize", "quantize") and name in outcomes.UNREADABLE
                           or command == "quantize" and name in outcomes.STACKED)
                got = outcomes.outcome(command, case)
                if got != ("refused" if refused else "value"):
                    wrong.append((command, name, module, got))
    return wrong


def table(counts):
    kinds = [kind for kind in (*outcomes.GOOD, *outcomes.BAD) if any(counts[c][kind] for c in counts)]
    lines = ["| command | cases | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 2) + "|"]
    for command in outcomes.COMMANDS:
        lines.append(f"| {command} | {sum(counts[command].values())} | "
                     + " | ".join(str(counts[command][kind]) for kind in kinds) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--sample", type=int, default=SAMPLE)
    parser.add_argument("--golden", help="only this one")
    options = parser.parse_args()
    sample = 1 if options.all else options.sample
    if options.golden:
        goldens.NAMES[:] = [options.golden]

    counts, bad = {command: collections.Counter() for command in outcomes.COMMANDS}, 0
    with multiprocessing.Pool(os.cpu_count()) as pool:
        for line in (line for lines in pool.imap(wrong_unchanged, goldens.NAMES) for line in lines):
            print("unchanged", *line, sep=" | ", flush=True)
            bad += 1
        for command, kind, *what in (r for of_case in pool.imap(run, cases(sample), chunksize=8) for r in of_case):
            counts[command][kind] += 1
            if kind in outcomes.BAD:
                print(command, kind, *what, sep=" | ", flush=True)
                bad += 1
    print(table(counts))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
