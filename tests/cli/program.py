"""Runs the program, and writes and reads checkpoints without any package, for the tests beside this file."""
import json
import os
import struct
import subprocess
import tempfile
import unittest
import zlib

PROGRAM = os.environ.get("QUANTPORT", "build/release/quantport")
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BITS = {"F4": 4, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "BF16": 16, "F16": 16, "F32": 32, "I32": 32, "I64": 64}


def run(*args, env=None, timeout=120):
    """The finished process, with text output."""
    return subprocess.run([PROGRAM, *map(str, args)], capture_output=True, text=True, timeout=timeout,
                          env={**os.environ, **(env or {})})


def fill(key, count):
    """`count` bytes that depend on the key."""
    seed = zlib.crc32(key.encode())
    return bytes(((seed + i * 2654435761) & 0xFFFFFFFF) >> 24 for i in range(count))


def byte_count(dtype, shape):
    bits = BITS[dtype]
    for size in shape:
        bits *= size
    return bits // 8


def safetensors(tensors, metadata=None):
    """The bytes of a file with `tensors`: a list of (name, dtype, shape[, bytes])."""
    header, data = {"__metadata__": metadata or {"format": "pt"}}, b""
    for name, dtype, shape, *given in tensors:
        body = given[0] if given else fill(name, byte_count(dtype, shape))
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(body)]}
        data += body
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # as safetensors itself does
    return struct.pack("<Q", len(text)) + text + data


def write(path, content):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(content if isinstance(content, bytes) else json.dumps(content, indent=2).encode())


def write_checkpoint(folder, config, tensors, shards=1, extra=None):
    """config.json, `extra` files and the tensors, dealt out over `shards` files with an index if more than one."""
    write(f"{folder}/config.json", config)
    for name, content in (extra or {}).items():
        write(f"{folder}/{name}", content)
    if shards == 1:
        write(f"{folder}/model.safetensors", safetensors(tensors))
        return
    weight_map, total = {}, 0
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = tensors[i::shards]
        write(f"{folder}/{file}", safetensors(part))
        weight_map.update({t[0]: file for t in part})
        total += sum(byte_count(t[1], t[2]) for t in part)
    write(f"{folder}/model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def read_file(path):
    """name -> (dtype, shape, bytes) of one file."""
    with open(path, "rb") as f:
        content = f.read()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:8 + length])
    data = content[8 + length:]
    return {name: (t["dtype"], t["shape"], data[t["data_offsets"][0]:t["data_offsets"][1]])
            for name, t in header.items() if name != "__metadata__"}


def read_checkpoint(folder):
    """name -> (dtype, shape, bytes) of all safetensors files of a folder; a name in two files is an error."""
    out = {}
    for file in sorted(os.listdir(folder)):
        if not file.endswith(".safetensors"):
            continue
        for name, tensor in read_file(f"{folder}/{file}").items():
            assert name not in out, f"{name} stands twice"
            out[name] = tensor
    return out


class ProgramTest(unittest.TestCase):
    """A test with a folder of its own."""

    def setUp(self):
        temporary = tempfile.TemporaryDirectory(prefix="quantport-test-")
        self.addCleanup(temporary.cleanup)
        self.folder = temporary.name

    def path(self, name):
        return f"{self.folder}/{name}"

    def assert_fails(self, result, *fragments, status=1):
        """Exit status, and every fragment on standard error."""
        self.assertEqual(result.returncode, status, result.stderr + result.stdout)
        for fragment in fragments:
            self.assertIn(fragment, result.stderr)

    def assert_done(self, result):
        self.assertEqual(result.returncode, 0, result.stderr)

    def assert_nothing_left(self, name="out"):
        """Neither the output nor a hidden folder beside it."""
        left = [f for f in os.listdir(self.folder) if f == name or f.startswith(f".{name}.")]
        self.assertEqual(left, [])
