"""`quantport dequantize` against compressed-tensors' own decompression and transformers', on tests/golden/layouts."""
import json
import os
import shutil
import sys
import tempfile
import unittest

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.entrypoints.convert.converters.autoawq import AutoAWQConverter
from compressed_tensors.quantization import QuantizationConfig
from safetensors.torch import load_file
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.append(f"{ROOT}/tests/cli")
from program import run  # noqa: E402

LAYOUTS = f"{ROOT}/tests/golden/layouts"


def decompressed(tensors, quantization):
    """{name: tensor} of every module with a scale."""
    (scheme,) = QuantizationConfig.model_validate(quantization).config_groups.values()
    compressor = BaseCompressor.get_value_from_registry(scheme.format or quantization["format"])
    out = {}
    for module in sorted({name.rsplit(".", 1)[0] for name in tensors if name.endswith("weight_scale")}):
        parts = {name.removeprefix(f"{module}."): tensor for name, tensor in tensors.items() if name.startswith(f"{module}.")}
        out[f"{module}.weight"] = compressor.decompress(parts, scheme)["weight"]
    return out


class DequantizeConformanceTest(unittest.TestCase):
    def dequantized(self, name, dtype="bfloat16"):
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(f"{LAYOUTS}/{name}/export", f"{folder}/in")
            with open(f"{folder}/in/config.json", encoding="utf-8") as f:
                config = json.load(f) | {"dtype": dtype}
            with open(f"{folder}/in/config.json", "w", encoding="utf-8") as f:
                json.dump(config, f)
            result = run("dequantize", f"{folder}/in", "-o", f"{folder}/plain")
            self.assertEqual(result.returncode, 0, result.stderr)
            return load_file(f"{folder}/plain/model.safetensors")

    def test_every_format_of_compressed_tensors_is_read_to_the_last_bit(self):
        names = [name for name in sorted(os.listdir(LAYOUTS)) if name.startswith("ct-")]
        self.assertGreater(len(names), 9)
        for name in names:
            with self.subTest(name=name):
                with open(f"{LAYOUTS}/{name}/export/config.json", encoding="utf-8") as f:
                    quantization = json.load(f)["quantization_config"]
                plain = self.dequantized(name)
                expected = decompressed(load_file(f"{LAYOUTS}/{name}/export/model.safetensors"), quantization)
                self.assertEqual(len(expected), 2)
                for key, tensor in expected.items():
                    self.assertTrue(torch.equal(plain[key], tensor), key)

    def test_the_experts_of_gpt_oss_are_those_that_transformers_loads(self):
        tensors, plain = load_file(f"{LAYOUTS}/gpt-oss-mxfp4/export/model.safetensors"), self.dequantized("gpt-oss-mxfp4")
        parameters = [name.removesuffix("_blocks") for name in tensors if name.endswith("_blocks")]
        self.assertGreater(len(parameters), 0)
        for name in parameters:
            loaded = convert_moe_packed_tensors(tensors[f"{name}_blocks"], tensors[f"{name}_scales"])
            self.assertTrue(torch.equal(plain[name], loaded), name)

    def test_autoawq_is_read_as_its_conversion_to_compressed_tensors_is(self):
        converter = AutoAWQConverter(bits=4, group_size=32, targets=["re:.*attn.*"])
        tensors = converter.process(load_file(f"{LAYOUTS}/awq-gemm/export/model.safetensors"))
        expected = decompressed(tensors, converter.update_config(None).model_dump())
        plain = self.dequantized("awq-gemm", "float16")  # the type of AutoAWQ's scales
        self.assertEqual(len(expected), 2)
        for key, tensor in expected.items():
            self.assertTrue(torch.equal(plain[key], tensor), key)


if __name__ == "__main__":
    unittest.main()
