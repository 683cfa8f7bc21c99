"""Which mapping applies: unknown classes, --architecture, --mapping, code of the checkpoint's own; and usage errors."""
import json
import os
import unittest

import exports
from exports import as_dict, bf16, mixtral_config, nvfp4, renamed, rows
from program import ProgramTest, read_checkpoint, run, write, write_checkpoint

GATES = [bf16(f"model.layers.{i}.mlp.gate.weight", 4, 8) for i in range(2)]
REVERTED = as_dict(renamed(GATES, (".mlp.", ".block_sparse_moe.")))

PRIVATE = {
    "format": 1, "library": "private", "version": "1",
    "conversions": {"my_model": [
        {"type": "WeightRenaming", "source_patterns": [r"^transformer\.h\."], "target_patterns": ["model.layers."]},
        {"type": "WeightConverter", "source_patterns": ["mlp.w_gate.weight", "mlp.w_up.weight"],
         "target_patterns": ["mlp.w_both.weight"], "operations": [{"op": "Concatenate", "dim": 0}]}]},
    "classes": {"MyModelForCausalLM": {"model_type": "my_model", "base_model_prefix": "model"}},
}


class MappingCase(ProgramTest):
    def revert(self, config, tensors, *args):
        write_checkpoint(self.path("in"), config, tensors)
        return run("revert", self.path("in"), "-o", self.path("out"), *args)

    def mapping_file(self, content):
        write(self.path("mapping.json"), content)
        return self.path("mapping.json")


class ArchitectureTest(MappingCase):
    UNKNOWN = ("no transformers whose mapping is built in knows BrandNewForCausalLM or a model_type new: names are taken as "
               "they are")

    def test_a_class_that_nobody_knows_keeps_its_names_in_every_command(self):
        config = {"architectures": ["BrandNewForCausalLM"], "model_type": "new", "hidden_size": 64, "dtype": "bfloat16"}
        weight = ("model.layers.0.mlp.up_proj.weight", "BF16", [64, 64], b"\x80\x3f" * 4096)
        write_checkpoint(self.path("in"), config, [*GATES, weight])
        hub = self.path("in")
        for command in (["revert", hub, "-o", self.path("r")], ["revert", hub, "-o", self.path("g"), "--reference", hub],
                        ["apply", hub, "-o", self.path("a")], ["verify", hub, "--reference", hub], ["inspect", hub],
                        ["quantize", hub, "-o", self.path("q"), "--recipe", "w4a16_nvfp4"]):
            result = run(*command)
            self.assert_done(result)
            self.assertIn(f"warning: {self.UNKNOWN}", result.stderr, command)
            self.assertIn("; name a class it has with --architecture, or supply a mapping", result.stderr, command)
        for out in "rga":
            self.assertEqual(read_checkpoint(self.path(out)), as_dict([*GATES, weight]))
        self.assertIn("model.layers.0.mlp.up_proj.weight_scale", read_checkpoint(self.path("q")))
        rules = run("rules", hub)
        self.assert_done(rules)
        self.assertIn(f"no mapping: {self.UNKNOWN}", rules.stdout)
        self.assertIn(self.UNKNOWN, json.loads(run("rules", hub, "--json").stdout)["unmapped"])
        write_checkpoint(self.path("other"), config, [("other.name", *t[1:]) for t in [weight]] + GATES)
        self.assertIn(self.UNKNOWN, run("diff", "--map", hub, self.path("other")).stderr)

    def test_names_of_an_unknown_class_are_held_against_a_reference(self):
        config = {"architectures": ["BrandNewForCausalLM"], "model_type": "new"}
        write_checkpoint(self.path("hub"), config, renamed(GATES, ("model.", "transformer.")))
        result = self.revert(config, GATES, "--reference", self.path("hub"))
        self.assert_fails(result, "ReferenceMismatchError", "the reference has no tensor of this name")
        self.assert_nothing_left()

    def test_a_class_of_an_unknown_name_is_found_by_its_model_type(self):
        for name in ("KimiK25ForConditionalGeneration", "SomethingElse"):
            config = {"architectures": [name], "model_type": "kimi_k25", "text_config": {"model_type": "kimi_k2"},
                      "vision_config": {}, "auto_map": {"AutoModel": "modeling_kimi_k25.X"}}
            write_checkpoint(self.path("in"), config, GATES)
            result = run("rules", self.path("in"), "--json")
            self.assert_done(result)
            rules = json.loads(result.stdout)
            self.assertEqual(rules["architecture"], "Kimi_K25ForConditionalGeneration")
            self.assertIn({"path": "model.language_model", "class": "DeepseekV3Model", "model_type": "kimi_k2"}, rules["submodels"])
            self.assertEqual(rules["notes"], [f"config.json's class {name} is no class of transformers: by its model_type it is "
                                              "Kimi_K25ForConditionalGeneration"])

    def test_the_head_of_the_class_picks_among_those_of_a_model_type(self):
        for name, want in (("MyMixtralForSequenceClassification", "MixtralForSequenceClassification"), ("MyMixtral", "MixtralForCausalLM"),
                           ("MyMixtralModel", "MixtralModel"), ("MyMixtralForEverything", "MixtralForCausalLM")):
            write_checkpoint(self.path("in"), {"architectures": [name], "model_type": "mixtral"}, GATES)
            self.assertEqual(json.loads(run("rules", self.path("in"), "--json").stdout)["architecture"], want)

    def test_architecture_overrides_the_config(self):
        for architectures in (["BrandNewForCausalLM"], [], None):
            with self.subTest(architectures):
                self.setUp()
                config = mixtral_config() | {"architectures": architectures}
                self.assert_done(self.revert(config, GATES, "--architecture", "MixtralForCausalLM"))
                self.assertEqual(read_checkpoint(self.path("out")), REVERTED)

    def test_unknown_class_on_the_command_line(self):
        result = self.revert(mixtral_config(), GATES, "--architecture", "Nonsense")
        self.assert_fails(result, "UnknownArchitectureError", "the model class Nonsense is not in the mapping")
        self.assert_nothing_left()

    def test_code_of_the_checkpoints_own_gets_no_mapping_and_says_so(self):
        config = {"architectures": ["BrandNewForCausalLM"], "model_type": "new",
                  "auto_map": {"AutoModelForCausalLM": "modeling_new.BrandNewForCausalLM"}}
        result = self.revert(config, GATES)
        self.assert_done(result)
        self.assertIn("warning: BrandNewForCausalLM is code of the checkpoint's own (auto_map), which no mapping "
                      "covers: names are taken as they are", result.stderr)
        self.assertEqual(read_checkpoint(self.path("out")), as_dict(GATES))
        with open(self.path("in/config.json"), "rb") as a, open(self.path("out/config.json"), "rb") as b:
            self.assertEqual(a.read(), b.read())

    def test_auto_map_of_a_known_class_does_not_matter(self):
        config = mixtral_config(auto_map={"AutoModelForCausalLM": "modeling_x.MixtralForCausalLM"})
        self.assert_done(self.revert(config, GATES))
        self.assertEqual(read_checkpoint(self.path("out")), REVERTED)

    def test_unknown_sub_model_says_how_to_supply_a_mapping(self):
        config = exports.modelopt_config("LlavaForConditionalGeneration", "llava",
                                         text_config={"model_type": "brand_new"})
        result = self.revert(config, [bf16("model.language_model.norm.weight", 4)])
        self.assert_fails(result, "UnknownArchitectureError", "brand_new", "--mapping FILE")
        self.assert_nothing_left()


