"""rules: which transforms fire on a name, and where a reference and the rules alone differ."""
import json
import unittest

from exports import bf16, modelopt_config, renamed
from program import ProgramTest, ROOT, run, write_checkpoint

EXPORT = f"{ROOT}/samples/minimax-m3-tiny/export"
HUB = f"{ROOT}/samples/minimax-m3-tiny/hub"
KIMI = modelopt_config("Kimi_K25ForConditionalGeneration", "kimi_k25", text_config={"model_type": "deepseek_v3"},
                       vision_config={"model_type": "kimi_k25_vision"})


class NameTest(ProgramTest):
    def explain(self, *names):
        result = run("rules", EXPORT, "--json", *[part for name in names for part in ("--name", name)])
        self.assert_done(result)
        return json.loads(result.stdout)["names"]

    def test_a_renaming_is_told_with_the_pattern_that_matched(self):
        [name] = self.explain("lm_head.weight")
        self.assertEqual(name["saved"], [{"transform": r"WeightRenaming ^language_model\.lm_head -> lm_head",
                                          "pattern": "^lm_head", "before": "lm_head.weight",
                                          "after": "language_model.lm_head.weight"}])
        self.assertEqual(name["loaded"], [])
        self.assertEqual(name["parameter"], "")

    def test_an_experts_linear_goes_by_its_stacked_parameter(self):
        linear = "model.language_model.layers.1.mlp.experts.0.up_proj.weight"
        [name] = self.explain(linear)
        self.assertEqual(name["parameter"], "model.language_model.layers.1.mlp.experts.gate_up_proj")
        self.assertEqual(name["saved"][0]["before"], name["parameter"])
        self.assertIn("MergeModulelist, Concatenate", name["saved"][0]["transform"])
        self.assertEqual(name["saved"][-1]["after"],
                         "language_model.model.layers.1.block_sparse_moe.experts.*.w1.weight")

    def test_steps_follow_each_other(self):
        for name in self.explain("language_model.model.layers.1.block_sparse_moe.gate.weight", "no.such.name"):
            for direction in ("saved", "loaded"):
                before = name["parameter"] or name["name"]
                for step in name[direction]:
                    self.assertEqual(step["before"], before)
                    self.assertNotEqual(step["after"], before)
                    before = step["after"]

    def test_text_says_where_nothing_fires(self):
        result = run("rules", EXPORT, "--name", "no.such.name")
        self.assert_done(result)
        self.assertEqual(result.stdout.splitlines(), ["no.such.name", "  saved as: no transform fires",
                                                      "  loaded as: no transform fires"])


class ReferenceTest(ProgramTest):
    def test_differences_name_both_results(self):
        export = [bf16("model.language_model.layers.0.mlp.down_proj.weight", 4, 4),
                  bf16("model.language_model.norm.weight", 4)]
        hub = renamed(export, ("model.language_model", "language_model.model"))
        write_checkpoint(self.path("in"), KIMI, export)
        write_checkpoint(self.path("hub"), {}, hub)
        result = run("rules", self.path("in"), "--reference", self.path("hub"), "--json")
        self.assert_done(result)
        reference = json.loads(result.stdout)["reference"]
        self.assertEqual(reference["differences"], [
            {"in_memory": "model.language_model.layers.0.mlp.down_proj.weight",
             "by_reference": "language_model.model.layers.0.mlp.down_proj.weight",
             "by_rule": "language_model.model.blocks.0.mlp.down_proj.weight"}])
        self.assertTrue(any("blocks" in transform for transform in reference["unused_transforms"]))
        self.assertFalse(reference["already_hub"])

    def test_a_checkpoint_with_the_references_names_has_no_differences(self):
        write_checkpoint(self.path("in"), KIMI, [bf16("language_model.model.norm.weight", 4)])
        result = run("rules", self.path("in"), "--reference", self.path("in"))
        self.assert_done(result)
        self.assertIn("has the reference's names already", result.stdout)
        self.assertIn("0 names differ", result.stdout)

    def test_a_missing_reference_is_an_error(self):
        result = run("rules", EXPORT, "--reference", self.path("nothing"))
        self.assertEqual(result.returncode, 1)
        self.assertIn("nothing", result.stderr)
        self.assertEqual(result.stdout, "")


if __name__ == "__main__":
    unittest.main()
