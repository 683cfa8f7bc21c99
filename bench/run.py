#!/usr/bin/env python3
"""Measure quantport against cp and the Python path on one synthetic export, in one run, and write the table.

    python3 bench/run.py --size 10GB --program build/release/quantport --workdir DIR --python PYTHON \\
        --output docs/benchmarks.md

PYTHON is an interpreter with torch and safetensors. DIR is on the disk to measure, with 3.3 times the size free: the
export, one output at a time, and an xfs image with the export in it, which root can mount. Where that can't be, the
modes that need shared extents are not measured and the table says why.

Every mode has its result on the disk (fsync or sync) before the clock stops. Modes that make a new folder read the same
export. In place changes a copy of it: what `cp -r` of the same round has just written, and on xfs a clone.

A first round is not measured: every byte of its outputs is checked (cp's against the export, the copy against the
Python path, in place and reflink against the copy), and it touches the memory that later rounds use. Then runs are
interleaved, A B C A B C, first cold, then warm, and the median counts. Before each run the output of the last one is
deleted and the file system synced. Cold: the page cache is dropped, then the programs themselves are read again, so
that only the data are cold. Warm: the files to read have just been read once.

Runs are a number for all modes, then numbers for single ones: 3,copy=5,cp=5. Modes: cp, in-place, in-place-xfs,
reflink, copy, python. --quick is --size 1GB.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import make_checkpoint
import modes
import report
from places import Caches, Place, file_system, xfs_place

HERE = Path(__file__).resolve().parent
KEYS = ("cp", "in-place", "in-place-xfs", "reflink", "copy", "python")
SPACE = 3.3  # of the size: the export here and on xfs, one output, file systems' own


class RunCounts:
    """How often each mode runs: "3,copy=5"."""

    def __init__(self, text):
        self.text = text
        self.all, self.single = None, {}
        for part in text.split(","):
            key, equals, number = part.rpartition("=")
            if not number.isdecimal() or int(number) == 0 or (equals and key not in KEYS):
                raise argparse.ArgumentTypeError(f"not a number of runs: {part}")
            if equals:
                self.single[key] = int(number)
            else:
                self.all = int(number)
        if self.all is None:
            raise argparse.ArgumentTypeError(f"the number of runs of all modes is missing: {text}")

    def of(self, mode):
        return self.single.get(mode.key, self.all)

    def most(self):
        return max([self.all, *self.single.values()])


class Bench:
    def __init__(self, options, disk, xfs):
        self.options = options
        self.disk = disk
        self.xfs = xfs
        self.caches = Caches()
        self.runner = modes.Runner([disk, xfs], self.caches, options.workdir)
        self.modes = modes.all_modes(options.program, options.python, disk, xfs)
        self.possible = [mode for mode in self.modes if not mode.place.missing]
        self.counts = {"cold": options.cold_runs, "warm": options.warm_runs}
        self.results = {}  # (mode key, "cold" or "warm") -> Runs
        self.contents = {}  # mode key, or "export" -> checksums

    def measure(self, mode, state):
        cost = self.runner.execute(mode, state)
        self.results.setdefault((mode.key, state), modes.Runs()).costs.append(cost)
        print(modes.describe(mode, state, cost), file=sys.stderr, flush=True)

    def check(self):
        self.contents["export"] = modes.checksums(self.disk.export)
        for mode in self.possible:
            print(modes.describe(mode, "checked", self.runner.execute(mode, "warm")), file=sys.stderr, flush=True)
            self.contents[mode.key] = modes.checksums(mode.place.output)
        for mode in self.possible:
            if self.contents[mode.key] != self.contents[mode.checked_against]:
                raise SystemExit(f"error: the output of {mode.key} is not that of {mode.checked_against}")

    def run(self):
        if not self.xfs.missing:
            subprocess.run(["cp", "-r", str(self.disk.export), str(self.xfs.export)], check=True)
        self.check()
        for state, counts in self.counts.items():
            for number in range(counts.most()):
                for mode in self.possible:
                    if number < counts.of(mode):
                        self.measure(mode, state)
        self.runner.clear_outputs()


def existing_export(options):
    """The export to measure with, made unless an earlier run kept it."""
    export = options.workdir / f"export-{options.size}"
    if not export.exists():
        needed, free = SPACE * options.size, shutil.disk_usage(options.workdir).free
        if free < needed:
            raise SystemExit(f"error: --workdir needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")
        unfinished = options.workdir / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        make_checkpoint.make(unfinished, options.size)
        unfinished.rename(export)
    return export


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--size", type=make_checkpoint.parse_size, default="10GB", help="of the export (default: 10GB)")
    size.add_argument("--quick", dest="size", action="store_const", const=10**9, help="the same as --size 1GB")
    parser.add_argument("--program", type=Path, default=HERE.parent / "build" / "release" / "quantport")
    parser.add_argument("--python", type=Path, required=True, help="an interpreter with torch and safetensors")
    parser.add_argument("--workdir", type=Path, required=True, help="a folder on the disk to measure")
    parser.add_argument("--cold-runs", type=RunCounts, help="default: 5 up to 1GB, else 3,copy=5,cp=5")
    parser.add_argument("--warm-runs", type=RunCounts, help="default: 5 up to 1GB, else 3")
    parser.add_argument("--output", type=Path, help="Markdown file whose generated part is replaced; default: print")
    parser.add_argument("--keep", action="store_true", help="keep the export in --workdir for another run")
    options = parser.parse_args()
    quick = options.size <= 10**9
    options.cold_runs = options.cold_runs or RunCounts("5" if quick else "3,copy=5,cp=5")
    options.warm_runs = options.warm_runs or RunCounts("5" if quick else "3")
    # Not resolve(): a virtual environment's interpreter is a link, and works only under its own name.
    options.program, options.python = options.program.absolute(), options.python.absolute()
    return options


def main():
    options = parse_options()
    options.workdir.mkdir(parents=True, exist_ok=True)
    export = existing_export(options)
    machine = report.machine()  # before the run: it holds the load average
    disk = Place(options.workdir, file_system(options.workdir), False, "", export)
    # On xfs lie the export and what one run writes beside it, which is no more than headers where extents are shared.
    with xfs_place(options.workdir, 2 * options.size) as xfs:
        bench = Bench(options, disk, xfs)
        bench.run()
        text = report.comparison(bench, machine)
    if options.output:
        report.replace_generated(options.output, report.COMPARISON, text)
    else:
        print(text)
    if not options.keep:
        shutil.rmtree(export)
    os.sync()


if __name__ == "__main__":
    main()