class MappingFileTest(MappingCase):
    CONFIG = exports.modelopt_config("MyModelForCausalLM", "my_model", exclude=["model.layers.0.mlp.w_down"])

    def test_private_mapping_renames_and_cuts(self):
        module = "model.layers.0.mlp.w_both"
        fused, other = as_dict(nvfp4(module, 32, 64)), bf16("model.layers.0.mlp.w_down.weight", 4, 8)
        result = self.revert(self.CONFIG, [*nvfp4(module, 32, 64), other], "--mapping", self.mapping_file(PRIVATE))
        self.assert_done(result)
        want = as_dict(renamed([other], ("model.layers", "transformer.h")))
        for name, stored in fused.items():
            for part, begin in (("w_gate", 0), ("w_up", 16)):
                hub = name.replace("model.layers", "transformer.h").replace("w_both", part)
                want[hub] = rows(stored, begin, begin + 16)
        self.assertEqual(read_checkpoint(self.path("out")), want)
        with open(self.path("out/config.json"), encoding="utf-8") as f:
            self.assertEqual(json.load(f)["quantization_config"]["ignore"],
                             ["transformer.h.0.mlp.w_down"])

    def test_rules_shows_the_private_mapping(self):
        write_checkpoint(self.path("in"), self.CONFIG, GATES)
        result = run("rules", self.path("in"), "--mapping", self.mapping_file(PRIVATE), "--json")
        self.assert_done(result)
        rules = json.loads(result.stdout)
        self.assertEqual(rules["architecture"], "MyModelForCausalLM")
        self.assertEqual([t["type"] for t in rules["transforms"]], ["WeightRenaming", "WeightConverter"])

    def test_builtin_classes_are_not_in_another_mapping(self):
        result = self.revert(mixtral_config(), GATES, "--mapping", self.mapping_file(PRIVATE))
        self.assert_fails(result, "the model class MixtralForCausalLM is not in the mapping of private 1")

    def test_broken_mapping_files(self):
        def with_transform(transform):
            return PRIVATE | {"conversions": {"my_model": [transform]}}
        rename = {"type": "WeightRenaming", "source_patterns": ["a"], "target_patterns": ["b"]}
        cases = {
            "not JSON": (b"{", "invalid JSON"),
            "another format": (PRIVATE | {"format": 2}, "its format is not 1"),
            "no format": ({k: v for k, v in PRIVATE.items() if k != "format"}, "format"),
            "no conversions": ({k: v for k, v in PRIVATE.items() if k != "conversions"}, "conversions"),
            "unknown transform": (with_transform(rename | {"type": "Magic"}), 'unknown transform "Magic"'),
            "unknown operation": (with_transform(rename | {"type": "WeightConverter", "operations": [{"op": "Spin"}]}),
                                  'unknown operation "Spin"'),
            "no operation": (with_transform(rename | {"type": "WeightConverter", "operations": []}),
                             "a WeightConverter without operations"),
            "no pattern": (with_transform(rename | {"source_patterns": [], "target_patterns": []}),
                           "a transform without patterns"),
            "unequal renaming": (with_transform(rename | {"target_patterns": ["b", "c"]}), "differ in number"),
            "alias of nothing": (PRIVATE | {"conversions": {"my_model": "=other"}},
                                 'refers to "other", which has none'),
        }
        outside = [(dim, f"{dim} is out of range") for dim in (-1, 9, 2**32 + 1, -2**63, 2**64 - 1)]
        for dim, said in outside + [(0.5, "is no whole number"), (True, "is no whole number")]:
            cases[f"dimension {dim}"] = (with_transform(rename | {
                "type": "WeightConverter", "operations": [{"op": "Chunk", "dim": dim}]}), f"dim {said}")
        for name, (content, said) in cases.items():
            with self.subTest(name):
                self.setUp()
                result = self.revert(self.CONFIG, GATES, "--mapping", self.mapping_file(content))
                self.assert_fails(result, f"InvalidMappingError: {self.path('mapping.json')}: ", said)
                self.assert_nothing_left()

    def test_pattern_that_is_no_regular_expression(self):
        broken = {"type": "WeightRenaming", "source_patterns": ["a(b"], "target_patterns": ["c("]}
        mapping = self.mapping_file(PRIVATE | {"conversions": {"my_model": [broken]}})
        self.assert_fails(self.revert(self.CONFIG, GATES, "--mapping", mapping), "InvalidMappingError")
        self.assert_nothing_left()

    def test_mapping_file_that_is_not_there(self):
        self.assert_fails(self.revert(self.CONFIG, GATES, "--mapping", self.path("none.json")), "IoError", "none.json")


