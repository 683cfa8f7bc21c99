"""The tiny models of tools/quantize_golden_models.py, live: as hub checkpoints, loaded, and exported by ModelOpt."""
import os
import sys
import tempfile
import unittest

import torch

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path += [f"{ROOT}/tests/cli", f"{ROOT}/tools"]

import make_quantize_goldens as goldens  # noqa: E402
import modelopt.torch.quantization as mtq  # noqa: E402
import quantize_golden_models as tiny  # noqa: E402
from modelopt.recipe.loader import load_recipe  # noqa: E402
from modelopt.torch.export import export_hf_checkpoint  # noqa: E402
from program import run  # noqa: E402

torch.set_num_threads(min(2, torch.get_num_threads()))
MIXTURES = ["minimax_m3", "mixtral", "qwen3_moe", "qwen3_vl_moe", "deepseek_v3"]
# Two batches, so that maxima are kept over batches.
BATCHES = [{"input_ids": torch.arange(64, dtype=torch.int64).reshape(2, 32) * 7 % 59},
           {"input_ids": torch.arange(40, dtype=torch.int64).reshape(1, 40) * 11 % 59}]


def run_batches(model):
    for batch in BATCHES:
        model(**{key: value.to(model.device) for key, value in batch.items()})


def quantize_config(recipe):
    return load_recipe(f"general/ptq/{recipe}").quantize if "-kv_" in recipe else goldens.quantize_config(recipe)


class LiveTest(unittest.TestCase):
    """A test with a folder of its own, and hub checkpoints in it."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="quantport-conformance-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def path(self, name):
        return f"{self.folder}/{name}"

    def hub(self, name):
        folder = self.path(f"{name}-hub")
        if not os.path.exists(folder):
            goldens.make_checkpoint(name, folder)
        return folder

    def model(self, name, **how):
        return tiny.load(name, self.hub(name), **how)

    def program(self, *args):
        result = run(*args)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        return result

    def quantized_model(self, name, recipe):
        """The model as `mtq.quantize` leaves it, calibrated with BATCHES."""
        return mtq.quantize(self.model(name), quantize_config(recipe), forward_loop=run_batches)

    def exported(self, name, recipe):
        """ModelOpt's own export of it."""
        out = self.path(f"{name}-{recipe}-modelopt")
        export_hf_checkpoint(self.quantized_model(name, recipe), export_dir=out)
        return out
