"""Runs the program with a call that fails or kills it, and holds a folder against what it was.

tests/faults/rules.h says what can go wrong. A test that needs the shim skips where there is none, as in builds with
sanitizers.
"""
import concurrent.futures
import ctypes
import json
import os
import shutil
import struct
import subprocess
import tempfile
import unittest
from typing import NamedTuple

from exports import bf16, hf_quant_config, mixtral_config, modelopt_config, nvfp4, tensor
from program import BITS, byte_count, fill, run, write, write_checkpoint

SHIM = os.path.abspath(os.environ.get("QUANTPORT_FAULT_SHIM", "build/release/tests/libquantport_fault_shim.so"))
WRITES = ("write", "pwrite", "writev", "pwritev", "copy_file_range", "sendfile")
JOURNAL = ".quantport-journal"
MAX_HEADER = 100_000_000
REASONS = {"ENOSPC": "No space left on device", "EIO": "Input/output error", "EROFS": "Read-only file system",
           "EXDEV": "Invalid cross-device link"}
# How each call fails on real disks.
CAUSES = {"open": "EROFS", "mkdir": "ENOSPC", "fallocate": "ENOSPC", "ftruncate": "ENOSPC", "pwrite": "ENOSPC",
          "fsync": "EIO", "rename": "EIO"}

needs_shim = unittest.skipUnless(os.path.exists(SHIM), f"{SHIM} is not there")
needs_root = unittest.skipUnless(os.geteuid() == 0, "only root can mount")


def faulty(fault):
    """The environment of a program that meets `fault`. Nothing waits for the disk: a killed process can't tell."""
    return {"LD_PRELOAD": SHIM, "QUANTPORT_FAULT": f"nosync,{fault}"}


def run_faulty(fault, *args):
    return run(*args, env=faulty(fault))


def run_fast(*args):
    """Without faults, and without waiting for the disk."""
    return run(*args, env=faulty("nosync"))


class Call(NamedTuple):
    number: int  # 0: a read, which is not counted
    name: str
    path: str


def calls_of(*args):
    """The calls that a successful run makes, reads among them."""
    with tempfile.TemporaryDirectory(prefix="quantport-calls-") as folder:
        log = f"{folder}/calls"
        result = run_faulty(f"count:{log}", *args)
        if result.returncode != 0:
            raise AssertionError(result.stderr)
        with open(log, encoding="utf-8") as f:
            lines = [line.rstrip("\n").split(" ", 2) for line in f]
    return [Call(int(number), name, path) for number, name, path in lines]


def kill_points(calls):
    """Before every counted call, after the last one, and within those that can stop half way."""
    counted = [call for call in calls if call.number > 0]
    points = [f"kill:{call.number}" for call in counted]
    points += [f"torn:{call.number}" for call in counted if call.name in WRITES]
    points += [f"torn{part}:{call.number}" for call in counted if call.name == "fallocate" for part in ("", "-shift")]
    return points + [f"kill-after:{len(counted)}"]


def journaled(calls):
    """The numbers of the calls before which a change in place has a journal."""
    counted = [call for call in calls if call.number > 0 and os.path.basename(call.path) == JOURNAL]
    made = next(call.number for call in counted if call.name.startswith(("rename", "link")))
    gone = next(call.number for call in counted if call.name in ("unlink", "unlinkat", "remove"))
    return range(made + 1, gone + 1)


