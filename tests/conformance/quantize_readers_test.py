"""What `quantport quantize` writes, read by others: ModelOpt's tensor classes, transformers' loader of FP8, compressed-tensors.

None of them knows ModelOpt's checkpoints by their config (transformers has no quantizer of that name), so leaves are renamed
and scales given the dimensions that each expects; codes and scales stay those that were written. What is read is held to
`quantport dequantize`.
"""
import contextlib
import io
import json
import os
import tempfile
import unittest

import torch
from compressed_tensors.entrypoints.convert import convert_checkpoint
from compressed_tensors.entrypoints.convert.converters.modelopt_nvfp4 import ModelOptNvfp4Converter
from loguru import logger
from safetensors.torch import load_file, save_file
from transformers import CompressedTensorsConfig, FineGrainedFP8Config

from fake_quantized import ROOT, distance, factory, load, logits, state_dtype, write_live_hub
from modelopt.torch.quantization.qtensor import MXFP4QTensor, MXFP8QTensor, NVFP4QTensor
from program import run

MODELS = ("llama", "qwen3_moe", "mixtral", "deepseek_v3", "minimax_m3")
SAMPLE = f"{ROOT}/samples/minimax-m3-tiny/hub"
BF16 = 2.0 ** -9
logger.disable("compressed_tensors")


def linears(tensors):
    """Modules that are quantized, and those that are not."""
    quantized = {name.removesuffix(".weight_scale") for name in tensors if name.endswith(".weight_scale")}
    plain = {name.removesuffix(".weight") for name, tensor in tensors.items() if name.endswith(".weight") and tensor.dim() == 2}
    return sorted(quantized), sorted(plain - quantized)


def read_shards(folder):
    tensors = {}
    for name in os.listdir(folder):
        if name.endswith(".safetensors"):
            tensors |= load_file(f"{folder}/{name}")
    return tensors


def for_transformers(tensors):
    """With the scales of fine-grained FP8: grids called weight_scale_inv, from whose size transformers knows the tiles."""
    out = {}
    for name, tensor in tensors.items():
        if name.endswith(".weight_scale"):
            if tensor.dtype == torch.uint8:
                tensor = tensor.view(torch.float8_e8m0fnu)
            elif tensor.dim() == 4:
                tensor = tensor[:, 0, :, 0]
            out[f"{name}_inv"] = tensor.reshape(-1, 1) if tensor.dim() < 2 else tensor.contiguous()
        elif not name.endswith(".input_scale"):
            out[name] = tensor.view(torch.int8) if tensor.dtype == torch.uint8 else tensor
    return out, {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic",
                 "modules_to_not_convert": ["lm_head"]}


def for_compressed_tensors(tensors, kind):
    """With one scale a row."""
    out = {name: tensor[:, None].contiguous() if name.endswith(".weight_scale") else tensor for name, tensor in tensors.items()}
    weights = {"num_bits": 8, "type": kind, "symmetric": True, "strategy": "channel", "dynamic": False}
    group = {"targets": ["Linear"], "format": f"{kind}-quantized", "weights": weights}
    return out, {"quant_method": "compressed-tensors", "format": f"{kind}-quantized", "quantization_status": "compressed",
                 "ignore": ["lm_head", "re:.*gate$"], "config_groups": {"group_0": group}}


class ReadersTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="quantport-conformance-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def run_done(self, *args):
        result = run(*args)
        self.assertEqual(result.returncode, 0, result.stderr)

    def quantized(self, model, recipe, hub=None):
        if hub is None:
            hub = f"{self.folder}/{model}"
            if not os.path.exists(hub):
                write_live_hub(model, hub)
        out = f"{self.folder}/{os.path.basename(hub)}-{recipe}"
        calibration = f"{ROOT}/tests/golden/quantize/{model}/calibration.safetensors"
        self.run_done("quantize", hub, "-o", out, "--recipe", recipe, "--calibration", calibration)
        state_dtype(out, torch.float32)
        self.run_done("dequantize", out, "-o", f"{out}-plain")
        return out

    def rewritten(self, out, tensors, quantization):
        target = tempfile.mkdtemp(dir=self.folder)
        save_file(tensors, f"{target}/model.safetensors", {"format": "pt"})
        with open(f"{out}/config.json", encoding="utf-8") as f:
            config = json.load(f) | {"quantization_config": quantization}
        if quantization is None:
            del config["quantization_config"]
        with open(f"{target}/config.json", "w", encoding="utf-8") as f:
            json.dump(config, f)
        return target

    def read(self, model, folder, quantization):
        with contextlib.redirect_stderr(io.StringIO()):
            read, info = factory(model).from_pretrained(folder, dtype=torch.float32, quantization_config=quantization,
                                                        output_loading_info=True)
        self.assertEqual({key: value for key, value in info.items() if value}, {})
        return read.float().eval()

    def assert_reads_alike(self, model, out, read, rounding=0):
        ours, theirs = load(model, f"{out}-plain"), dict(read.named_parameters()) | dict(read.named_buffers())
        for name, weight in ours.named_parameters():
            apart = (weight - theirs[name].to(weight)).abs()
            self.assertTrue(bool((apart <= rounding * weight.abs()).all()), name)
        if rounding == 0:
            self.assertEqual(distance(logits(ours), logits(read.to(ours.device))), 0)

    def test_transformers_own_loader_reads_fp8_and_mx_to_the_last_bit(self):
        for model in MODELS:
            for recipe in ("fp8", "fp8_per_channel_per_token", "fp8_2d_blockwise_weight_only", "mxfp8", "mxfp4"):
                if (model, recipe) == ("deepseek_v3", "fp8_2d_blockwise_weight_only"):
                    continue  # transformers divides its 144 rows by the 2 rows of scales, and so has tiles of 72
                with self.subTest(model=model, recipe=recipe):
                    out = self.quantized(model, recipe)
                    folder = self.rewritten(out, *for_transformers(load_file(f"{out}/model.safetensors")))
                    self.assert_reads_alike(model, out, self.read(model, folder, FineGrainedFP8Config(dequantize=True)))

    def test_the_result_of_the_sample_loads_with_transformers(self):
        out = self.quantized("minimax_m3", "fp8_per_channel_per_token", SAMPLE)
        folder = self.rewritten(out, *for_transformers(read_shards(out)))
        self.assert_reads_alike("minimax_m3", out, self.read("minimax_m3", folder, FineGrainedFP8Config(dequantize=True)))

    def test_compressed_tensors_reads_rows_of_int8_and_fp8(self):
        # transformers' expert converters have no INT8, and hand FP8 of experts on in BF16.
        for model, recipe, kind, rounding in [("llama", "int8_weight_only", "int", 0),
                                              ("llama", "fp8_per_channel_per_token", "float", 0),
                                              ("qwen3_moe", "fp8_per_channel_per_token", "float", 2 * BF16),
                                              ("mixtral", "fp8_per_channel_per_token", "float", 2 * BF16),
                                              ("deepseek_v3", "fp8_per_channel_per_token", "float", 2 * BF16)]:
            with self.subTest(model=model, recipe=recipe):
                out = self.quantized(model, recipe)
                folder = self.rewritten(out, *for_compressed_tensors(load_file(f"{out}/model.safetensors"), kind))
                self.assert_reads_alike(model, out, self.read(model, folder, CompressedTensorsConfig(dequantize=True)), rounding)

    def test_compressed_tensors_own_converter_takes_nvfp4(self):
        # transformers reads no experts in NVFP4, so this is a dense model; codes are multiplied by scales in BF16.
        out = self.quantized("llama", "nvfp4_default-kv_fp8_cast")
        tensors = load_file(f"{out}/model.safetensors")
        plain = self.rewritten(out, tensors, None)
        targets, ignore = linears(tensors)
        with contextlib.redirect_stderr(io.StringIO()):
            convert_checkpoint(plain, f"{out}-ct", ModelOptNvfp4Converter(ignore=ignore, targets=targets), max_workers=1)
        self.assert_reads_alike("llama", out, self.read("llama", f"{out}-ct", CompressedTensorsConfig(dequantize=True)), 4 * BF16)

    def test_modelopts_own_tensor_classes_read_every_weight_of_the_sample_and_a_model(self):
        for hub, recipe in ((SAMPLE, "w4a16_nvfp4"), (None, "w4a16_nvfp4"), (None, "mxfp8"), (None, "mxfp4")):
            out = self.quantized("minimax_m3", recipe, hub)
            tensors, plain = read_shards(out), read_shards(f"{out}-plain")
            modules, _ = linears(tensors)
            self.assertGreater(len(modules), 10)
            for module in modules:
                with self.subTest(recipe=recipe, module=module):
                    weight = plain[f"{module}.weight"]
                    codes, scale = tensors[f"{module}.weight"], tensors[f"{module}.weight_scale"]
                    if recipe == "w4a16_nvfp4":
                        read = NVFP4QTensor(weight.shape, weight.dtype, codes).dequantize(
                            weight.dtype, scale=scale, double_scale=tensors[f"{module}.weight_scale_2"], block_sizes={-1: 16})
                    else:
                        tensor_class = MXFP8QTensor if recipe == "mxfp8" else MXFP4QTensor
                        read = tensor_class(weight.shape, weight.dtype, codes).dequantize(weight.dtype, scale=scale,
                                                                                        block_sizes={-1: 32})
                    self.assertTrue(torch.equal(read, weight))


if __name__ == "__main__":
    unittest.main()
