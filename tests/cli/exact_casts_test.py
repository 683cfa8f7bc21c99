"""FP4 with powers of two for scales becomes NVFP4 with the same numbers, where the recipe's scales come from largest magnitudes."""
import json
import unittest

from program import fill, read_checkpoint, run
from quantize_case import QuantizeTest, f32, llama_config, weight

RECIPE = "nvfp4_experts_only_input_scale1-kv_fp8_cast"
EXPERTS, HIDDEN, INNER = 2, 128, 64
MODULES = {f"layers.0.ffn.experts.{i}.{w}": (HIDDEN, INNER) if w == "w2" else (INNER, HIDDEN)
           for i in range(EXPERTS) for w in ("w1", "w2", "w3")}
FP8 = {"quant_method": "fp8", "fmt": "e4m3", "scale_fmt": "ue8m0", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
DEEPSEEK = {"architectures": ["DeepseekV4ForCausalLM"], "model_type": "deepseek_v4", "transformers_version": "5.17.0",
            "hidden_size": HIDDEN, "num_hidden_layers": 1, "n_routed_experts": EXPERTS, "moe_intermediate_size": INNER,
            "vocab_size": 32, "dtype": "bfloat16", "expert_dtype": "fp4", "quantization_config": FP8}
ONE = 127  # the E8M0 code of 2^0
SPAN = 17  # E4M3 has the powers of two from 2^-9 to 2^8


def nonzero(name, count):
    """Codes of two numbers that are no zeros, whose sign NVFP4 does not keep."""
    return bytes(b | 0x11 for b in fill(name, count))


class DeepSeekTest(QuantizeTest):
    def experts(self, powers):
        """A hub whose blocks have the powers that `powers(module, block)` gives; their codes as stored."""
        self.powers = {m: bytes(powers(m, b) for b in range(o * i // 32)) for m, (o, i) in MODULES.items()}
        self.codes = {m: nonzero(m, o * i // 2) for m, (o, i) in MODULES.items()}
        tensors = [weight("embed.weight", 32, HIDDEN), weight("layers.0.ffn.gate.weight", EXPERTS, HIDDEN),
                   weight("layers.0.attn.wq_a.weight", 64, HIDDEN)]
        for module, (o, i) in MODULES.items():
            tensors += [(f"{module}.weight", "I8", [o, i // 2], self.codes[module]),
                        (f"{module}.scale", "F8_E8M0", [o, i // 32], self.powers[module])]
        self.hub(tensors, DEEPSEEK)

    def cast(self, *args):
        result = self.quantize("--json", *args, recipe=RECIPE)
        self.assert_done(result)
        return read_checkpoint(self.path("out")), json.loads(result.stdout)

    def numbers(self, folder):
        out = self.path(f"{folder}-plain")
        self.assert_done(run("dequantize", self.path(folder), "-o", out))
        return {name: data for name, (_, _, data) in read_checkpoint(out).items() if "experts" in name}

    def test_the_codes_stay_and_every_power_becomes_a_scale(self):
        """w1 and w3 have ranges of their own, and one scale of scales."""
        self.experts(lambda module, block: ONE - 9 + block % 5 - (6 if module.endswith("w3") else 0))
        got, report = self.cast()
        for module, powers in self.powers.items():
            self.assertEqual(got[f"{module}.weight"][2], self.codes[module])
            self.assertEqual(f32(got[f"{module}.weight_scale_2"][2]), [2.0 ** (-5 - 8)])
            # E4M3: a power of two has three bits of fraction behind its exponent, whose bias is 7.
            want = bytes((power - ONE + 5 + 8 + 7) << 3 for power in powers for _ in range(2))
            self.assertEqual(got[f"{module}.weight_scale"][2], want)
        self.assertEqual(self.numbers("out"), self.numbers("hub"))
        blocks = sum(o * i // 16 for o, i in MODULES.values())
        self.assertEqual([(t["cast_blocks"], t["exact_blocks"], t["sqnr_db"]) for t in report["totals"]], [(blocks, blocks, None)])

    def test_a_block_beyond_e4m3_is_quantized_anew_and_counted(self):
        self.experts(lambda module, block: ONE - SPAN - (module.endswith("0.w1") and block == 3) if block else ONE)
        got, report = self.cast()
        counted = {w["name"]: (w["exact_blocks"], w["cast_blocks"]) for w in report["weights"]}
        for module, (o, i) in MODULES.items():
            blocks = o * i // 16
            self.assertEqual(counted[module], (blocks - 2 * module.endswith("0.w1"), blocks))
        self.assertEqual(got["layers.0.ffn.experts.0.w1.weight_scale"][2][4:10], bytes([1] * 6))  # 2^-9 at least
        text = self.quantize(recipe=RECIPE, out="again")
        self.assert_done(text)
        total = sum(o * i // 16 for o, i in MODULES.values())
        self.assertIn(f"cast to nvfp4 with their own powers of two: {total - 2} of {total} blocks exact (99.", text.stdout)

    def test_the_largest_power_of_either_decides(self):
        """Blocks of w3 are lost to w1's range, which engines fuse with it."""
        self.experts(lambda module, block: ONE - (20 if module.endswith("w3") else 0))
        _, report = self.cast()
        exact = {w["name"][-2:]: w["exact_blocks"] for w in report["weights"]}
        self.assertEqual((exact["w3"], exact["w1"] > 0, exact["w2"] > 0), (0, True, True))

    def test_zeros_have_no_say_in_the_range(self):
        self.experts(lambda module, block: ONE - 30 if block else 0)
        got, report = self.cast()
        self.assertEqual(f32(got["layers.0.ffn.experts.0.w2.weight_scale_2"][2]), [2.0 ** (-30 - 8)])
        self.assertEqual({w["exact_blocks"] == w["cast_blocks"] for w in report["weights"]}, {True})

    def test_a_search_requantizes_and_says_so(self):
        self.experts(lambda module, block: ONE - block % 3)
        result = self.quantize("--json", recipe="nvfp4_experts_only_mse-kv_fp8_cast", out="searched", *self.calibrated())
        self.assert_done(result)
        report = json.loads(result.stdout)
        self.assertEqual({w["cast_blocks"] for w in report["weights"]}, {0})
        (warning,) = [w for w in report["warnings"] if w["id"] == "requantized"]
        self.assertEqual(warning["count"], len(MODULES))
        self.assertIn("the recipe searches for scales", warning["text"])

    def calibrated(self):
        container = "model.layers.0.mlp.experts"
        return "--calibration", self.calibration({f"{container}.{p}.input_amax": 1.0 for p in ("gate_up_proj", "down_proj")})

    def test_powers_that_are_no_numbers_are_refused(self):
        self.experts(lambda module, block: 255 if block == 1 else ONE)
        self.assert_fails(self.quantize(recipe=RECIPE), "layers.0.ffn.experts", "NaN")
        self.assert_nothing_left("out")


class ModelOptTest(QuantizeTest):
    def mxfp4(self, *left):
        """A Llama whose MLP is MXFP4, but for the linears named."""
        tensors, mlp = [], "model.layers.0.mlp"
        for name, (o, i) in {"gate_proj": (64, 128), "up_proj": (64, 128), "down_proj": (128, 64)}.items():
            if name in left:
                tensors.append(weight(f"{mlp}.{name}.weight", o, i))
            else:
                tensors += [(f"{mlp}.{name}.weight", "U8", [o, i // 2], nonzero(name, o * i // 2)),
                            (f"{mlp}.{name}.weight_scale", "U8", [o, i // 32], bytes(120 + b % 7 for b in fill(name, o * i // 32)))]
        return self.hub(tensors, llama_config(quantization_config={
            "quant_method": "modelopt", "quant_algo": "mxfp4", "ignore": [f"{mlp}.{name}" for name in left]}))

    def test_mxfp4_of_modelopt_is_cast_too(self):
        self.mxfp4()
        result = self.quantize("--json")
        self.assert_done(result)
        self.assertEqual({w["exact_blocks"] for w in json.loads(result.stdout)["weights"]}, {64 * 128 // 16})
        for folder in ("hub", "out"):
            self.assert_done(run("dequantize", self.path(folder), "-o", self.path(f"{folder}-plain")))
        self.assertEqual(*(read_checkpoint(self.path(f"{folder}-plain")) for folder in ("hub", "out")))

    def test_a_weight_that_shares_its_scale_with_a_plain_one_is_quantized_anew(self):
        self.mxfp4("up_proj")
        result = self.quantize("--json")
        self.assert_done(result)
        report = json.loads(result.stdout)
        cast = {w["name"].rsplit(".", 1)[1]: w["cast_blocks"] > 0 for w in report["weights"]}
        self.assertEqual(cast, {"gate_proj": False, "up_proj": False, "down_proj": True})
        (warning,) = [w for w in report["warnings"] if w["id"] == "requantized"]
        self.assertEqual(warning["names"], ["model.layers.0.mlp.gate_proj"])


if __name__ == "__main__":
    unittest.main()
