"""What `quantport quantize` writes gives the logits of ModelOpt's own quantized model, and a wrong scale or expert does not.

ModelOpt's model runs twice: with the hub's weights, which its quantizers quantize on the way, and with the weights that
`quantport dequantize` reads out of quantport's result, weight quantizers off. Activations are quantized alike.
"""
import os
import sys
import tempfile
import unittest

import torch
from safetensors.torch import load_file, save_file

from fake_quantized import DEVICE, FakeQuantized, distance, load, state_dtype, write_live_hub
from program import run

MODELS = ("llama", "qwen3_moe", "mixtral", "deepseek_v3", "minimax_m3", "llama4", "gpt_oss")
TWICE_ROUNDED = ("fp8", "fp8_default-kv_fp8")
BLOCKS = ("nvfp4_default-kv_fp8_cast", "w4a16_nvfp4", "nvfp4_mlp_only-kv_fp8_cast", "nvfp4_experts_only-kv_fp8_cast",
          "w4a8_nvfp4_fp8", "mxfp8", "mxfp4")
DIVIDED = ("fp8_per_channel_per_token", "fp8_2d_blockwise_weight_only", "int8_weight_only", "int8",
           "int4_blockwise_weight_only")
SKIPPED = {("llama", "nvfp4_experts_only-kv_fp8_cast"): "no experts",
           ("deepseek_v3", "fp8_2d_blockwise_weight_only"): "ModelOpt fails",
           ("minimax_m3", "int4_blockwise_weight_only"): "ModelOpt fails"}
for batched in ("llama4", "gpt_oss"):
    SKIPPED |= {(batched, recipe): "refused" for recipe in DIVIDED}
    SKIPPED |= {(batched, recipe): "ModelOpt's export has blocks along the outputs, its fake quantization along the inputs"
                for recipe in ("w4a8_nvfp4_fp8", "mxfp4")}
F32, BF16 = 2.0 ** -22, 2.0 ** -9
MARGIN = 4  # three tries do not find the worst
TRIES = range(3)


class Case:
    """One model and recipe: both models' logits, and how far rounding may part them."""

    def __init__(self, folder, model, recipe, dtype=torch.bfloat16):
        self.model, self.recipe, self.dtype, self.folder = model, recipe, dtype, folder
        self.hub, self.out = f"{folder}/{model}-{recipe}-hub", f"{folder}/{model}-{recipe}"
        write_live_hub(model, self.hub, dtype)
        self.theirs = FakeQuantized(model, self.hub, recipe)
        save_file(self.theirs.amax, f"{folder}/calibration.safetensors")
        self.run("quantize", self.hub, "-o", self.out, "--recipe", recipe, "--calibration", f"{folder}/calibration.safetensors")
        state_dtype(self.out, torch.float32)

    @staticmethod
    def run(*args):
        result = run(*args)
        assert result.returncode == 0, result.stderr

    def weights(self, out=None):
        """The result's, as transformers loads them once they are dequantized."""
        out = out or self.out
        plain = tempfile.mkdtemp(dir=self.folder)
        self.run("dequantize", out, "-o", plain)
        return {name: weight.detach() for name, weight in load(self.model, plain).named_parameters()}

    def tolerance(self, weights):
        """What rounding does to a model's logits, measured: its weights are moved by as much as two computations may differ.

        - Where weights are dequantized in F32 from the same codes, by two roundings of F32: of the scales and of the product.
        - Fake quantization multiplies by the inverse of what the exporter divides by. Where quotients lie on the edge between
          two codes, as those of BF16 numbers often do, F32's rounding decides: hub weights are moved by two of those.
        - An FP8 scale without dimensions leaves the exporter's quotient in the weight's type, which rounds twice: for a
          hub in BF16 by half of its unit.
        """
        ours, theirs = self.theirs.logits_with(weights), self.theirs.logits()
        apart = [distance(ours, self.theirs.logits_with(weights, F32, seed)) for seed in TRIES]
        by = 0
        if self.recipe in TWICE_ROUNDED:
            by = BF16 if self.dtype == torch.bfloat16 else F32
        elif self.recipe in DIVIDED or DEVICE != "cpu":
            by = F32
        if by:
            apart += [distance(theirs, self.theirs.logits(by, seed)) for seed in TRIES]
        return MARGIN * max(apart)


