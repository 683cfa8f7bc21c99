"""Recipes by the names that ModelOpt has for them, and patterns by the names that hubs have for modules."""
import json
import unittest

from program import read_checkpoint, run, write
from quantize_case import QuantizeTest, decoder, weight

EXPERTS, HIDDEN, INNER = 2, 128, 64


def mixtral():
    block = "model.layers.0.block_sparse_moe"
    tensors = [weight(f"{block}.gate.weight", EXPERTS, HIDDEN), weight("model.layers.0.self_attn.o_proj.weight", HIDDEN, HIDDEN)]
    for i in range(EXPERTS):
        tensors += [weight(f"{block}.experts.{i}.w1.weight", INNER, HIDDEN), weight(f"{block}.experts.{i}.w3.weight", INNER, HIDDEN),
                    weight(f"{block}.experts.{i}.w2.weight", HIDDEN, INNER)]
    return tensors


MIXTRAL = {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_hidden_layers": 1, "transformers_version": "5.17.0"}
OWN = """
imports: {{nvfp4: configs/numerics/nvfp4, disabled: configs/ptq/units/default_disabled_quantizers}}
metadata: {{recipe_type: ptq, description: by the hub's names}}
quantize:
  algorithm: max
  quant_cfg:
    - {{quantizer_name: '*', enable: false}}
    - {{quantizer_name: '{}', cfg: {{$import: nvfp4}}}}
    - $import: disabled
"""


class NamesTest(QuantizeTest):
    def plan(self, recipe, *args):
        result = self.quantize("--plan", "--json", *args, recipe=recipe)
        self.assert_done(result)
        report = json.loads(result.stdout)
        return {m["name"]: m["format"] for m in report["modules"]}, report["kv_cache"]

    def test_names_of_modelopts_constants_mean_their_presets(self):
        self.hub(decoder())
        for constant, preset in (("NVFP4_DEFAULT_CFG", "nvfp4"), ("FP8_DEFAULT_CFG", "fp8"), ("W4A16_NVFP4_CFG", "w4a16_nvfp4"),
                                 ("NVFP4_MLP_ONLY_CFG", "nvfp4_mlp_only"), ("FP8_PER_CHANNEL_PER_TOKEN_CFG", "fp8_per_channel_per_token"),
                                 ("NVFP4_FP8_MHA_CONFIG", "nvfp4_fp8_mha")):
            with self.subTest(constant):
                self.assertEqual(self.plan(constant), self.plan(f"configs/ptq/presets/model/{preset}"))
        for constant, cache in (("FP8_KV_CFG", "FP8"), ("NVFP4_KV_CFG", "NVFP4")):
            self.assertEqual(self.plan("w4a16_nvfp4", "--kv-cache", constant)[1], cache)
        self.assert_fails(self.quantize(recipe="NVFP4_NOTHING_CFG"), "no recipe or file of that name")

    def test_recipes_for_training_and_for_models_go_by_their_paths(self):
        self.hub(decoder())
        self.assertEqual(self.plan("qad/nvfp4_default-kv_fp8"), self.plan("nvfp4_default-kv_fp8"))
        self.assertEqual(self.plan("huggingface/nemotron_vl/ptq/nvfp4-kv_fp8_cast"), self.plan("nvfp4_default-kv_fp8_cast"))
        listed = run("quantize", "--list-recipes").stdout
        for name in ("qad/nvfp4_default-kv_fp8", "huggingface/vit/ptq/fp8", "models/stepfun-ai/Step-3.5-Flash/ptq/nvfp4-mlp-only"):
            self.assertIn(f"  {name}  ", listed)
        self.assertNotIn("disabled_quantizers", listed)

    def test_searches_over_the_running_model_are_refused_by_their_type(self):
        self.hub(decoder())
        for name in ("general/auto_quantize/nvfp4_fp8_at_5p4bits", "auto_quantize/nvfp4_fp8_at_5p4bits", "speculative_decoding/eagle3"):
            self.assert_fails(self.quantize(recipe=name), f"a recipe of type {name.split('/')[-2]}, which needs the model to run")
        write(self.path("auto.yaml"), b"""
# modelopt-schema: modelopt.recipe.config.ModelOptAutoQuantizeRecipe
imports: {layers: configs/auto_quantize/units/base_disabled_layers}
metadata: {recipe_type: auto_quantize, description: of a type that is not known here}
auto_quantize: {disabled_layers: [{$import: layers}]}
""")
        self.assert_fails(self.quantize(recipe=self.path("auto.yaml")), "a recipe of type auto_quantize, which needs the model to run")

    def own(self, pattern):
        write(self.path("own.yaml"), OWN.format(pattern).encode())
        return self.path("own.yaml")

    def test_a_pattern_for_the_hubs_names_finds_modules_that_are_called_otherwise_in_memory(self):
        self.hub(mixtral(), MIXTRAL)
        for pattern in ("*block_sparse_moe.experts.*weight_quantizer", "*experts.*.w[123].weight_quantizer", "*experts.*.w*_weight_quantizer"):
            with self.subTest(pattern):
                formats, _ = self.plan(self.own(pattern))
                self.assertEqual({name for name, format in formats.items() if format}, {"model.layers.0.mlp.experts"})
        result = self.quantize(recipe=self.own("*block_sparse_moe.experts.*weight_quantizer"))
        self.assert_done(result)
        self.assertIn("matched with the hub's names (1: *block_sparse_moe.experts.*weight_quantizer)", result.stderr)
        self.assertEqual(read_checkpoint(self.path("out"))["model.layers.0.block_sparse_moe.experts.1.w2.weight"][0], "U8")

    def test_a_pattern_that_fits_a_name_in_memory_is_left_at_that(self):
        self.hub(mixtral() + [weight("model.layers.0.other.w1.weight", INNER, HIDDEN)], MIXTRAL)
        formats, _ = self.plan(self.own("*.w1.weight_quantizer"))
        self.assertEqual([name for name, format in formats.items() if format], ["model.layers.0.other.w1"])

    def test_a_pattern_for_a_part_of_what_the_hub_has_for_a_matrix_is_no_match(self):
        self.hub(mixtral(), MIXTRAL)
        self.assert_fails(self.quantize(recipe=self.own("*.w1.weight_quantizer")), "would quantize no weight of this model")

    def test_modelopts_own_rules_are_matched_as_there(self):
        self.hub([*mixtral(), weight("model.layers.0.block_sparse_moe.shared_experts.up_proj.weight", INNER, HIDDEN)], MIXTRAL)
        formats, _ = self.plan("nvfp4_experts_only", "--kv-cache", "none")
        self.assertFalse(formats["model.layers.0.mlp.shared_experts.up_proj"])


if __name__ == "__main__":
    unittest.main()
