#!/usr/bin/env python3
"""Times `quantport quantize` and the copy of `quantport revert` with 1, 2, 4, 8 and 16 threads, and prints a table.

    python3 bench/threads.py PROGRAM FOLDER [--size 16GB] [--threads 1,2,4,8,16] [--runs 3] [--json FILE]

FOLDER gets a synthetic checkpoint of BF16 weights in the shapes of a Llama with 8 billion, then a synthetic export for
revert, and needs room for 2.1 times the size. On a file system in memory (/dev/shm) there are no disk and no cold
runs, and memory is taken for the files too. Elsewhere each number of threads runs cold, where caches can be dropped,
and warm. Beside them stands the same reading done by as many `cat` at a time, which is what the machine gives.

All results of one command are held to be equal, byte for byte, before times are printed. Nothing but Python's standard
library and the program is needed.
"""
import argparse
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import make_checkpoint
import modes
import places
import quantize
import report

HERE = Path(__file__).resolve().parent
RECIPES = "nvfp4_weight_only-kv_fp8_cast,nvfp4_default-kv_fp8_cast,fp8_default-kv_fp8_cast"
IN_MEMORY = ("tmpfs", "ramfs", "hugetlbfs")
SPACE = 2.1  # of the model: itself, and the copy of an export as large
READ = "cat, as many at a time"


@dataclass
class Work:
    name: str
    command: list  # INPUT, OUTPUT and THREADS are replaced
    writes: bool = True


def write_calibration(path, model):
    """An amax for every input of the model: recipes with static activation scales ask for one."""
    modules = [name.removesuffix(".weight") for name in modes.headers(model) if not name.endswith("norm.weight")]
    header = {f"{name}.input_amax": {"dtype": "F32", "shape": [], "data_offsets": [4 * i, 4 * i + 4]}
              for i, name in enumerate(modules)}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + struct.pack("<f", 8.0) * len(modules))


def quantizing(program, recipe, calibration):
    command = [program, "quantize", "INPUT", "-o", "OUTPUT", "--recipe", recipe, "--threads", "THREADS", "--quiet"]
    return Work(f"quantize {recipe}", command + ["--calibration", str(calibration)])


def reverting(program):
    return Work("revert, copied", [program, "revert", "INPUT", "-o", "OUTPUT", "--reflink", "never", "--threads",
                                   "THREADS", "--quiet"])


READING = Work(READ, ["sh", "-c", 'ls "$1"/*.safetensors | xargs -P "$2" -n 1 cat >/dev/null', "sh", "INPUT", "THREADS"],
               writes=False)


def digest(folder):
    """Of the contents of all files, by name."""

    def of_file(path):
        total = hashlib.blake2b()
        with open(path, "rb") as file:
            while block := file.read(1 << 22):
                total.update(block)
        return path.name, total.hexdigest()

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(of_file, sorted(folder.iterdir())))


class Timer:
    """Runs work with any number of threads in a known state of the page cache."""

    def __init__(self, folder, caches, runs):
        self.folder = folder
        self.output = folder / "output"
        self.caches = caches
        self.runs = runs
        self.digests = {}

    def cost(self, work, source, threads, state):
        shutil.rmtree(self.output, ignore_errors=True)
        if state == "cold":
            self.caches.make_cold(source)
        elif state == "warm":
            self.caches.make_warm(source)
        words = {"INPUT": str(source), "OUTPUT": str(self.output), "THREADS": str(threads)}
        command = [words.get(word, word) for word in work.command]
        with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".json") as result:
            measure = [sys.executable, "-I", "-S", str(HERE / "measure.py"), result.name, str(self.folder)]
            subprocess.run(measure + command, check=True, stdout=subprocess.DEVNULL)
            cost = json.load(result)
        if cost["status"] != 0:
            raise SystemExit(f"error: exit status {cost['status']}: {' '.join(command)}")
        return cost

    def check(self, work):
        """Ends the run where the number of threads shows in the result."""
        if not work.writes:
            return
        found = digest(self.output)
        if found != self.digests.setdefault(work.name, found):
            raise SystemExit(f"error: {work.name} wrote other bytes with another number of threads")

    def measure(self, works, source, counts, states):
        """Rows of the table. Runs of all works and numbers of threads are interleaved."""
        found = {}
        for state in states:
            for number in range(self.runs):
                for work in works:
                    for threads in counts:
                        runs = found.setdefault((work.name, state, threads), modes.Runs())
                        runs.costs.append(self.cost(work, source, threads, state))
                        print(f"{state} {threads:3} threads {runs.costs[-1]['wall']:8.3f} s  {work.name}",
                              file=sys.stderr, flush=True)
                        if number == 0:
                            self.check(work)
        shutil.rmtree(self.output, ignore_errors=True)
        return found


