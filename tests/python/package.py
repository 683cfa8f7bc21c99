"""What the tests of the Python package have in common: the sample, temporary folders, and the program to compare with."""
import json
import os
import struct
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAM = os.environ["QUANTPORT"]
SAMPLE = f"{ROOT}/samples/minimax-m3-tiny"
EXPORT, HUB = f"{SAMPLE}/export", f"{SAMPLE}/hub"
RECIPE = "nvfp4_weight_only-kv_fp8_cast"


class PackageTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="quantport-python-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def program(self, *arguments):
        """The finished program, with text output."""
        return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, timeout=120)

    def program_json(self, *arguments):
        """What the program prints with --json."""
        return json.loads(self.program(*arguments, "--json").stdout)

    def python(self, code, *arguments, **options):
        """The finished interpreter, with text output."""
        return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, **options)


def write_large_checkpoint(folder, size):
    """A checkpoint whose one tensor of `size` bytes is a hole: quickly made, but not quickly copied."""
    os.makedirs(folder)
    with open(f"{folder}/config.json", "w", encoding="utf-8") as f:
        json.dump({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "transformers_version": "5.17.0"}, f)
    tensor = {"dtype": "BF16", "shape": [size // 2048, 1024], "data_offsets": [0, size]}
    header = json.dumps({"model.embed_tokens.weight": tensor}).encode()
    header += b" " * (-len(header) % 8)
    with open(f"{folder}/model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(header)) + header)
        f.truncate(8 + len(header) + size)
