"""quantport dequantize: codes times scales, in the type that config.json states."""
import json
import os
import unittest

from program import read_checkpoint, run
from quantize_case import QuantizeTest, bf16, decoder, f32


class DequantizeTest(QuantizeTest):
    # The largest error of a weight against its block's, row's or tensor's largest magnitude: half a step of the format,
    # and for NVFP4 what rounding the block's scale to E4M3 adds.
    BOUNDS = {"w4a16_nvfp4": 0.2, "mxfp4": 0.34, "mxfp8": 0.07, "fp8_per_channel_per_token": 0.04,
              "fp8_2d_blockwise_weight_only": 0.04, "int8_weight_only": 0.006, "int4_blockwise_weight_only": 0.08}

    def test_dequantizing_what_was_quantized_stays_within_half_a_step(self):
        tensors = decoder()
        self.hub(tensors)
        before = {name: (shape, data) for name, _, shape, data in tensors}
        for recipe, bound in self.BOUNDS.items():
            self.quantized(recipe=recipe, out=recipe)
            self.assert_done(run("dequantize", self.path(recipe), "-o", self.path(f"{recipe}-plain")))
            after = read_checkpoint(self.path(f"{recipe}-plain"))
            self.assertEqual(sorted(after), sorted(before), recipe)
            for name, (shape, data) in before.items():
                self.assertEqual(after[name][:2], ("BF16", shape))
                a, b = bf16(data), bf16(after[name][2])
                worst = max(abs(x - y) for x, y in zip(a, b)) / max(map(abs, a))
                self.assertLessEqual(worst, bound, f"{recipe} {name}")
            self.assertNotIn("hf_quant_config.json", os.listdir(self.path(f"{recipe}-plain")))

    def test_numbers_have_the_type_that_the_config_states(self):
        self.hub(decoder())
        self.quantized(recipe="w4a16_nvfp4", out="quantized")
        name = "model.layers.0.mlp.down_proj.weight"
        for key, stated, dtype in (("torch_dtype", "bfloat16", "BF16"), ("dtype", "float16", "F16"), ("dtype", "float32", "F32")):
            with open(self.path("quantized/config.json"), encoding="utf-8") as f:
                config = json.load(f)
            config.pop("torch_dtype", None)
            with open(self.path("quantized/config.json"), "w", encoding="utf-8") as f:
                json.dump(config | {key: stated}, f)
            self.assert_done(run("dequantize", self.path("quantized"), "-o", self.path(stated)))
            after = read_checkpoint(self.path(stated))
            self.assertEqual(after[name][0], dtype)
            self.assertEqual(after["model.norm.weight"][0], "BF16")
        rounded = bf16(read_checkpoint(self.path("bfloat16"))[name][2])
        for exact, near in zip(f32(read_checkpoint(self.path("float32"))[name][2]), rounded):
            self.assertAlmostEqual(exact, near, delta=abs(exact) / 256)

    def test_quantizing_dequantized_weights_again_gives_the_same_codes(self):
        self.hub(decoder())
        for recipe in ("mxfp4", "mxfp8"):
            first = self.quantized(recipe=recipe, out=recipe)
            self.assert_done(run("dequantize", self.path(recipe), "-o", self.path(f"{recipe}-plain")))
            again = self.quantized(model=f"{recipe}-plain", recipe=recipe, out=f"{recipe}-again")
            self.assertEqual(sorted(first), sorted(again))


if __name__ == "__main__":
    unittest.main()
