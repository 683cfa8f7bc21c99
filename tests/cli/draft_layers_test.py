"""Draft (MTP) layers: `quantize` leaves them alone and says so in the configs, and revert and verify speak of them in one line."""
import fnmatch
import json
import shutil
import unittest

from exports import bf16, nvfp4
from program import read_checkpoint, run, write_checkpoint
from quantize_case import QuantizeTest, decoder, llama_config, weight

HIDDEN, INNER, EXPERTS = 128, 64, 2
EXPERTS_ONLY = "nvfp4_experts_only_input_scale1-kv_fp8_cast"


def layer(path):
    """A layer with experts; its matrices are those whose names end in _proj.weight."""
    tensors = [weight(f"{path}.input_layernorm.weight", HIDDEN), weight(f"{path}.mlp.gate.weight", EXPERTS, HIDDEN)]
    tensors += [weight(f"{path}.self_attn.{name}_proj.weight", HIDDEN, HIDDEN) for name in "qkvo"]
    for i in range(EXPERTS):
        tensors += [weight(f"{path}.mlp.experts.{i}.gate_proj.weight", INNER, HIDDEN),
                    weight(f"{path}.mlp.experts.{i}.up_proj.weight", INNER, HIDDEN),
                    weight(f"{path}.mlp.experts.{i}.down_proj.weight", HIDDEN, INNER)]
    return tensors


def model(architecture, model_type, prefix="model", **more):
    config = {"architectures": [architecture], "model_type": model_type, "hidden_size": HIDDEN, "num_hidden_layers": 1,
              "num_attention_heads": 2, "torch_dtype": "bfloat16", "transformers_version": "5.17.0", **more}
    return config, [weight(f"{prefix}.embed_tokens.weight", 32, HIDDEN), weight("lm_head.weight", 32, HIDDEN), *layer(f"{prefix}.layers.0")]


def glm():
    config, tensors = model("Glm4MoeForCausalLM", "glm4_moe", num_nextn_predict_layers=1, n_routed_experts=EXPERTS)
    draft = "model.layers.1"
    return config, tensors, draft, [weight(f"{draft}.eh_proj.weight", HIDDEN, 2 * HIDDEN), weight(f"{draft}.enorm.weight", HIDDEN),
                                    weight(f"{draft}.shared_head.head.weight", 32, HIDDEN), *layer(draft)]


def qwen():
    config, tensors = model("Qwen3NextForCausalLM", "qwen3_next", num_experts=EXPERTS)
    return config, tensors, "mtp", [weight("mtp.fc.weight", HIDDEN, 2 * HIDDEN), *layer("mtp.layers.0")]


def unknown():
    config, tensors = model("NobodyKnowsThis", "nobody", num_experts=EXPERTS)
    return config, tensors, "model.mtp", [weight("model.mtp.layers.0.eh_proj.weight", HIDDEN, 2 * HIDDEN), *layer("model.mtp.layers.0")]


MODELS = {"glm": glm, "qwen": qwen, "unknown": unknown}


