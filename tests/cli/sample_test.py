"""The sample pair: MiniMax-M3 exported by ModelOpt, reverted and held against the hub's, made by transformers."""
import json
import os
import unittest

from modules import all_matched
from program import ROOT, ProgramTest, byte_count, read_checkpoint, run

EXPORT, HUB = f"{ROOT}/samples/minimax-m3-tiny/export", f"{ROOT}/samples/minimax-m3-tiny/hub"
SCALES = (".weight_scale", ".weight_scale_2", ".input_scale", ".k_scale", ".v_scale")


def read_json(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def modules_of(tensors):
    return {name.rpartition(".")[0] for name in tensors if name.endswith(".weight")}


class WithReferenceTest(ProgramTest):
    @classmethod
    def setUpClass(cls):
        cls.hub, cls.export = read_checkpoint(HUB), read_checkpoint(EXPORT)

    def setUp(self):
        super().setUp()
        self.assert_done(run("revert", EXPORT, "-o", self.path("out"), "--reference", HUB, "--strict"))
        self.got = read_checkpoint(self.path("out"))

    def test_output_verifies(self):
        self.assert_done(run("verify", self.path("out"), "--reference", HUB))

    def test_every_name_of_the_hub_is_there_and_nothing_but_scales_besides(self):
        self.assertEqual(len(self.hub), 99)
        self.assertEqual(set(self.hub) - set(self.got), set())
        self.assertEqual([n for n in self.got if n not in self.hub and not n.endswith(SCALES)], [])

    def test_unquantized_tensors_equal_those_of_the_hub(self):
        plain = [n for n in self.hub if self.got[n][0] != "U8"]
        self.assertEqual(len(plain), 75)
        for name in plain:
            self.assertEqual(self.got[name], self.hub[name], name)

    def test_every_quantized_expert_has_its_scales(self):
        quantized = [n for n in self.hub if self.got[n][0] == "U8"]
        self.assertEqual(len(quantized), 24)
        for name in quantized:
            rows, columns = self.hub[name][1]
            module = name.removesuffix("weight")
            self.assertEqual(self.got[name][1], [rows, columns // 2])
            self.assertEqual(self.got[f"{module}weight_scale"][:2], ("F8_E4M3", [rows, columns // 16]))
            for scalar in ("weight_scale_2", "input_scale"):
                self.assertEqual(self.got[f"{module}{scalar}"][:2], ("F32", []))

    def test_bytes_of_experts_are_those_of_the_export(self):
        linears = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}
        for name, tensor in self.got.items():
            parts = name.split(".")
            if "experts" not in parts:
                continue
            layer, expert, linear, leaf = parts[3], parts[6], parts[7], parts[8]
            source = f"model.language_model.layers.{layer}.mlp.experts.{expert}.{linears[linear]}.{leaf}"
            self.assertEqual(tensor, self.export[source], name)

    def test_cache_scales_are_renamed_only(self):
        for layer in range(3):
            for kind in "kv":
                leaf = f"layers.{layer}.self_attn.{kind}_proj.{kind}_scale"
                self.assertEqual(self.got[f"language_model.model.{leaf}"], self.export[f"model.language_model.{leaf}"])

    def test_exclude_lists_mean_what_is_not_quantized(self):
        every = modules_of(self.got)
        unquantized = {m for m in every if f"{m}.weight_scale" not in self.got}
        config = read_json(self.path("out/config.json"))["quantization_config"]
        hf_quant = read_json(self.path("out/hf_quant_config.json"))["quantization"]
        before = read_json(f"{EXPORT}/config.json")["quantization_config"]["ignore"]
        excluded = all_matched(config["ignore"], every)
        self.assertEqual(excluded, all_matched(hf_quant["exclude_modules"], every))
        self.assertLessEqual(excluded, unquantized)
        # Of the export's list everything is carried over: only norms were not named by it.
        self.assertEqual({m for m in unquantized - excluded if "norm" not in m}, set())
        self.assertGreater(len(all_matched(before, modules_of(self.export))), 30)

    def test_shards_keep_their_names_and_the_index_fits(self):
        weights = sorted(f for f in os.listdir(EXPORT) if f.endswith(".safetensors"))
        self.assertEqual(sorted(f for f in os.listdir(self.path("out")) if f.endswith(".safetensors")), weights)
        index = read_json(self.path("out/model.safetensors.index.json"))
        self.assertEqual(set(index["weight_map"]), set(self.got))
        self.assertEqual(index["metadata"]["total_size"], sum(byte_count(d, s) for d, s, _ in self.got.values()))

    def test_rest_of_the_folder_is_copied(self):
        for name in ("chat_template.jinja", "generation_config.json", "tokenizer_config.json"):
            with open(f"{EXPORT}/{name}", "rb") as a, open(self.path(f"out/{name}"), "rb") as b:
                self.assertEqual(a.read(), b.read(), name)
        before, after = read_json(f"{EXPORT}/config.json"), read_json(self.path("out/config.json"))
        self.assertEqual(list(after), list(before))
        for config in (before, after):
            del config["quantization_config"]["ignore"]
        self.assertEqual(json.dumps(after), json.dumps(before))

    def test_reverting_again_is_a_copy(self):
        result = run("revert", self.path("out"), "-o", self.path("again"), "--reference", HUB)
        self.assert_done(result)
        self.assertIn("hub names already: a plain copy", result.stderr)
        self.assertEqual(read_checkpoint(self.path("again")), self.got)


class WithoutReferenceTest(ProgramTest):
    def test_the_published_names_are_known(self):
        self.assert_done(run("revert", EXPORT, "-o", self.path("out")))
        self.assertEqual(set(read_checkpoint(HUB)) - set(read_checkpoint(self.path("out"))), set())

    def test_seven_names_follow_the_rules_where_that_is_asked_for(self):
        result = run("revert", EXPORT, "-o", self.path("out"), "--by-rules")
        self.assert_done(result)
        hub, got = read_checkpoint(HUB), read_checkpoint(self.path("out"))
        dense, vision = "language_model.model.layers.0.mlp", "vision_tower.vision_model.encoder.layers.0.mlp"
        otherwise = {f"{dense}.{linear}_proj.weight" for linear in ("gate", "up", "down")}
        otherwise |= {f"{vision}.{linear}.{leaf}" for linear in ("fc1", "fc2") for leaf in ("weight", "bias")}
        self.assertEqual(set(hub) - set(got), otherwise)
        for name in otherwise:
            self.assertEqual(got[name.replace(".mlp.", ".block_sparse_moe.")], hub[name], name)
        self.assertIn("the names are those that the mapping's rules give", result.stderr)


if __name__ == "__main__":
    unittest.main()
