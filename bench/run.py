#!/usr/bin/env python3
"""Measure quantport against cp and the Python path on one synthetic export, in one run, and write the table.

    python3 bench/run.py --size 10GB --program build/release/quantport --workdir DIR --python PYTHON \\
        --output docs/benchmarks.md

PYTHON is an interpreter with torch and safetensors. DIR is on the disk to measure and has room for three times the
size. Every mode copies the same export to a new folder and has it on the disk (fsync or sync) before the clock stops.

A first round is not measured: every byte of its outputs is checked (cp's against the export, quantport's against the
Python path), and it touches the memory that later rounds use. Then runs are interleaved, A B C A B C, first cold, then
warm, and the median counts. Before each run the output of the last one is deleted and the file system synced. Cold: the
page cache is dropped, then the programs themselves are read again, so that only the data are cold. Warm: the export has
just been read once.

--quick is --size 1GB. A new mode is one more entry of `modes`.
"""

import argparse
import json
import mmap
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import make_checkpoint
import report

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Mode:
    name: str
    command: list  # of the shell or program; INPUT and OUTPUT are replaced
    warm_up: list  # reads what the command itself needs from the disk
    checked_against: str  # whose content its output must have: "export", or another mode


@dataclass
class Runs:
    """What the runs of one mode cost, in one state of the page cache."""

    costs: list = field(default_factory=list)

    def median(self, key):
        return statistics.median(cost[key] for cost in self.costs)

    def walls(self):
        return [cost["wall"] for cost in self.costs]


def modes(options):
    program, python = str(options.program), str(options.python)
    return [
        Mode("quantport revert", [program, "revert", "INPUT", "-o", "OUTPUT", "--quiet"], ["cat", program], "Python"),
        Mode("cp -r, sync", ["sh", "-c", 'cp -r "$1" "$2" && sync -f "$2"', "sh", "INPUT", "OUTPUT"],
             ["cp", "--version"], "export"),
        Mode("Python", [python, str(HERE / "python_path.py"), "INPUT", "OUTPUT"],
             [python, "-c", "import safetensors.torch"], "quantport revert"),
    ]


def run_quietly(command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


class Caches:
    """Puts the page cache into a known state."""

    def __init__(self, export):
        self.files = [path for path in export.iterdir() if path.is_file()]
        self.whole_machine = os.access("/proc/sys/vm/drop_caches", os.W_OK)
        self.how = ("the whole page cache dropped (drop_caches)" if self.whole_machine
                    else "the export's pages dropped (posix_fadvise)")

    def make_cold(self):
        os.sync()
        if self.whole_machine:
            Path("/proc/sys/vm/drop_caches").write_text("3\n", encoding="ascii")
            return
        for path in self.files:
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def make_warm(self):
        os.sync()
        for path in self.files:
            run_quietly(["cat", str(path)])


def checksums(directory):
    """Tensor name -> (dtype, shape, CRC-32 of its bytes), over all shards."""
    found = {}
    for path in sorted(directory.glob("*.safetensors")):
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            start = 8 + int.from_bytes(data[:8], "little")
            for name, info in json.loads(data[8:start]).items():
                if name == "__metadata__":
                    continue
                begin, end = info["data_offsets"]
                with memoryview(data) as view:
                    found[name] = info["dtype"], tuple(info["shape"]), zlib.crc32(view[start + begin:start + end])
    return found


class Bench:
    def __init__(self, options, export):
        self.options = options
        self.export = export
        self.output = options.workdir / "output"
        self.caches = Caches(export)
        self.modes = modes(options)
        self.results = {}  # (mode name, "cold" or "warm") -> Runs
        self.contents = {}  # mode name, or "export" -> checksums

    def clear_output(self):
        shutil.rmtree(self.output, ignore_errors=True)
        os.sync()

    def execute(self, mode, state):
        """Runs a mode with the page cache in `state`. Returns what it cost."""
        self.clear_output()
        if state == "cold":
            self.caches.make_cold()
        else:
            self.caches.make_warm()
        run_quietly(mode.warm_up)
        places = {"INPUT": str(self.export), "OUTPUT": str(self.output)}
        command = [places.get(word, word) for word in mode.command]
        with tempfile.NamedTemporaryFile(dir=self.options.workdir, suffix=".json") as result:
            wrapper = [sys.executable, "-I", "-S", str(HERE / "measure.py"), result.name, *command]
            subprocess.run(wrapper, check=True)
            cost = json.load(result)
        if cost["status"] != 0:
            raise SystemExit(f"error: {mode.name} ended with exit status {cost['status']}")
        return cost

    def measure(self, mode, state):
        cost = self.execute(mode, state)
        self.results.setdefault((mode.name, state), Runs()).costs.append(cost)
        print(f"{mode.name:18} {state} {cost['wall']:7.2f} s wall {cost['user'] + cost['system']:7.2f} s CPU "
              f"{cost['peak_rss'] / 1e6:8.1f} MB peak {cost['read_bytes'] / 1e9:7.2f} GB read "
              f"{cost['write_bytes'] / 1e9:7.2f} GB written", file=sys.stderr, flush=True)

    def check(self):
        self.contents["export"] = checksums(self.export)
        for mode in self.modes:
            self.execute(mode, "warm")
            self.contents[mode.name] = checksums(self.output)
        for mode in self.modes:
            if self.contents[mode.name] != self.contents[mode.checked_against]:
                raise SystemExit(f"error: the output of {mode.name} is not that of {mode.checked_against}")

    def run(self):
        self.check()
        for state in ("cold", "warm"):
            for _ in range(self.options.runs):
                for mode in self.modes:
                    self.measure(mode, state)
        self.clear_output()


def existing_export(options):
    """The export to measure with, made unless an earlier run kept it."""
    export = options.workdir / f"export-{options.size}"
    if not export.exists():
        free = shutil.disk_usage(options.workdir).free
        if free < 2.2 * options.size:
            raise SystemExit(f"error: --workdir needs {2.2 * options.size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")
        unfinished = options.workdir / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        make_checkpoint.make(unfinished, options.size)
        unfinished.rename(export)
    return export


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--size", type=make_checkpoint.parse_size, default="10GB", help="of the export (default: 10GB)")
    size.add_argument("--quick", dest="size", action="store_const", const=10**9, help="the same as --size 1GB")
    parser.add_argument("--program", type=Path, default=HERE.parent / "build" / "release" / "quantport")
    parser.add_argument("--python", type=Path, required=True, help="an interpreter with torch and safetensors")
    parser.add_argument("--workdir", type=Path, required=True, help="a folder on the disk to measure")
    parser.add_argument("--runs", type=int, help="of each mode and cache state (default: 5 up to 1GB, else 3)")
    parser.add_argument("--output", type=Path, help="Markdown file whose generated part is replaced; default: print")
    parser.add_argument("--keep", action="store_true", help="keep the export in --workdir for another run")
    options = parser.parse_args()
    if options.runs is None:
        options.runs = 5 if options.size <= 10**9 else 3
    options.workdir.mkdir(parents=True, exist_ok=True)
    # Not resolve(): a virtual environment's interpreter is a link, and works only under its own name.
    options.program, options.python = options.program.absolute(), options.python.absolute()
    export = existing_export(options)
    machine = report.machine(options.workdir)  # before the run: it holds the load average
    bench = Bench(options, export)
    bench.run()
    text = report.markdown(bench, machine)
    if options.output:
        report.replace_generated(options.output, text)
    else:
        print(text)
    if not options.keep:
        shutil.rmtree(export)


if __name__ == "__main__":
    main()