class DraftLayersTest(QuantizeTest):
    def excluded(self):
        with open(self.path("out/hf_quant_config.json"), encoding="utf-8") as f:
            hf = json.load(f)["quantization"]["exclude_modules"]
        with open(self.path("out/config.json"), encoding="utf-8") as f:
            self.assertEqual(json.load(f)["quantization_config"]["ignore"], hf)
        return hf

    def made(self, name, *args, **more):
        """The result, its exclude list, the draft layers' path and tensors."""
        config, tensors, draft, drafts = MODELS[name]()
        self.hub([*tensors, *drafts], config)
        shutil.rmtree(self.path("out"), ignore_errors=True)
        return self.quantized(*args, **more), self.excluded(), draft, drafts

    def test_draft_layers_come_out_as_they_went_in_and_are_excluded(self):
        for name in MODELS:
            for recipe in ("w4a16_nvfp4", EXPERTS_ONLY):
                with self.subTest(name, recipe=recipe):
                    got, excluded, draft, drafts = self.made(name, recipe=recipe)
                    for key, *value in drafts:
                        self.assertEqual(list(got[key]), value, key)
                    self.assertIn(f"{draft}*", excluded)
                    self.assertFalse([e for e in excluded if e != f"{draft}*" and e.startswith(draft)], "one entry says it all")
                    self.assertEqual(got["model.layers.0.mlp.experts.0.up_proj.weight"][0], "U8")
                    quantized = [n.removesuffix(".weight_scale") for n in got if n.endswith(".weight_scale")]
                    self.assertFalse([q for q in quantized for e in excluded if fnmatch.fnmatchcase(q, e)])
                    self.assert_done(run("verify", self.path("out"), "--reference", self.path("hub")))

    def test_one_note_says_which_they_are(self):
        config, tensors, _, drafts = glm()
        self.hub([*tensors, *drafts], config)
        result = self.quantize()
        self.assert_done(result)
        notes = [line for line in result.stderr.splitlines() if "draft (MTP) layers" in line]
        self.assertEqual(notes, ["note: draft (MTP) layers stay unquantized, unless --quantize-mtp leaves them to the recipe "
                                 "(1: model.layers.1)"])

    def test_the_option_leaves_them_to_the_recipe_but_for_what_engines_build_unquantized(self):
        for name, plain in (("glm", ("eh_proj", "shared_head.head")), ("qwen", ("fc",))):
            with self.subTest(name):
                got, excluded, draft, drafts = self.made(name, "--quantize-mtp")
                for key, _, shape, _ in drafts:
                    module = key.removesuffix(".weight")
                    alone = len(shape) < 2 or module.endswith((*plain, "mlp.gate"))
                    self.assertEqual(got[key][0], "BF16" if alone else "U8", key)
                    covered = any(fnmatch.fnmatchcase(module, e) for e in excluded)
                    self.assertEqual(covered, alone and len(shape) == 2, key)
                self.assert_done(run("verify", self.path("out"), "--reference", self.path("hub")))

    def test_draft_layers_of_an_fp8_hub_come_out_dequantized(self):
        config, tensors, draft, drafts = glm()
        config["quantization_config"] = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
        fp8 = []
        for name, dtype, shape, data in [*tensors, *drafts]:
            if not name.endswith("_proj.weight") or "eh_proj" in name:
                fp8.append((name, dtype, shape, data))
                continue
            fp8 += [(name, "F8_E4M3", shape, bytes([0x38]) * (shape[0] * shape[1])),
                    (f"{name}_scale_inv", "F32", [1, 1], b"\0\0\0\x40")]
        self.hub(fp8, config)
        got = self.quantized(recipe=EXPERTS_ONLY)
        self.assertFalse([name for name in got if name.endswith("scale_inv")])
        two = b"\0\x40"
        name = f"{draft}.mlp.experts.1.up_proj.weight"
        self.assertEqual(got[name], ("BF16", [INNER, HIDDEN], two * (INNER * HIDDEN)))
        self.assertIn(f"{draft}*", self.excluded())

    def test_layers_of_a_tower_with_more_layers_than_the_text_model_are_no_draft_layers(self):
        config, tensors = model("NobodyKnowsThis", "nobody", num_nextn_predict_layers=1)
        tower = "audio_tower.layers.1.self_attn.q_proj"
        self.hub([*tensors, weight(f"{tower}.weight", HIDDEN, HIDDEN)], config)
        self.assertEqual(self.quantized()[f"{tower}.weight"][0], "U8")

    def test_verify_notes_draft_layers_that_are_left_out_and_tells_what_is_wrong_with_them_once(self):
        config, tensors, draft, drafts = glm()
        self.hub([*tensors, *drafts], config)
        self.hub(tensors, config, name="without")
        result = run("verify", self.path("without"), "--reference", self.path("hub"))
        self.assert_done(result)
        self.assertEqual(result.stderr.count("draft (MTP) layers of the reference are not in the checkpoint"), 1)
        self.assertIn(f"(1: {draft})", result.stderr)
        self.hub([*tensors, *drafts[:3]], config, name="half")
        result = run("verify", self.path("half"), "--reference", self.path("hub"))
        self.assert_fails(result, f"the reference has this tensor, the checkpoint does not; {len(drafts) - 4} more of the draft layers "
                                  f"{draft} likewise")
        self.assertEqual(result.stderr.count("error: "), 1, result.stderr)

    def test_verify_tells_of_draft_layers_that_no_list_excludes_once(self):
        config, _, _, _ = qwen()
        config["quantization_config"] = {
            "quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"],
            "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "float", "group_size": 16}, "targets": ["Linear"]}}}
        plain = [bf16(f"mtp.layers.0.mlp.experts.{i}.up_proj.weight", 64, 128) for i in range(5)]
        hub = [bf16("lm_head.weight", 32, 128), bf16("model.layers.0.mlp.down_proj.weight", 64, 128), *plain]
        write_checkpoint(self.path("hub"), config, hub)
        write_checkpoint(self.path("in"), config, [hub[0], *nvfp4("model.layers.0.mlp.down_proj", 64, 128), *plain])
        result = run("verify", self.path("in"), "--reference", self.path("hub"))
        self.assert_fails(result, "4 more of the draft layers mtp likewise")
        self.assertEqual(result.stderr.count("error: "), 1, result.stderr)


if __name__ == "__main__":
    unittest.main()
