#!/usr/bin/env python3
"""Measure whether in place and reflink take the time of tensors or of bytes, and write the tables.

    python3 bench/scaling.py --program build/release/quantport --workdir DIR --output docs/benchmarks.md

First the same tensors, in as many files, at growing sizes: 1, 10 and 40 GB. Then the same size with growing numbers of
tensors. Data are holes (make_checkpoint.py --data holes), so that 40 GB take no disk. A hole has no extents to move, so
the sizes given by --random are measured with random data too; and the largest also in shards of 5 GB, as it is saved.

Runs are cold, on the disk and on a loop-mounted xfs, as in run.py. In place changes a copy that is made before the
clock starts. DIR needs 3.3 times the largest size of --random.
"""

import argparse
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import make_checkpoint
import modes
import report
from places import Caches, Place, file_system, xfs_place

HERE = Path(__file__).resolve().parent
SPACE = 3.3  # of the largest random export: as in run.py
SHARDS = 4  # where the number of files is to stay the same
SAME_TENSORS = "The same tensors and number of files, more bytes:"
AS_SAVED = "The largest in shards of 5 GB:"
SAME_BYTES = "The same bytes and number of files, more tensors:"


class Listed:
    """Values separated by commas, and the text they came from."""

    def __init__(self, text, parse):
        self.text = text
        self.values = [parse(part) for part in text.split(",")]


def sizes(text):
    return Listed(text, make_checkpoint.parse_size)


def numbers(text):
    return Listed(text, int)


@dataclass(frozen=True)
class Wanted:
    size: int
    layers: int
    data: str
    shard_bytes: int


@dataclass(frozen=True)
class Export:
    data: str
    total: int
    shards: int
    tensors: int


def same_files(size, layers, data="holes"):
    # A tensor that no longer fits begins a new shard, hence some more than a part each.
    return Wanted(size, layers, data, int(size / SHARDS * 1.03))


def series(options):
    largest = max(options.sizes.values)
    growing = [same_files(size, options.layers) for size in options.sizes.values]
    growing += [same_files(size, options.layers, "random") for size in options.random.values]
    return [
        (SAME_TENSORS, growing),
        (AS_SAVED, [Wanted(largest, options.layers, "holes", make_checkpoint.SHARD_BYTES)]),
        (SAME_BYTES, [same_files(options.fixed_size, layers) for layers in options.tensor_layers.values]),
    ]


def refuse_moved_data(mode, export, cost):
    """Ends the run before holes are written out as 40 GB of zeros."""
    if export.total >= 100_000_000 and cost["write_bytes"] > export.total // 2:
        raise SystemExit(f"error: {mode.key} wrote {cost['write_bytes'] / 1e6:.0f} MB for {export.total / 1e6:.0f} MB "
                         "of data: it moves them")


class Scaling:
    def __init__(self, options, disk, xfs):
        self.options = options
        self.places = [disk, xfs]
        self.caches = Caches()
        self.runner = modes.Runner(self.places, self.caches, options.workdir)
        self.modes = [mode for mode in modes.in_place_and_reflink(options.program, disk, xfs) if not mode.place.missing]

    def make(self, wanted):
        """The export on every place. On xfs it is written anew: cp from the other disk would take longer than that."""
        exports = []
        for place in self.places:
            if not place.missing:
                shutil.rmtree(place.export, ignore_errors=True)
                count, total = make_checkpoint.make(
                    place.export, wanted.size, wanted.layers, wanted.shard_bytes, wanted.data)
                shards = len(list(place.export.glob("*.safetensors")))
                exports.append(Export(wanted.data, total, shards, count))
        os.sync()
        return exports[0]

    def measure(self, wanted):
        export = self.make(wanted)
        runs = {mode.key: modes.Runs() for mode in self.modes}
        outcomes = []
        for _ in range(self.options.runs):
            for mode in self.modes:
                cost = self.runner.execute(mode, "cold")
                print(f"{export.total / 1e9:6.2f} GB {export.tensors:7} tensors, {export.data}: "
                      f"{modes.describe(mode, 'cold', cost)}", file=sys.stderr, flush=True)
                refuse_moved_data(mode, export, cost)
                runs[mode.key].costs.append(cost)
                outcomes.append((modes.headers(mode.place.output), modes.data_bytes(mode.place.output)))
        if any(outcome != (outcomes[0][0], export.total) for outcome in outcomes):
            raise SystemExit("error: runs differ in names, dtypes, shapes or bytes of data")
        if outcomes[0][0] == modes.headers(self.places[0].export):
            raise SystemExit("error: nothing was renamed")
        return [(export, mode, runs[mode.key]) for mode in self.modes]

    def clear(self):
        self.runner.clear_outputs()
        for place in self.places:
            if not place.missing:
                shutil.rmtree(place.export, ignore_errors=True)

    def run(self):
        """Measures every export of every series; an export of several is measured once."""
        done = {}
        for _, exports in series(self.options):
            for wanted in exports:
                if wanted not in done:
                    done[wanted] = self.measure(wanted)
        self.clear()
        return [(heading, [row for mode in self.modes for wanted in exports for row in done[wanted] if row[1] is mode])
                for heading, exports in series(self.options)]


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, default=HERE.parent / "build" / "release" / "quantport")
    parser.add_argument("--workdir", type=Path, required=True, help="a folder on the disk to measure")
    parser.add_argument("--sizes", type=sizes, default="1GB,10GB,40GB", help="default: 1GB,10GB,40GB")
    parser.add_argument("--layers", type=int, default=22, help="layers with experts at every size (default: 22)")
    parser.add_argument("--fixed-size", type=make_checkpoint.parse_size, default="10GB", help="default: 10GB")
    parser.add_argument("--tensor-layers", type=numbers, default="11,22,44",
                        help="layers with experts at the fixed size (default: 11,22,44)")
    parser.add_argument("--random", type=sizes, default="1GB,10GB", help="with random data too (default: 1GB,10GB)")
    parser.add_argument("--runs", type=int, default=5, help="of each mode and export (default: 5)")
    parser.add_argument("--output", type=Path, help="Markdown file whose generated part is replaced; default: print")
    options = parser.parse_args()
    options.program = options.program.absolute()
    return options


def main():
    options = parse_options()
    options.workdir.mkdir(parents=True, exist_ok=True)
    needed, free = SPACE * max(options.random.values), shutil.disk_usage(options.workdir).free
    if free < needed:
        raise SystemExit(f"error: --workdir needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")
    machine = report.machine()
    disk = Place(options.workdir, file_system(options.workdir), False, "", options.workdir / "export")
    largest = max(*options.sizes.values, *options.random.values, options.fixed_size)
    with xfs_place(options.workdir, 2 * largest) as xfs:
        if xfs.missing:
            print(f"not measured on xfs: {xfs.missing}", file=sys.stderr)
        scaling = Scaling(options, disk, xfs)
        text = report.scaling(scaling.run(), xfs.missing, machine, scaling.caches, options)
    if options.output:
        report.replace_generated(options.output, report.SCALING, text)
    else:
        print(text)


if __name__ == "__main__":
    main()