class UsageTest(MappingCase):
    def test_usage_errors_exit_with_2(self):
        write_checkpoint(self.path("in"), mixtral_config(), GATES)
        for args in ([], ["nonsense"], ["revert"], ["revert", self.path("in")], ["revert", "--nonsense"],
                     ["revert", self.path("in"), "-o"], ["revert", self.path("in"), "second", "-o", self.path("out")],
                     ["revert", self.path("in"), "-o", self.path("out"), "--on-unsupported", "shrug"],
                     ["revert", self.path("in"), "-o", self.path("out"), "--max-shard-size", "big"],
                     ["revert", self.path("in"), "-o", self.path("out"), "--max-shard-size", "0"],
                     ["revert", self.path("in"), "-o", self.path("out"), "--max-shard-size", "-5GB"],
                     ["revert", self.path("in"), "-o", self.path("out"), "--max-shard-size", "nan"],
                     ["revert", self.path("in"), "-o", self.path("out"), "--threads", "0"],
                     ["verify", self.path("in")], ["inspect"], ["rules"]):
            with self.subTest(args):
                result = run(*args)
                self.assertEqual(result.returncode, 2, result.stdout + result.stderr)
                self.assertNotEqual(result.stderr, "")
                self.assertEqual(os.listdir(self.folder), ["in"])

    def test_help_and_version_exit_with_0(self):
        for args in (["--help"], ["--version"], ["revert", "--help"], ["verify", "--help"], ["inspect", "--help"]):
            with self.subTest(args):
                result = run(*args)
                self.assert_done(result)
                self.assertNotEqual(result.stdout, "")
                self.assertEqual(result.stderr, "")

    def test_quiet_prints_errors_only(self):
        result = self.revert(mixtral_config(), GATES, "--quiet")
        self.assert_done(result)
        self.assertEqual(result.stdout + result.stderr, "")
        again = self.revert(mixtral_config(), GATES, "--quiet")
        self.assert_fails(again, "OutputExistsError")


if __name__ == "__main__":
    unittest.main()
