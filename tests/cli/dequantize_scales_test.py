"""quantport dequantize and quantize on scales of every type and of one number: read as what they are, or refused."""
import os
import shutil
import struct
import unittest

from program import read_checkpoint, run
from quantize_case import QuantizeTest, f32, llama_config

ROWS, COLUMNS = 64, 128
MODULE = "model.layers.0.self_attn.q_proj"
CODES = bytes((7 * i + i // COLUMNS) % 256 for i in range(ROWS * COLUMNS))
# What follows in the file: read as scales, it would show.
GUARD = ("model.norm.weight", "F32", [4096], struct.pack("<f", 1000.0) * 4096)
INT8_TENSOR = {"quant_method": "compressed-tensors", "format": "int-quantized", "quantization_status": "compressed",
               "ignore": [], "config_groups": {"group_0": {"targets": ["Linear"], "input_activations": None, "weights": {
                   "num_bits": 8, "type": "int", "symmetric": True, "strategy": "tensor", "dynamic": False}}}}
FP8 = {"quant_method": "modelopt", "quant_algo": "FP8", "ignore": [], "config_groups": {"group_0": {
    "targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "dynamic": False},
    "input_activations": {"num_bits": 8, "type": "float", "dynamic": False}}}}


def e4m3(code):
    exponent, mantissa = code >> 3 & 15, code & 7
    value = mantissa * 2.0 ** -9 if exponent == 0 else (8 + mantissa) * 2.0 ** (exponent - 10)
    return -value if code & 128 else value


class ScalesTest(QuantizeTest):
    def export(self, quantization, value, scale):
        """A module of one value tensor and a scale given as (dtype, shape, bytes)."""
        config = llama_config(quantization_config=quantization)
        config.update(torch_dtype="float32", hidden_size=COLUMNS)
        self.hub([(f"{MODULE}.weight", value, [ROWS, COLUMNS], bytes(code & 0x7E for code in CODES) if value != "I8" else CODES),
                  (f"{MODULE}.weight_scale", *scale), GUARD], config, name="export")

    def dequantize(self):
        shutil.rmtree(self.path("plain"), ignore_errors=True)
        return run("dequantize", self.path("export"), "-o", self.path("plain"))

    def test_one_scale_of_int8_is_that_of_every_row(self):
        expected = [code - 256 if code > 127 else code for code in CODES]
        for dtype, data in (("F32", struct.pack("<f", 0.0078125)), ("BF16", b"\x00\x3c"), ("F16", b"\x00\x20")):
            for shape in ([1], []):
                with self.subTest(dtype=dtype, shape=shape):
                    self.export(INT8_TENSOR, "I8", (dtype, shape, data))
                    self.assert_done(self.dequantize())
                    plain = read_checkpoint(self.path("plain"))[f"{MODULE}.weight"]
                    self.assertEqual(plain[:2], ("F32", [ROWS, COLUMNS]))
                    self.assertEqual(f32(plain[2]), [value / 128 for value in expected])

    def test_one_scale_of_int8_is_that_of_every_row_when_it_is_quantized_again(self):
        self.export(INT8_TENSOR, "I8", ("F32", [1], struct.pack("<f", 0.01)))
        again = self.quantized(model="export", recipe="int8_weight_only")
        for scale in f32(again[f"{MODULE}.weight_scale"][2]):
            self.assertAlmostEqual(scale, 0.01, delta=0.0002)

    def test_scales_of_every_float_that_producers_write_are_read_as_it(self):
        expected = [e4m3(code & 0x7E) / 128 for code in CODES]
        for dtype, data in (("F32", struct.pack("<f", 0.0078125)), ("BF16", b"\x00\x3c"), ("F16", b"\x00\x20"),
                            ("F8_E8M0", b"\x78")):
            for shape, count in (([], 1), ([ROWS], ROWS)):
                with self.subTest(dtype=dtype, shape=shape):
                    self.export(FP8, "F8_E4M3", (dtype, shape, data * count))
                    self.assert_done(self.dequantize())
                    self.assertEqual(f32(read_checkpoint(self.path("plain"))[f"{MODULE}.weight"][2]), expected)

    def test_scales_of_any_other_type_are_refused_by_name(self):
        for dtype, size in (("F64", 8), ("I64", 8), ("U64", 8), ("I32", 4), ("U32", 4), ("I16", 2), ("U16", 2), ("U8", 1), ("I8", 1)):
            for shape, count in (([], 1), ([ROWS], ROWS)):
                with self.subTest(dtype=dtype, shape=shape):
                    self.export(FP8, "F8_E4M3", (dtype, shape, bytes(range(1, size + 1)) * count))
                    for result in (self.dequantize(), self.quantize(model="export", recipe="int8_weight_only")):
                        self.assertEqual(result.returncode, 1, result)
                        self.assertIn(f"{MODULE}.weight", result.stderr)
                        self.assertIn("weight_scale is", result.stderr)
                    self.assertFalse(os.path.exists(self.path("plain")))
                    self.assertFalse(os.path.exists(self.path("out")))

    def test_fp4_experts_beside_fine_grained_fp8_are_read(self):
        """DeepSeek's: two E2M1 values in an I8, the first in the low half, in blocks of 32."""
        numbers = (0, 0.5, 1, 1.5, 2, 3, 4, 6)
        config = llama_config(quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"})
        config.update(torch_dtype="float32", hidden_size=2 * COLUMNS)
        powers = bytes(120 + i % 10 for i in range(ROWS * COLUMNS // 16))
        self.hub([(f"{MODULE}.weight", "I8", [ROWS, COLUMNS], CODES),
                  (f"{MODULE}.weight_scale_inv", "F8_E8M0", [ROWS, COLUMNS // 16], powers), GUARD], config, name="export")
        self.assert_done(self.dequantize())
        expected = []
        for i, byte in enumerate(CODES):
            for code in (byte & 15, byte >> 4):
                expected.append(numbers[code & 7] * 2.0 ** (powers[i // 16] - 127) * (-1 if code & 8 else 1))
        plain = read_checkpoint(self.path("plain"))[f"{MODULE}.weight"]
        self.assertEqual(plain[:2], ("F32", [ROWS, 2 * COLUMNS]))
        self.assertEqual(f32(plain[2]), expected)


if __name__ == "__main__":
    unittest.main()
