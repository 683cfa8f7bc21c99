"""quantport takes the files that the official safetensors takes, and refuses those it refuses, but for listed cases."""
import json
import os
import struct
import subprocess
import tempfile
import unittest

from safetensors import SafetensorError, deserialize

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAM = os.environ.get("QUANTPORT", f"{ROOT}/build/release/quantport")
DTYPES = {"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
          "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
          "C64": 64, "F64": 64, "I64": 64, "U64": 64}


def tensor(dtype="U8", shape=(4,), begin=0, end=4, **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end], **more}


def file_bytes(header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


# name -> (file, why quantport may differ from the official library, or None)
CASES = {
    "plain": (file_bytes({"a": tensor()}, b"1234"), None),
    "no tensors": (file_bytes({}, b""), None),
    "0-d": (file_bytes({"a": tensor(shape=(), end=1)}, b"1"), None),
    "zero-size": (file_bytes({"a": tensor(shape=(0, 3), end=0), "b": tensor()}, b"1234"), None),
    "padding": (file_bytes(json.dumps({"a": tensor()}).encode() + b"   ", b"1234"), None),
    "leading space": (file_bytes(b" " + json.dumps({"a": tensor()}).encode(), b"1234"), None),
    "null metadata": (file_bytes({"__metadata__": None, "a": tensor()}, b"1234"), None),
    "unknown field": (file_bytes({"a": tensor(extra=[1, {"b": 2}])}, b"1234"), None),
    "empty name": (file_bytes({"": tensor()}, b"1234"), None),
    "metadata of numbers": (file_bytes({"__metadata__": {"a": 1}}, b""), None),
    "hole": (file_bytes({"a": tensor(begin=1, end=5)}, b"12345"), None),
    "overlap": (file_bytes({"a": tensor(), "b": tensor(begin=2, end=6)}, b"123456"), None),
    "trailing bytes": (file_bytes({"a": tensor()}, b"12345"), None),
    "past the end": (file_bytes({"a": tensor(end=8, shape=(8,))}, b"1234"), None),
    "wrong size": (file_bytes({"a": tensor(shape=(5,))}, b"1234"), None),
    "overflow": (file_bytes({"a": tensor(shape=(2**40, 2**40))}, b"1234"), None),
    "unknown dtype": (file_bytes({"a": tensor(dtype="F9")}, b"1234"), None),
    "float shape": (file_bytes({"a": tensor(shape=(4.0,))}, b"1234"), None),
    "negative offset": (file_bytes({"a": tensor(begin=-1, end=3)}, b"1234"), None),
    "backwards": (file_bytes({"a": tensor(begin=4, end=0)}, b"1234"), None),
    "half a byte": (file_bytes({"a": tensor(dtype="F4", shape=(3,), end=2)}, b"12"), None),
    "trailing text": (file_bytes(json.dumps({"a": tensor()}).encode() + b"x", b"1234"), None),
    "not UTF-8": (file_bytes(b'{"\xff": {"dtype":"U8","shape":[4],"data_offsets":[0,4]}}', b"1234"), None),
    "not an object": (file_bytes(b"[]", b""), None),
    "cut off": (file_bytes({"a": tensor()}, b"12"), None),
    "header longer than the file": (struct.pack("<Q", 1000) + b"{}", None),
    "header above the cap": (struct.pack("<Q", 100_000_001) + b"{}", None),
    "duplicate name": (file_bytes(b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},'
                                  b'"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}', b"1234"),
                       "the official library lets the last one win; a stranger's file may mean to hide the first"),
}
for name, bits in DTYPES.items():
    CASES[f"dtype {name}"] = (file_bytes({"a": tensor(dtype=name, shape=(8,), end=bits)}, bytes(bits)), None)


def official_accepts(content):
    try:
        deserialize(content)
        return True
    except SafetensorError:
        return False


def quantport_accepts(content):
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/model.safetensors", "wb") as f:
            f.write(content)
        result = subprocess.run([PROGRAM, "inspect", folder], capture_output=True, text=True)
        assert result.returncode in (0, 1), result.stderr
        return result.returncode == 0


class HeadersTest(unittest.TestCase):
    def test_both_libraries_agree(self):
        for name, (content, stricter) in CASES.items():
            with self.subTest(name):
                official, ours = official_accepts(content), quantport_accepts(content)
                if stricter:
                    self.assertTrue(official and not ours, stricter)
                else:
                    self.assertEqual(ours, official)


if __name__ == "__main__":
    unittest.main()
