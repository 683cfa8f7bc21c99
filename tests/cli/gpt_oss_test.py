"""MXFP4 of gpt-oss is written in its own form, experts in `_blocks` and `_scales`, which is the only one that engines load."""
import json
import os
import random
import unittest

from program import read_checkpoint, run
from quantize_case import QuantizeTest, to_bf16, weight

EXPERTS, HIDDEN, INNER, LAYERS = 2, 128, 96, 2
CONFIG = {"architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "transformers_version": "5.17.0", "hidden_size": HIDDEN,
          "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_local_experts": EXPERTS, "num_attention_heads": 4,
          "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 64, "dtype": "bfloat16"}
PUBLISHED = {"quant_method": "mxfp4", "modules_to_not_convert": [
    "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]}
SHAPES = {"gate_up_proj": (2 * INNER, HIDDEN), "down_proj": (HIDDEN, INNER)}


def container(layer):
    return f"model.layers.{layer}.mlp.experts"


def others():
    tensors = [weight("model.embed_tokens.weight", 64, HIDDEN), weight("lm_head.weight", 64, HIDDEN)]
    for layer in range(LAYERS):
        block = f"model.layers.{layer}"
        tensors += [weight(f"{block}.self_attn.{p}_proj.weight", HIDDEN, HIDDEN) for p in "qo"]
        tensors += [weight(f"{block}.self_attn.{p}_proj.weight", 64, HIDDEN) for p in "kv"]
        tensors += [weight(f"{block}.mlp.router.weight", EXPERTS, HIDDEN), weight(f"{block}.mlp.router.bias", EXPERTS),
                    weight(f"{container(layer)}.gate_up_proj_bias", EXPERTS, 2 * INNER),
                    weight(f"{container(layer)}.down_proj_bias", EXPERTS, HIDDEN)]
    return tensors


def blocks(name, outputs, inputs):
    """As OpenAI's quantizer gives them: the largest of a block is 4 or 6, all else any code, zeros of both signs as well."""
    source, count = random.Random(name), EXPERTS * outputs * inputs // 32
    codes = bytearray(source.randbytes(16 * count))
    codes[::16] = bytes(source.choice((0x67, 0xF6, 0x7E)) for _ in range(count))
    return [(f"{name}_blocks", "U8", [EXPERTS, outputs, inputs // 32, 16], bytes(codes)),
            (f"{name}_scales", "U8", [EXPERTS, outputs, inputs // 32], bytes(source.choices(range(100, 130), k=count)))]


def published():
    return others() + [t for layer in range(LAYERS) for p, shape in SHAPES.items() for t in blocks(f"{container(layer)}.{p}", *shape)]


class GptOssTest(QuantizeTest):
    def config(self, folder):
        with open(self.path(f"{folder}/config.json"), encoding="utf-8") as f:
            return json.load(f)

    def plain(self, folder, out):
        self.assert_done(run("dequantize", self.path(folder), "-o", self.path(out)))
        return read_checkpoint(self.path(out))

    def test_dequantized_and_quantized_again_it_has_the_hubs_bytes_and_config(self):
        hub = published()
        self.hub(hub, {**CONFIG, "quantization_config": PUBLISHED})
        plain = self.plain("hub", "plain")
        self.assertEqual(plain[f"{container(0)}.gate_up_proj"][:2], ("BF16", [EXPERTS, HIDDEN, 2 * INNER]))
        got = self.quantized(model="plain", recipe="mxfp4_mlp_weight_only")
        self.assertEqual(got, {name: (dtype, shape, data) for name, dtype, shape, data in hub})
        written = self.config("out")["quantization_config"]
        self.assertEqual(sorted(written.pop("modules_to_not_convert")), sorted(PUBLISHED["modules_to_not_convert"]))
        self.assertEqual(written, {"quant_method": "mxfp4"})
        self.assertNotIn("hf_quant_config.json", os.listdir(self.path("out")))
        self.assertEqual(self.plain("out", "again"), plain)

    def test_its_own_form_is_taken_as_it_is(self):
        """Without a detour over BF16, and with threads and stretches as they come."""
        hub = published()
        self.hub(hub, {**CONFIG, "quantization_config": PUBLISHED})
        self.assertEqual(self.quantized(recipe="mxfp4_mlp_weight_only"), {n: (d, s, b) for n, d, s, b in hub})

    def test_a_recipe_for_all_linears_leaves_those_that_the_form_has_not(self):
        self.hub(published(), {**CONFIG, "quantization_config": PUBLISHED})
        self.plain("hub", "plain")
        result = self.quantize("--json", model="plain", recipe="mxfp4")
        self.assert_done(result)
        (warning,) = [w for w in json.loads(result.stdout)["warnings"] if w["id"] == "left-unquantized"]
        self.assertEqual(warning["count"], 4 * LAYERS)
        self.assertEqual(read_checkpoint(self.path("out")), read_checkpoint(self.path("hub")))

    def test_verify_finds_nothing(self):
        self.hub(published(), {**CONFIG, "quantization_config": PUBLISHED})
        self.plain("hub", "plain")
        self.quantized(model="plain", recipe="mxfp4_mlp_weight_only")
        self.assert_done(run("verify", self.path("out"), "--reference", self.path("hub")))

    def test_numbers_between_codes_round_to_the_nearest(self):
        """Blocks run along the inputs, of which each has a row of the parameter."""
        numbers = [1.0, 0.24, 0.26, 6.0] + [0.0] * 28
        matrix = []
        for value in numbers:
            matrix += [value] * (2 * 32)
        data = to_bf16(matrix)
        tensors = others()[:2] + [("model.layers.0.mlp.experts.gate_up_proj", "BF16", [1, 32, 64], data),
                                  ("model.layers.0.mlp.experts.down_proj", "BF16", [1, 32, 32], to_bf16([0.0] * 32 * 32))]
        self.hub(tensors, {**CONFIG, "num_hidden_layers": 1, "num_local_experts": 1, "hidden_size": 32, "intermediate_size": 32})
        got = self.quantized(recipe="mxfp4_mlp_weight_only")
        row = bytes([0x02, 0x71]) + bytes(14)
        self.assertEqual(got["model.layers.0.mlp.experts.gate_up_proj_blocks"], ("U8", [1, 64, 1, 16], row * 64))
        self.assertEqual(got["model.layers.0.mlp.experts.gate_up_proj_scales"], ("U8", [1, 64, 1], bytes([127]) * 64))

    def test_what_its_config_can_not_say_is_refused(self):
        self.hub(published(), {**CONFIG, "quantization_config": PUBLISHED})
        self.assert_fails(self.quantize("--kv-cache", "fp8_cast", recipe="mxfp4_mlp_weight_only"), "the KV cache is FP8")
        self.assert_nothing_left("out")


if __name__ == "__main__":
    unittest.main()