def middle(numbers):
    return numbers[len(numbers) // 2]


def snapshot(folder):
    """Relative path -> bytes, or None for a folder."""
    found = {}
    for parent, folders, files in os.walk(folder):
        for name in folders:
            found[os.path.relpath(f"{parent}/{name}", folder)] = None
        for name in files:
            with open(f"{parent}/{name}", "rb") as f:
                found[os.path.relpath(f"{parent}/{name}", folder)] = f.read()
    return found


def difference(got, want):
    """What differs between two snapshots, short enough to print; empty where nothing does."""
    parts = []
    for name in sorted(set(got) | set(want)):
        if name not in want or name not in got:
            parts.append(f"{name} is {'missing' if name in want else 'too many'}")
        elif got[name] != want[name]:
            parts.append(f"{name} has other bytes")
    return "; ".join(parts)


def strictly_read(content):
    """name -> (dtype, shape, bytes) as strict readers of safetensors have it; None where they refuse the file."""
    if len(content) < 8:
        return None
    length = struct.unpack("<Q", content[:8])[0]
    if not 0 < length <= min(MAX_HEADER, len(content) - 8):
        return None
    try:
        header = json.loads(content[8:8 + length])
    except ValueError:
        return None
    if not isinstance(header, dict):
        return None
    header.pop("__metadata__", None)
    data, end, tensors = content[8 + length:], 0, {}
    for name, info in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, stop = info["data_offsets"]
        if begin != end or info["dtype"] not in BITS or stop - begin != byte_count(info["dtype"], info["shape"]):
            return None
        tensors[name] = (info["dtype"], info["shape"], data[begin:stop])
        end = stop
    return tensors if end == len(data) else None


class Model(NamedTuple):
    """A checkpoint that a reversal changes in some way, and the arguments it takes."""
    write: callable  # (folder)
    mapping: dict = None

    def arguments(self, folder):
        if self.mapping is None:
            return []
        path = f"{folder}/mapping.json"
        if not os.path.exists(path):
            write(path, self.mapping)
        return ["--mapping", path]


def place_data(path, remainder):
    """Spaces after a file's header until its data begins at that remainder of 8; safetensors itself has 0."""
    with open(path, "rb") as f:
        content = f.read()
    length = struct.unpack("<Q", content[:8])[0]
    padding = (remainder - length) % 8
    header = content[8:8 + length] + b" " * padding
    write(path, struct.pack("<Q", len(header)) + header + content[8 + length:])


def shard_names(folder):
    return sorted(name for name in os.listdir(folder) if name.endswith(".safetensors"))


def write_experts(folder, experts=8):
    """Five shards: fused and stacked experts are cut, their scalars given to each, names and headers grow much. Data of
    the first begins at an odd place, so that it can't stay where it is.
    """
    tensors = [bf16("model.embed_tokens.weight", 64, 32), bf16("lm_head.weight", 64, 32)]
    for layer in range(2):
        block = f"model.layers.{layer}.mlp"
        tensors.append(bf16(f"{block}.gate.weight", experts, 64))
        for name, out, inner in (("gate_up_proj", 64, 64), ("down_proj", 64, 32)):
            stack = f"{block}.experts.{name}"
            tensors += [tensor(stack, "U8", [experts, out, inner // 2]),
                        tensor(f"{stack}_weight_scale", "F8_E4M3", [experts, out, inner // 16]),
                        tensor(f"{stack}_weight_scale_2", "F32", []), tensor(f"{stack}_input_scale", "F32", [])]
        tensors += nvfp4(f"model.layers.{layer}.self_attn.q_proj", 64, 64)
    exclude = ["lm_head", "model.layers.0.mlp.gate", "model.layers.1.mlp.gate"]
    extra = {"hf_quant_config.json": hf_quant_config(exclude), "generation_config.json": {"do_sample": False},
             "tokenizer/vocab.txt": fill("vocab", 5000)}
    write_checkpoint(folder, mixtral_config(exclude=exclude), tensors, shards=5, extra=extra)
    for i, name in enumerate(shard_names(folder)):
        place_data(f"{folder}/{name}", remainder=1 if i == 0 else 0)


ROPE_MAPPING = {
    "format": 1, "library": "private", "version": "1",
    "conversions": {"my_model": [
        {"type": "WeightRenaming", "source_patterns": [r"^h\."], "target_patterns": ["model.layers."]},
        {"type": "WeightConverter", "source_patterns": ["attn.wq.weight"], "target_patterns": ["attn.q_proj.weight"],
         "operations": [{"op": "PermuteForRope", "subconfig_key": None, "permute_layer_names": None}]},
        {"type": "WeightConverter", "source_patterns": ["mlp.w_in.weight"], "target_patterns": ["mlp.linear.weight"],
         "operations": [{"op": "Transpose", "dim0": 0, "dim1": 1}]}]},
    "classes": {"MyModelForCausalLM": {"model_type": "my_model", "base_model_prefix": ""}},
}


def write_permuted(folder):
    """Three shards whose headers shrink, with rows and columns that change places: bytes that must be written, few
    beside the others of their file, so that it is done in place.
    """
    tensors = []
    for layer in range(3):
        tensors += [bf16(f"model.layers.{layer}.attn.q_proj.weight", 64, 40),
                    bf16(f"model.layers.{layer}.mlp.linear.weight", 24, 48),
                    bf16(f"model.layers.{layer}.mlp.router.weight", 200, 80)]
    config = modelopt_config("MyModelForCausalLM", "my_model", num_attention_heads=4,
                             exclude=["model.layers.0.mlp*", "model.layers.1.attn"])
    write_checkpoint(folder, config, tensors[0::3] + tensors[1::3] + tensors[2::3], shards=3)
    for name in shard_names(folder):
        place_data(f"{folder}/{name}", remainder=0)


SHARD = "model-00002-of-00005.safetensors"  # of EXPERTS
EXPERTS = Model(write_experts)
PERMUTED = Model(write_permuted, ROPE_MAPPING)


def copy_tree(source, target):
    """A fresh copy, whose files share nothing with the source's."""
    shutil.copytree(source, target)
    return target


def fragment(path, block=4096):
    """Gives a file at least three extents with the same bytes, by inserting the block in its middle by itself."""
    with open(path, "rb") as f:
        content = f.read()
    middle = len(content) // 2 // block * block
    with open(path, "r+b") as f:
        f.write(content[:middle] + content[middle + block:])
        f.truncate()
        f.flush()
        insert_range(f.fileno(), middle, block)
        os.pwrite(f.fileno(), content[middle:middle + block], middle)


def insert_range(descriptor, offset, length):
    """fallocate(2) with FALLOC_FL_INSERT_RANGE; OSError where the file system has none."""
    mode = 0x20
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
    if libc.fallocate(descriptor, mode, offset, length) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def can_insert_range(folder):
    with tempfile.TemporaryFile(dir=folder) as f:
        os.pwrite(f.fileno(), bytes(16384), 0)
        try:
            insert_range(f.fileno(), 4096, 4096)
        except OSError:
            return False
    return True


def at_each(points, check):
    """check(point) for every point, two at a time; the first failure says its point."""

    def checked(point):
        try:
            check(point)
        except (AssertionError, OSError) as error:
            raise AssertionError(f"at {point}: {error}") from error

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        try:
            for done in [pool.submit(checked, point) for point in points]:
                done.result()
        finally:
            pool.shutdown(cancel_futures=True)


def mount(test, kind, size, folder):
    """Mounts a new file system (tmpfs, ext4, xfs) of `size` bytes at `folder` until the test, or class, is done."""
    os.makedirs(folder, exist_ok=True)
    cleanup = test.addClassCleanup if isinstance(test, type) else test.addCleanup
    if kind == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    else:
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else os.path.dirname(folder)
        descriptor, image = tempfile.mkstemp(prefix="quantport-", suffix=".image", dir=memory)
        os.close(descriptor)
        cleanup(os.unlink, image)
        os.truncate(image, size)
        make = [f"mkfs.{kind}", "-q", *(["-m", "reflink=1"] if kind == "xfs" else ["-m", "0"]), image]
        if shutil.which(make[0]) is None:
            raise unittest.SkipTest(f"{make[0]} is not installed")
        subprocess.run(make, check=True, capture_output=True)
        command = ["mount", "-o", "loop", image, folder]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        raise unittest.SkipTest(f"can't mount {kind}: {mounted.stderr.strip()}")
    cleanup(subprocess.run, ["umount", "-l", folder], check=True)
    return folder
