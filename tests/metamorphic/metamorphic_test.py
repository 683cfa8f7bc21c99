"""Every golden of tests/golden/layouts with one tensor changed: what each command makes of it (outcomes.py), counted.

Changed is the shape or the dtype of each tensor of a quantized weight in turn (variants.py). Without arguments a fixed sample of each
kind is run; --all runs every case, a sample of 1 in N otherwise with --sample N. --record writes known.json; --list says what was bad.
"""
import argparse
import collections
import functools
import json
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

KNOWN = f"{HERE}/known.json"
SAMPLE = 32  # of which `make test` runs one
Q = f"{goldens.HUB}.attn.q"
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
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
    with tempfile.TemporaryDirectory(prefix="quantport-test-", dir=MEMORY) as folder:
        case = outcomes.Case(golden, module, tensor_name, variant, folder, from_hub)
        return [(command, outcomes.outcome(command, case), name, tensor_name, label) for command in commands]


def wrong_unchanged(name):
    """The decoders and the program agree on what nobody has changed; nothing right is refused."""
    golden, wrong = golden_of(name), []
    for module, from_hub, commands in modules_of(golden):
        with tempfile.TemporaryDirectory(prefix="quantport-test-", dir=MEMORY) as folder:
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


def counted(results, sample):
    """Of 1 in `sample`."""
    counts = {command: collections.Counter() for command in outcomes.COMMANDS}
    for command, kind, *what in results:
        if number_of(command, *what) % sample == 0:
            counts[command][kind] += 1
    return counts


def bad_counts(counts):
    return {command: {kind: counts[command][kind] for kind in outcomes.BAD if counts[command][kind]}
            for command in outcomes.COMMANDS}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--sample", type=int, default=SAMPLE)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--golden", help="only this one, nothing compared")
    options = parser.parse_args()
    sample = 1 if options.all else options.sample

    if options.golden:
        goldens.NAMES[:] = [options.golden]
    results = []
    with multiprocessing.Pool(os.cpu_count()) as pool:
        wrong = [line for lines in pool.imap(wrong_unchanged, goldens.NAMES) for line in lines]
        for of_case in pool.imap(run, cases(sample), chunksize=8):
            results += of_case
    bad = [result for result in results if result[1] in outcomes.BAD]
    counts = counted(results, sample)
    for line in wrong:
        print("unchanged:", *line)
    print(table(counts))
    if options.list:
        for line in bad:
            print(*line, sep=" | ")
    if options.golden:
        return 0
    known = {}
    if os.path.exists(KNOWN):
        with open(KNOWN, encoding="utf-8") as f:
            known = json.load(f)
    key = f"1 in {sample}"
    if options.record:
        known[key] = bad_counts(counts)
        if options.all:
            known[f"1 in {SAMPLE}"] = bad_counts(counted(bad, SAMPLE))
        with open(KNOWN, "w", encoding="utf-8") as f:
            json.dump(known, f, indent=1)
            f.write("\n")
        return 0
    worse = [f"{command}: {kind} {number}, known are {known.get(key, {}).get(command, {}).get(kind, 0)}"
             for command, kinds in bad_counts(counts).items() for kind, number in kinds.items()
             if number > known.get(key, {}).get(command, {}).get(kind, 0)]
    for line in worse:
        print("worse:", line)
    return 1 if wrong or worse else 0


if __name__ == "__main__":
    sys.exit(main())
