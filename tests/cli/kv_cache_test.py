"""KV caches in `quantize`: which modules have one, and what a recipe that asks for one does to a model without."""
import json
import os
import shutil
import unittest

from exports import bf16, tensor
from program import ROOT, ProgramTest, read_checkpoint, run, write_checkpoint
from quantize_case import QuantizeTest, decoder, f32, weight

CAST = "nvfp4_weight_only-kv_fp8_cast"
NEMOTRON = {"architectures": ["NemotronHForCausalLM"], "model_type": "nemotron_h", "num_hidden_layers": 3}


def nemotron(attention=True):
    """A Mamba layer, and one whose attention is called mixer like it."""
    tensors = [weight("backbone.embeddings.weight", 64, 128), weight("backbone.layers.0.mixer.in_proj.weight", 256, 128),
               weight("backbone.layers.0.mixer.out_proj.weight", 128, 128)]
    if attention:
        tensors += [weight(f"backbone.layers.1.mixer.{name}_proj.weight", 128, 128) for name in "qkvo"]
    return tensors


class KvCacheTest(QuantizeTest):
    def cache(self):
        with open(self.path("out/hf_quant_config.json"), encoding="utf-8") as f:
            return json.load(f)["quantization"]["kv_cache_quant_algo"]

    def attentions(self, *args, recipe=CAST):
        result = self.quantize("--plan", "--json", *args, recipe=recipe)
        self.assert_done(result)
        return [m["name"] for m in json.loads(result.stdout)["modules"] if m["kind"] == "attention"]

    def test_an_attention_under_another_name_has_a_cache(self):
        self.hub(nemotron(), NEMOTRON)
        self.assertEqual(self.attentions(), ["model.layers.1.mixer"])
        self.quantized(recipe=CAST)
        self.assertEqual(self.cache(), "FP8")

    def test_its_scales_stand_below_its_own_projections(self):
        self.hub(nemotron(), NEMOTRON)
        amax = self.calibration({"model.layers.1.mixer.k_amax": 448.0, "model.layers.1.mixer.v_amax": 896.0})
        got = self.quantized("--kv-cache", "fp8", "--calibration", amax, recipe=CAST)
        scales = {name: f32(data) for name, (_, _, data) in got.items() if name.endswith(("k_scale", "v_scale"))}
        self.assertEqual(scales, {"backbone.layers.1.mixer.k_proj.k_scale": [1.0], "backbone.layers.1.mixer.v_proj.v_scale": [2.0]})

    def test_a_module_that_projects_keys_and_values_at_once_has_a_cache(self):
        for linear in ("qkv_proj", "query_key_value", "kv_a_proj_with_mqa", "Wqkv"):
            with self.subTest(linear):
                self.hub([weight(f"layers.0.mixing.{linear}.weight", 384, 128)], {"architectures": ["Nobody"], "model_type": "nobody"})
                self.assertEqual(self.attentions(), ["layers.0.mixing"])

    def test_keys_without_values_make_no_attention(self):
        self.hub([weight("layers.0.indexer.k_proj.weight", 128, 128)], {"architectures": ["Nobody"], "model_type": "nobody"})
        self.assertEqual(self.attentions("--kv-cache", "none"), [])

    def test_a_recipe_that_asks_for_a_cache_is_refused_for_a_model_without_one(self):
        self.hub(nemotron(attention=False), NEMOTRON)
        self.assert_fails(self.quantize(recipe=CAST), "UnsupportedRecipe", "asks for a quantized KV cache, and no attention of this model",
                          "--kv-cache none")
        self.assert_nothing_left()
        self.quantized("--kv-cache", "none", recipe=CAST)
        self.assertIsNone(self.cache())


