"""The ways to revert an export that are measured, and how one of them is run and checked."""

import json
import mmap
import os
import statistics
import subprocess
import sys
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from places import Place, run_quietly

HERE = Path(__file__).resolve().parent
CP, PYTHON = "cp -r, sync", "Python"


@dataclass
class Mode:
    key: str  # for options
    name: str
    place: Place
    command: list  # of the shell or program; INPUT and OUTPUT are replaced
    warm_up: list  # reads what the command itself needs from the disk
    checked_against: str  # whose content its output must have: "export", or the key of another mode
    in_place: bool = False  # changes OUTPUT, which is a copy of the export


@dataclass
class Runs:
    """What the runs of one mode cost, in one state of the page cache."""

    costs: list = field(default_factory=list)

    def median(self, key):
        values = [cost[key] for cost in self.costs]
        return None if None in values else statistics.median(values)

    def walls(self):
        return [cost["wall"] for cost in self.costs]


def in_place_and_reflink(program, disk, xfs):
    """The modes that move no data."""
    program, read_program = str(program), ["cat", str(program)]
    change = [program, "revert", "OUTPUT", "--in-place", "--quiet"]
    clone = [program, "revert", "INPUT", "-o", "OUTPUT", "--reflink", "always", "--quiet"]
    return [
        Mode("in-place", "in place", disk, change, read_program, "copy", in_place=True),
        Mode("in-place-xfs", "in place", xfs, change, read_program, "copy", in_place=True),
        Mode("reflink", "reflink", xfs, clone, read_program, "copy"),
    ]


def all_modes(program, python, disk, xfs):
    """In the order of a round: in place changes what cp has just written, which spares it a copy of its own."""
    copy = [str(program), "revert", "INPUT", "-o", "OUTPUT", "--reflink", "never", "--quiet"]
    # Plain cp shares extents where it can.
    cp = ["sh", "-c", 'cp -r --reflink=never "$1" "$2" && sync -f "$2"', "sh", "INPUT", "OUTPUT"]
    return [
        Mode("cp", CP, disk, cp, ["cp", "--version"], "export"),
        *in_place_and_reflink(program, disk, xfs),
        Mode("copy", "copy", disk, copy, ["cat", str(program)], "python"),
        Mode("python", PYTHON, disk, [str(python), str(HERE / "python_path.py"), "INPUT", "OUTPUT"],
             [str(python), "-c", "import safetensors.torch"], "copy"),
    ]


class Runner:
    """Runs modes one by one; knows which output is still an untouched copy of the export."""

    def __init__(self, places, caches, workdir):
        self.places = places
        self.caches = caches
        self.workdir = workdir
        self.fresh = None  # the place whose output cp has just written

    def prepare(self, mode):
        """Leaves what the mode needs and nothing else. Returns the folder that it reads."""
        keep = self.fresh if mode.in_place and self.fresh is mode.place else None
        for place in self.places:
            if place is not keep:
                place.clear_output()
        if mode.in_place and not keep:
            mode.place.copy_export()
        self.fresh = None
        os.sync()
        return mode.place.output if mode.in_place else mode.place.export

    def execute(self, mode, state):
        """Runs a mode with the page cache in `state`. Returns what it cost."""
        reads = self.prepare(mode)
        if state == "cold":
            self.caches.make_cold(reads)
        else:
            self.caches.make_warm(reads)
        run_quietly(mode.warm_up)
        folders = {"INPUT": str(mode.place.export), "OUTPUT": str(mode.place.output)}
        command = [folders.get(word, word) for word in mode.command]
        with tempfile.NamedTemporaryFile(dir=self.workdir, suffix=".json") as result:
            measure = [sys.executable, "-I", "-S", str(HERE / "measure.py"), result.name, str(mode.place.root)]
            subprocess.run(measure + command, check=True)
            cost = json.load(result)
        if cost["status"] != 0:
            raise SystemExit(f"error: {mode.key} ended with exit status {cost['status']}: {' '.join(command)}")
        if mode.name == CP:
            self.fresh = mode.place
        return cost

    def clear_outputs(self):
        for place in self.places:
            place.clear_output()


def read_header(path):
    """Tensor name -> entry of the header, and the offset of the data."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return header, 8 + length


def headers(directory):
    """Tensor name -> (dtype, shape), over all shards."""
    found = {}
    for path in sorted(directory.glob("*.safetensors")):
        found.update((name, (info["dtype"], tuple(info["shape"]))) for name, info in read_header(path)[0].items())
    return found


def data_bytes(directory):
    """Bytes of data of all shards, as their headers state them: the last offset of each."""
    found = [read_header(path)[0] for path in directory.glob("*.safetensors")]
    return sum(max(info["data_offsets"][1] for info in header.values()) for header in found)


def checksums(directory):
    """Tensor name -> (dtype, shape, CRC-32 of its bytes), over all shards."""

    def of_file(path):
        header, start = read_header(path)
        found = {}
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            data.madvise(mmap.MADV_SEQUENTIAL)
            for name, info in header.items():
                begin, end = info["data_offsets"]
                with memoryview(data) as view:
                    found[name] = info["dtype"], tuple(info["shape"]), zlib.crc32(view[start + begin:start + end])
        return found

    result = {}
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for found in pool.map(of_file, sorted(directory.glob("*.safetensors"))):
            result.update(found)
    return result


def describe(mode, state, cost):
    device = "" if cost["device_written"] is None else f", by the disk {cost['device_written'] / 1e6:.1f}"
    return (f"{mode.key:13} {state} {cost['wall']:8.3f} s wall {cost['user'] + cost['system']:7.2f} s CPU "
            f"{cost['peak_rss'] / 1e6:8.1f} MB peak {cost['read_bytes'] / 1e6:9.1f} MB read "
            f"{cost['write_bytes'] / 1e6:9.1f} MB written{device}")
