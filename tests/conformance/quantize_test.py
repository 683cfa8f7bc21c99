"""What `quantport quantize` writes is what ModelOpt's own quantized model computes with: logits, and ModelOpt's own reader."""
import os
import sys
import tempfile
import unittest

import torch
from safetensors.torch import load_file

import modelopt.torch.quantization as mtq
from modelopt.torch.opt.config_loader import load_config
from modelopt.torch.quantization.config import QuantizeConfig
from modelopt.torch.quantization.qtensor import MXFP8QTensor, NVFP4QTensor

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path += [f"{ROOT}/tests/cli", f"{ROOT}/tools"]

import quantize_golden_models as tiny  # noqa: E402
from hub_models import write_hub  # noqa: E402
from program import run  # noqa: E402

TOKENS = torch.arange(48, dtype=torch.int64).reshape(2, 24) * 11 % 61
# Weight-only recipes, so that a plain model with dequantized weights computes the same. ModelOpt's own fake quantization
# of NVFP4 needs CUDA; its reader below does not.
RECIPES = ("int8_weight_only", "fp8_2d_blockwise_weight_only")


def logits(model):
    with torch.no_grad():
        return model(input_ids=TOKENS).logits.float()


def quantize_config(recipe):
    return load_config(f"configs/ptq/presets/model/{recipe}", schema_type=QuantizeConfig)


class QuantizeConformanceTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="quantport-conformance-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def run_done(self, *args):
        result = run(*args)
        self.assertEqual(result.returncode, 0, result.stderr)

    def quantized(self, model, recipe):
        out = f"{self.folder}/{model}-{recipe}"
        self.run_done("quantize", self.hub(model), "-o", out, "--recipe", recipe)
        return out

    def hub(self, model):
        folder = f"{self.folder}/{model}"
        if not os.path.exists(folder):
            write_hub(model, folder)
        return folder

    def test_dequantized_weights_give_the_logits_of_modelopts_fake_quantized_model(self):
        for model in ("llama", "qwen3_moe"):
            for recipe in RECIPES:
                with self.subTest(model=model, recipe=recipe):
                    out = self.quantized(model, recipe)
                    self.run_done("dequantize", out, "-o", f"{out}-plain")
                    ours = logits(tiny.load(model, f"{out}-plain"))
                    original = tiny.load(model, f"{self.folder}/{model}")
                    plain = logits(original)
                    theirs = logits(mtq.quantize(original, quantize_config(recipe), forward_loop=logits))
                    scale = plain.abs().max()
                    self.assertLess(((ours - theirs).abs().max() / scale).item(), 0.02)
                    # And not because quantizing changes nothing.
                    self.assertGreater((theirs - plain).abs().max().item(), 0)

    def test_modelopts_own_tensor_classes_read_the_tensors(self):
        hub = load_file(f"{self.hub('llama')}/model.safetensors")
        name = "model.layers.0.mlp.down_proj"
        weight = hub[f"{name}.weight"]
        nvfp4 = load_file(f"{self.quantized('llama', 'w4a16_nvfp4')}/model.safetensors")
        tensor = NVFP4QTensor(weight.shape, weight.dtype, nvfp4[f"{name}.weight"])
        read = tensor.dequantize(weight.dtype, scale=nvfp4[f"{name}.weight_scale"],
                                 double_scale=nvfp4[f"{name}.weight_scale_2"], block_sizes={-1: 16})
        self.assert_near(read, weight, 0.2)
        mxfp8 = load_file(f"{self.quantized('llama', 'mxfp8')}/model.safetensors")
        tensor = MXFP8QTensor(weight.shape, weight.dtype, mxfp8[f"{name}.weight"])
        self.assert_near(tensor.dequantize(weight.dtype, scale=mxfp8[f"{name}.weight_scale"], block_sizes={-1: 32}),
                         weight, 0.05)

    def assert_near(self, read, weight, bound):
        error = (read.float() - weight.float()).norm() / weight.float().norm()
        self.assertLess(error.item(), bound)


if __name__ == "__main__":
    unittest.main()