class ScaleNamesTest(ProgramTest):
    """Scales of the cache, as each producer calls them, go with their attention."""
    NAMES = (("k_proj.k_scale", "v_proj.v_scale"), ("k_scale", "v_scale", "q_scale", "prob_output_scale"), ("attn.k_scale", "attn.v_scale"),
             ("kv_scale",), ("k_scale", "k_zero_point", "v_scale", "v_zero_point"), ("qkv_proj.k_scale",), ("k_proj.k_bias", "v_proj.v_bias"),
             ("k_proj.output_scale", "v_proj.output_scale"), ("k_cache.scale", "v_cache.scale"), ("kv_cache.scale", "kv_cache.zero_point"),
             ("k_cache_scale", "v_cache_scale"), ("kv_cache_scaling_factor",), ("k_global_scale", "v_global_scale", "q_global_scale"),
             ("q_zero_point", "kv_zero_point"))

    def test_scales_follow_their_attention_by_rule_and_by_reference(self):
        with open(os.path.join(ROOT, "samples/minimax-m3-tiny/export/config.json"), encoding="utf-8") as f:
            config = json.load(f)
        config.pop("quantization_config")
        before, after = "model.language_model.layers.0.self_attn", "language_model.model.layers.0.self_attn"
        write_checkpoint(self.path("hub"), config, [bf16(f"{after}.{p}_proj.weight", 16, 16) for p in "kv"])
        for names in self.NAMES:
            scales = [tensor(f"{before}.{name}", "F32", []) for name in names]
            shutil.rmtree(self.path("in"), ignore_errors=True)
            write_checkpoint(self.path("in"), config, [bf16(f"{before}.{p}_proj.weight", 16, 16) for p in "kv"] + scales)
            for reference in ([], ["--reference", self.path("hub")]):
                with self.subTest(names, reference=bool(reference)):
                    shutil.rmtree(self.path("out"), ignore_errors=True)
                    self.assert_done(run("revert", self.path("in"), "-o", self.path("out"), *reference))
                    got = read_checkpoint(self.path("out"))
                    self.assertEqual(sorted(n for n in got if "_proj.weight" not in n), sorted(f"{after}.{name}" for name in names))
                    self.assert_done(run("verify", self.path("out"), "--reference", self.path("hub")))


    def test_scales_of_a_projection_that_the_model_lacks_go_where_their_attention_goes(self):
        """Kimi-K2.5's vision tower has a rule for k_proj, its latent attention has none."""
        config = {"architectures": ["Kimi_K25ForConditionalGeneration"], "model_type": "kimi_k25", "transformers_version": "5.17.0",
                  "text_config": {"model_type": "deepseek_v3", "num_hidden_layers": 1}, "vision_config": {}}
        before, after = "model.language_model.layers.0.self_attn", "language_model.model.layers.0.self_attn"
        write_checkpoint(self.path("hub"), config, [bf16(f"{after}.kv_a_proj_with_mqa.weight", 16, 16)])
        write_checkpoint(self.path("in"), config, [bf16(f"{before}.kv_a_proj_with_mqa.weight", 16, 16)] +
                         [tensor(f"{before}.{p}_proj.{p}_scale", "F32", []) for p in "kv"])
        self.assert_done(run("revert", self.path("in"), "-o", self.path("out"), "--reference", self.path("hub")))
        self.assertEqual(sorted(read_checkpoint(self.path("out"))),
                         [f"{after}.k_proj.k_scale", f"{after}.kv_a_proj_with_mqa.weight", f"{after}.v_proj.v_scale"])


class PlanTest(QuantizeTest):
    def test_a_plan_needs_no_calibration_and_says_how_many_scales_will(self):
        self.hub(decoder())
        result = self.quantize("--plan", recipe="nvfp4_default-kv_fp8")
        self.assert_done(result)
        self.assertIn("quantizing will need a calibration, since activations get static scales (8: ", result.stderr)
        planned = json.loads(self.quantize("--plan", "--json", recipe="nvfp4").stdout)
        names = {f"model.layers.0.{n}.input_amax": 2.0 for n in
                 [f"self_attn.{p}_proj" for p in "qkvo"] + ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]}
        done = self.quantize("--calibration", self.calibration(names), "--json", recipe="nvfp4")
        self.assert_done(done)
        self.assertEqual(planned["modules"], json.loads(done.stdout)["modules"])
        self.assertEqual(planned["output_tensors"], json.loads(done.stdout)["output_tensors"])
        self.assertEqual(planned["exclude_modules"], ["lm_head", "model.embed_tokens"])

    def test_a_calibration_that_is_given_must_hold_what_is_needed(self):
        self.hub(decoder())
        amax = self.calibration({"model.layers.0.mlp.up_proj.input_amax": 1.0})
        self.assert_fails(self.quantize("--plan", "--calibration", amax, recipe="nvfp4"), "the calibration has no model.layers.0")


if __name__ == "__main__":
    unittest.main()