def with_scale(tensors, change):
    """The tensors with one linear's scales changed."""
    modules = sorted(name.removesuffix(".weight_scale") for name in tensors if name.endswith(".weight_scale"))
    module = next(name for name in modules if name.endswith(("down_proj", "w2")))
    leaf = "weight_scale_2" if f"{module}.weight_scale_2" in tensors else "weight_scale"
    return tensors | {f"{module}.{leaf}": change(tensors[f"{module}.{leaf}"])}


def doubled(scale):
    return scale + 1 if scale.dtype == torch.uint8 else scale * 2


def next_code(tensors):
    """One scale of one block is the next larger number of its type."""
    name = next(name for name in sorted(tensors) if name.endswith("down_proj.weight_scale") or name.endswith("w2.weight_scale"))
    codes = tensors[name].view(torch.uint8).clone()
    codes[0, 0] += 1
    return tensors | {name: codes.view(tensors[name].dtype)}


def swapped_experts(tensors):
    """The first two experts of every layer in each other's place."""
    def other(name):
        return name.replace(".experts.0.", ".experts.#.").replace(".experts.1.", ".experts.0.").replace(".experts.#.",
                                                                                                      ".experts.1.")
    return {other(name): tensor for name, tensor in tensors.items()}


class QuantizeConformanceTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="quantport-conformance-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def assert_alike(self, case):
        weights, theirs = case.weights(), case.theirs
        activations = theirs.quantizers(of_weights=False)
        # Rounding an activation shows differences that are far below its step at random, and hides others.
        for off in ([], activations) if activations else ([],):
            with self.subTest(model=case.model, recipe=case.recipe, dtype=case.dtype, off=len(off)), theirs.without(off):
                expected = theirs.logits()
                apart = distance(expected, theirs.logits_with(weights))
                tolerance = case.tolerance(weights)
                if "-v" in sys.argv:
                    print(f"{case.model} {case.recipe}: {apart:.1e} apart, at most {tolerance:.1e}", flush=True)
                self.assertLessEqual(apart, tolerance)
                # And not because quantizing changes nothing.
                self.assertGreater(distance(expected, theirs.logits_with(theirs.weights)), 0)

    def test_dequantized_weights_give_the_logits_of_modelopts_fake_quantized_model(self):
        for model in MODELS:
            for recipe in (*BLOCKS, *DIVIDED, *TWICE_ROUNDED):
                if (model, recipe) not in SKIPPED:
                    self.assert_alike(Case(self.folder, model, recipe))

    def test_fp8_of_a_hub_in_f32_is_held_as_closely_as_other_formats(self):
        for model in MODELS:
            self.assert_alike(Case(self.folder, model, "fp8", torch.float32))

    def assert_noticed(self, case, what, change):
        """That the weights of a changed result are too far from ModelOpt's."""
        theirs = case.theirs
        broken = tempfile.mkdtemp(dir=self.folder)
        for name in ("config.json", "hf_quant_config.json"):
            os.link(f"{case.out}/{name}", f"{broken}/{name}")
        save_file(change(load_file(f"{case.out}/model.safetensors")), f"{broken}/model.safetensors", {"format": "pt"})
        with self.subTest(model=case.model, recipe=case.recipe, what=what), theirs.without(theirs.quantizers(of_weights=False)):
            expected = theirs.logits()
            tolerance = case.tolerance(case.weights())
            self.assertGreater(distance(expected, theirs.logits_with(case.weights(broken))), tolerance)

    def test_a_doubled_scale_is_noticed(self):
        for recipe in ("fp8", "fp8_per_channel_per_token", "w4a16_nvfp4", "mxfp8", "mxfp4", "int8_weight_only",
                       "int4_blockwise_weight_only"):
            case = Case(self.folder, "llama", recipe)
            self.assert_noticed(case, "scale", lambda tensors: with_scale(tensors, doubled))

    def test_one_block_scale_that_is_a_code_too_large_is_noticed(self):
        for recipe in ("w4a16_nvfp4", "mxfp8", "mxfp4"):
            self.assert_noticed(Case(self.folder, "llama", recipe), "code", next_code)

    def test_swapped_experts_are_noticed(self):
        for model in ("qwen3_moe", "mixtral", "deepseek_v3", "minimax_m3"):  # whose experts are tensors of their own
            for recipe in ("fp8", "fp8_per_channel_per_token", "nvfp4_experts_only-kv_fp8_cast", "mxfp8", "mxfp4"):
                self.assert_noticed(Case(self.folder, model, recipe), "experts", swapped_experts)


if __name__ == "__main__":
    unittest.main()