HEADER = ["work", "cache", "threads", "runs", "wall s: median (range)", "GB/s read", "speedup", "CPU s: user + system",
          "cores busy", "peak memory MB"]


def table(found, sizes):
    lines = ["| " + " | ".join(HEADER) + " |", "|---|---|" + "---:|" * (len(HEADER) - 2)]
    for (name, state, threads), runs in found.items():
        wall = runs.median("wall")
        first = next(r for (n, s, _), r in found.items() if (n, s) == (name, state))
        cpu = runs.median("user") + runs.median("system")
        cells = [name, state, threads, len(runs.costs), report.wall(runs),
                 report.number(sizes[name, state, threads] / 1e9 / wall), f"{first.median('wall') / wall:.2f}",
                 f"{runs.median('user'):.2f} + {runs.median('system'):.2f}", f"{cpu / wall:.1f}", report.peak(runs)]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def run(options, folder, states, caches):
    program = str(options.program)
    timer = Timer(folder, caches, options.runs)
    found, sizes = {}, {}

    def add(works, source):
        rows = timer.measure(works, source, options.threads, states)
        found.update(rows)
        sizes.update({key: modes.data_bytes(source) for key in rows})

    model, export = folder / "model", folder / "export"
    if options.recipes:
        quantize.make_model(str(model), options.size)
        calibration = folder / "calibration.safetensors"
        write_calibration(calibration, model)
        add([READING] + [quantizing(program, recipe, calibration) for recipe in options.recipes], model)
        shutil.rmtree(model)
    if not options.no_revert:
        # As many shards as let 16 cat read at a time.
        make_checkpoint.make(export, options.size, shard_bytes=max(10**8, options.size // 32))
        add([reverting(program)], export)
    return found, sizes


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path)
    parser.add_argument("folder", type=Path, help="a folder in it holds all files, and is removed at the end")
    parser.add_argument("--size", type=make_checkpoint.parse_size, default="16GB", help="of tensors (default: 16GB)")
    parser.add_argument("--threads", type=lambda text: [int(n) for n in text.split(",")], default="1,2,4,8,16")
    parser.add_argument("--runs", type=int, default=3, help="of each (default: 3)")
    parser.add_argument("--recipes", type=lambda text: [r for r in text.split(",") if r], default=RECIPES,
                        help=f"empty for none (default: {RECIPES})")
    parser.add_argument("--no-revert", action="store_true", help="quantize only")
    parser.add_argument("--states", choices=("cold", "warm"), nargs="+", default=["cold", "warm"],
                        help="of the page cache (default: both)")
    parser.add_argument("--json", type=Path, help="every run's cost, to this file")
    options = parser.parse_args()
    options.program = options.program.absolute()
    return options


def main():
    options = parse_options()
    options.folder.mkdir(parents=True, exist_ok=True)
    needed, free = SPACE * options.size, shutil.disk_usage(options.folder).free
    if free < needed:
        raise SystemExit(f"error: FOLDER needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")
    machine = report.machine()
    caches = places.Caches()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="threads-") as folder:
        kind = places.file_system(Path(folder))
        states = ["in memory"] if kind in IN_MEMORY else options.states
        found, sizes = run(options, Path(folder), states, caches)
    print(table(found, sizes))
    print(f"\n- Machine: {machine}. quantport {report.first_line(str(options.program), '--version')}.")
    print(f"- Files: {options.size / 1e9:g} GB on {kind}."
          + (f" Cold: {caches.how}." if "cold" in states else ""))
    print("- Speedup: over the first number of threads. Results do not depend on the number of threads, byte for byte.")
    if options.json:
        options.json.write_text(json.dumps([{"work": name, "cache": state, "threads": threads, "bytes": sizes[name, state,
                                             threads], "runs": runs.costs}
                                            for (name, state, threads), runs in found.items()], indent=1))


if __name__ == "__main__":
    main()
