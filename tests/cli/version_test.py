"""Which transformers version's mapping applies: config.json's, --transformers, and what they lead to."""
import json
import os
import unittest

from program import ProgramTest, ROOT, read_checkpoint, run, write_checkpoint

OLD, NEW = "5.17.0", "5.24.0"
# 5.17.0 reverses ".block_sparse_moe. -> .mlp." everywhere, 5.24.0 for the experts' block only.
DENSE, ROUTER = "layers.0.mlp.down_proj.weight", "layers.1.mlp.gate.weight"
TENSORS = [(f"model.language_model.{name}", "BF16", [4, 4]) for name in (DENSE, ROUTER)]
HUB_OLD = {f"language_model.model.{name.replace('.mlp.', '.block_sparse_moe.')}" for name in (DENSE, ROUTER)}
HUB_NEW = {f"language_model.model.{DENSE}", f"language_model.model.{ROUTER.replace('.mlp.', '.block_sparse_moe.')}"}


class VersionTest(ProgramTest):
    def checkpoint(self, version=None, architecture="MiniMaxM3SparseForConditionalGeneration", model_type="minimax_m3_vl"):
        config = {"architectures": [architecture], "model_type": model_type}
        if version is not None:
            config["transformers_version"] = version
        write_checkpoint(self.path("in"), config, TENSORS)

    def rules(self, *args):
        result = run("rules", self.path("in"), "--json", *args)
        self.assert_done(result)
        return json.loads(result.stdout)

    def names_after(self, *args):
        result = run("revert", self.path("in"), "-o", self.path("out"), "--by-rules", "--json", *args)
        self.assert_done(result)
        return json.loads(result.stdout)["mapping"], set(read_checkpoint(self.path("out")))

    def test_all_mappings_of_the_repository_are_built_in(self):
        self.checkpoint()
        for file in os.listdir(f"{ROOT}/data/mappings"):
            version = file.removeprefix("transformers-").removesuffix(".json")
            self.assertEqual(self.rules("--transformers", version)["mapping"],
                             {"version": f"transformers {version}", "reason": "as asked for"})

    def test_config_picks(self):
        for stated, version, reason in (
                ("5.17.0", OLD, "config.json states 5.17.0"), ("5.24.0", NEW, "config.json states 5.24.0"),
                ("4.57.1", OLD, "config.json states 4.57.1, older than any built in"),
                ("5.20.1", OLD, "config.json states 5.20.1, between those built in"),
                ("5.18.0.dev0", OLD, "config.json states 5.18.0.dev0, between those built in"),
                ("5.24.0.dev0", NEW, "config.json states 5.24.0.dev0"),
                ("6.0.0rc1", NEW, "config.json states 6.0.0rc1, newer than any built in"),
                (None, OLD, "config.json states no version"), (5, OLD, "config.json states no version"),
                ("main", OLD, 'config.json states "main", which is no version')):
            with self.subTest(stated):
                self.setUp()
                self.checkpoint(stated)
                self.assertEqual(self.rules()["mapping"], {"version": f"transformers {version}", "reason": reason})
                self.assertIn(f"mapping of transformers {version}: {reason}\n", run("rules", self.path("in")).stdout)
                self.assertEqual(self.names_after(), (f"transformers {version}", HUB_OLD if version == OLD else HUB_NEW))

    def test_override(self):
        for stated, asked, hub in ((OLD, NEW, HUB_NEW), (NEW, OLD, HUB_OLD), (None, NEW, HUB_NEW)):
            with self.subTest(f"{stated} -> {asked}"):
                self.setUp()
                self.checkpoint(stated)
                self.assertEqual(self.names_after("--transformers", asked), (f"transformers {asked}", hub))

    def test_the_summary_names_the_version(self):
        self.checkpoint(NEW)
        result = run("revert", self.path("in"), "-o", self.path("out"))
        self.assertIn("reverted MiniMaxM3SparseForConditionalGeneration by transformers 5.24.0: ", result.stdout)

    def test_verify_takes_the_version_and_names_it(self):
        self.checkpoint(OLD)
        for args, version in ((), OLD), (("--transformers", NEW), NEW):
            result = run("verify", self.path("in"), "--reference", self.path("in"), "--json", *args)
            self.assertEqual(json.loads(result.stdout)["mapping"], f"transformers {version}")

    def test_a_class_of_the_newer_version_only(self):
        self.checkpoint("5.20.0", "Lfm3ForCausalLM", "lfm3")
        mapping = self.rules()["mapping"]
        self.assertEqual(mapping["version"], f"transformers {NEW}")
        self.assertEqual(mapping["reason"],
                         "config.json states 5.20.0, between those built in; 5.17.0 does not know this model")
        self.assert_fails(run("rules", self.path("in"), "--transformers", OLD), "UnknownArchitectureError",
                          "Lfm3ForCausalLM is not in the mapping of transformers 5.17.0")

    def test_a_version_that_has_a_mapping_is_not_left_for_a_newer_one(self):
        self.checkpoint(OLD, "Lfm3ForCausalLM", "lfm3")
        self.assert_fails(run("rules", self.path("in")), "Lfm3ForCausalLM is not in the mapping of transformers 5.17.0")

    def test_unknown_version_lists_those_built_in(self):
        self.checkpoint()
        for command in (["rules"], ["revert", "-o", self.path("out")], ["verify", "--reference", self.path("in")]):
            result = run(command[0], self.path("in"), *command[1:], "--transformers", "5.18.0")
            self.assert_fails(result, "UnknownVersionError: the mapping of transformers 5.18.0 is not built in",
                              "built in are 5.17.0, 5.24.0", "--mapping FILE")
        self.assert_nothing_left()

    def test_a_mapping_file_and_a_version_contradict_each_other(self):
        self.checkpoint()
        for command in (["rules"], ["revert", "-o", self.path("out")], ["verify", "--reference", self.path("in")]):
            result = run(command[0], self.path("in"), *command[1:], "--transformers", OLD, "--mapping",
                         f"{ROOT}/data/mappings/transformers-{NEW}.json")
            self.assert_fails(result, "--transformers", "--mapping", status=2)
        self.assert_nothing_left()

    def test_a_mapping_file_names_its_version(self):
        self.checkpoint(OLD)
        file = f"{ROOT}/data/mappings/transformers-{NEW}.json"
        self.assertEqual(self.rules("--mapping", file)["mapping"], {"version": f"transformers {NEW}", "reason": f"from {file}"})
        self.assertEqual(self.rules("--mapping", file)["pattern_rules"], 2)
        self.assertEqual(self.names_after("--mapping", file), (f"transformers {NEW}", HUB_NEW))


if __name__ == "__main__":
    unittest.main()
