"""Names without a reference: what is known of published names, names that stay undecided, and --by-rules."""
import json
import os
import unittest

from exports import as_dict, bf16, minimax_config, modelopt_config, nvfp4, renamed
from program import ROOT, ProgramTest, read_checkpoint, run, write, write_checkpoint
from quantizer_names_test import CONFIG as V4_CONFIG
from quantizer_names_test import FP8, PRO, hub, pro

SAMPLE = f"{ROOT}/samples/minimax-m3-tiny"
KIMI = modelopt_config("Kimi_K25ForConditionalGeneration", "kimi_k25", text_config={"model_type": "deepseek_v3"},
                       vision_config={"model_type": "kimi_k25_vision"})
KIMI_MEMORY = [*nvfp4("model.language_model.layers.0.self_attn.o_proj", 32, 64), bf16("model.language_model.norm.weight", 8),
               bf16("lm_head.weight", 16, 8), bf16("model.mm_projector.pre_norm.weight", 8), bf16("model.mm_projector.in_proj.weight", 8, 8),
               bf16("model.vision_tower.patch_embed.proj.weight", 8, 3, 2, 2), bf16("model.vision_tower.layers.0.mlp.fc1.bias", 8)]
KIMI_HUB = as_dict(renamed(
    KIMI_MEMORY, ("model.language_model", "language_model.model"), ("lm_head", "language_model.lm_head"),
    ("model.mm_projector.pre_norm", "mm_projector.pre_norm"), ("model.mm_projector.in_proj", "mm_projector.proj.0"),
    ("model.vision_tower.patch_embed", "vision_tower.patch_embed"), ("model.vision_tower.layers.0.mlp.fc1", "vision_tower.encoder.blocks.0.mlp.fc0")))

# A renaming of the whole model, meant for its vision tower.
SPANNING = {
    "format": 1, "library": "private", "version": "1",
    "conversions": {"m": [{"type": "WeightRenaming", "source_patterns": [r"\.blocks\."], "target_patterns": [".layers."]}]},
    "classes": {"M": {"model_type": "m", "submodels": [{"path": "model.text", "config": "t", "class": "T", "model_type": "t"},
                                                       {"path": "model.vision", "config": "v", "class": "V", "model_type": "v"}]},
                "T": {"model_type": "t"}, "V": {"model_type": "v"}},
}
UNDECIDED = [bf16(f"model.{part}.layers.{i}.w.weight", 4) for part in ("text", "vision") for i in range(2)]


class PublishedNamesTest(ProgramTest):
    def revert(self, *arguments):
        out = self.path(f"out{len(os.listdir(self.path('.')))}")
        result = run("revert", self.path("in"), "-o", out, *arguments)
        self.assert_done(result)
        return read_checkpoint(out), result

    def test_kimis_names(self):
        write_checkpoint(self.path("in"), KIMI, KIMI_MEMORY)
        got, result = self.revert()
        self.assertEqual(got, KIMI_HUB)
        self.assertRegex(result.stderr, r"note: for \d tensors moonshotai/Kimi-K2.5's published name is taken where the rules alone "
                                        r"would give another \(--by-rules takes those of the rules\)")
        self.assertNotIn("warning", result.stderr)

    def test_minimaxs_names_whatever_mapping_was_stated(self):
        for version in ("5.17.0", "5.24.0"):
            out = self.path(version)
            self.assert_done(run("revert", f"{SAMPLE}/export", "-o", out, "--transformers", version))
            self.assert_done(run("verify", out, "--reference", f"{SAMPLE}/hub"))
            self.assertLessEqual(set(read_checkpoint(f"{SAMPLE}/hub")), set(read_checkpoint(out)))

    def test_deepseeks_names_and_leaves(self):
        for tensors, quantization in ((hub(), FP8), (pro(), PRO)):
            with self.subTest(quantization.get("quant_algo")):
                self.setUp()
                write_checkpoint(self.path("hub"), V4_CONFIG | {"quantization_config": quantization}, tensors)
                self.assert_done(run("apply", self.path("hub"), "-o", self.path("in")))
                got, _ = self.revert()
                self.assertEqual(got, as_dict(tensors))

    def test_experts_that_an_export_has_a_part_of(self):
        memory = [t for i in (1, 3) for t in nvfp4(f"model.language_model.layers.3.mlp.experts.{i}.down_proj", 32, 64)]
        write_checkpoint(self.path("in"), minimax_config(), memory)
        got, _ = self.revert("--transformers", "5.17.0")
        self.assertEqual(got, as_dict(renamed(memory, ("model.language_model.layers.3.mlp.experts.1.down_proj",
                                                       "language_model.model.layers.3.block_sparse_moe.experts.1.w2"),
                                              ("model.language_model.layers.3.mlp.experts.3.down_proj",
                                               "language_model.model.layers.3.block_sparse_moe.experts.3.w2"))))

    def test_published_names_are_hub_names_already(self):
        write_checkpoint(self.path("in"), KIMI, [(name, *rest) for name, rest in KIMI_HUB.items()])
        got, result = self.revert()
        self.assertEqual(got, KIMI_HUB)
        self.assertIn("the export has hub names already", result.stderr)

    def test_a_reference_wins_and_a_contradiction_is_told(self):
        write_checkpoint(self.path("in"), KIMI, KIMI_MEMORY)
        other = {name.replace(".layers.", ".blocks."): None for name in KIMI_HUB}
        write(self.path("hub/model.safetensors.index.json"), {"metadata": {}, "weight_map": {name: "a.safetensors" for name in other}})
        got, result = self.revert("--reference", self.path("hub"))
        self.assertIn("language_model.model.blocks.0.self_attn.o_proj.weight", got)
        self.assertIn("warning: the reference has other names than moonshotai/Kimi-K2.5 publishes; the reference's are taken (1: "
                      "language_model.model.blocks.0.self_attn.o_proj.weight for language_model.model.layers.0", result.stderr)
        write(self.path("hub/model.safetensors.index.json"), {"metadata": {}, "weight_map": {name: "a.safetensors" for name in KIMI_HUB}})
        self.assertNotIn("publishes", self.revert("--reference", self.path("hub"))[1].stderr)

    def test_the_rules_names_are_there_to_be_asked_for(self):
        write_checkpoint(self.path("in"), KIMI, KIMI_MEMORY)
        got, result = self.revert("--by-rules")
        self.assertIn("language_model.model.blocks.0.self_attn.o_proj.weight", got)
        self.assertIn("warning: the names are those that the mapping's rules give, and the hub may have others (", result.stderr)


class UndecidedNamesTest(ProgramTest):
    def setUp(self):
        super().setUp()
        write_checkpoint(self.path("in"), modelopt_config("M", "m"), UNDECIDED)
        write(self.path("mapping.json"), SPANNING)

    def revert(self, *arguments):
        return run("revert", self.path("in"), *arguments, "--mapping", self.path("mapping.json"))

    def test_a_run_fails_before_a_byte_is_written(self):
        result = self.revert("-o", self.path("out"))
        self.assert_fails(result, "UndecidedNamesError: 4 names are undecided", r"because of WeightRenaming \.blocks\. -> .layers.",
                          "model.text.layers.0.w.weight could be model.text.blocks.0.w.weight or model.text.layers.0.w.weight",
                          "--reference HUB", "--by-rules")
        self.assertFalse(os.path.exists(self.path("out")))
        before = {name: open(self.path(f"in/{name}"), "rb").read() for name in os.listdir(self.path("in"))}
        self.assert_fails(self.revert("--in-place"), "UndecidedNamesError")
        self.assertEqual({name: open(self.path(f"in/{name}"), "rb").read() for name in os.listdir(self.path("in"))}, before)

    def test_the_rules_names_are_taken_where_that_is_asked_for(self):
        result = self.revert("-o", self.path("out"), "--by-rules")
        self.assert_done(result)
        self.assertIn("model.text.blocks.1.w.weight", read_checkpoint(self.path("out")))
        self.assertIn("warning: the names are those that the mapping's rules give, and the hub may have others (4: ", result.stderr)

    def test_names_in_memory_are_kept_where_that_is_asked_for(self):
        result = self.revert("-o", self.path("out"), "--on-unsupported", "keep-names")
        self.assertEqual(result.returncode, 3, result.stderr)
        self.assertEqual(read_checkpoint(self.path("out")), as_dict(UNDECIDED))

    def test_what_writes_nothing_only_warns(self):
        result = self.revert("--plan")
        self.assert_done(result)
        self.assertIn("warning: 4 names are undecided", result.stderr)
        write_checkpoint(self.path("hub"), modelopt_config("M", "m"), renamed(UNDECIDED, ("layers", "blocks")))
        result = run("diff", "--map", self.path("in"), self.path("hub"), "--mapping", self.path("mapping.json"))
        self.assert_done(result)

    def test_a_reference_decides(self):
        write_checkpoint(self.path("hub"), modelopt_config("M", "m"), renamed(UNDECIDED, ("vision.layers", "vision.blocks")))
        self.assert_done(self.revert("-o", self.path("out"), "--reference", self.path("hub")))
        self.assertEqual(set(read_checkpoint(self.path("out"))), set(read_checkpoint(self.path("hub"))))


class FoundReferenceTest(ProgramTest):
    ID = "some-org/Kimi-Tuned"

    def setUp(self):
        super().setUp()
        self.env = {"HF_HUB_CACHE": self.path("cache")}
        self.other = {name.replace(".layers.", ".blocks."): rest for name, rest in KIMI_HUB.items()}

    def cache(self, names, config=KIMI, revision="abc"):
        model = self.path(f"cache/models--{self.ID.replace('/', '--')}")
        write(f"{model}/refs/main", revision.encode())
        write(f"{model}/snapshots/{revision}/config.json", config)
        write(f"{model}/snapshots/{revision}/model.safetensors.index.json",
              {"metadata": {}, "weight_map": {name: "model-00001-of-00001.safetensors" for name in names}})
        return f"{model}/snapshots/{revision}"

    def export(self, config=None, card=None):
        write_checkpoint(self.path("in"), KIMI | (config or {}), KIMI_MEMORY, extra={"README.md": card} if card else None)

    def revert(self, *arguments, env=None):
        out = self.path(f"out{len(os.listdir(self.path('.')))}")
        result = run("revert", self.path("in"), "-o", out, *arguments, env=env or self.env)
        self.assert_done(result)
        return read_checkpoint(out), result

    def test_by_the_configs_path_and_by_the_model_card(self):
        snapshot = self.cache(self.other)
        for config, card, who in (({"_name_or_path": self.ID}, None, "config.json's _name_or_path"),
                                  (None, f"---\nlicense: mit\nbase_model: {self.ID}\n---\n# It\n".encode(), "the model card's base_model"),
                                  (None, f"---\nbase_model:\n- none/There\n- \"{self.ID}\"\ntags: [a]\n---\n".encode(), "the model card's base_model"),
                                  (None, f"---\nbase_model: [none/There, {self.ID}]\n---\n".encode(), "the model card's base_model"),
                                  ({"_name_or_path": "/data/models/x"}, f"---\nbase_model: {self.ID}\n---\n".encode(), "the model card's base_model")):
            with self.subTest(who):
                self.export(config, card)
                got, result = self.revert()
                self.assertEqual(set(got), set(self.other))
                self.assertIn(f"note: the reference is {self.ID} of the Hugging Face cache, which {who} names ({snapshot}", result.stderr)

    def test_where_the_libraries_would_look(self):
        self.cache(self.other)
        os.makedirs(self.path("home/.cache/huggingface"))
        os.symlink(self.path("cache"), self.path("home/.cache/huggingface/hub"))
        os.makedirs(self.path("hf"))
        os.symlink(self.path("cache"), self.path("hf/hub"))
        self.export({"_name_or_path": self.ID})
        none = {"HF_HUB_CACHE": "", "HUGGINGFACE_HUB_CACHE": "", "HF_HOME": "", "XDG_CACHE_HOME": ""}
        for env in ({"HOME": self.path("home")}, {"HF_HOME": self.path("hf")}, {"XDG_CACHE_HOME": self.path("home/.cache")}):
            self.assertEqual(set(self.revert(env=none | env)[0]), set(self.other), env)

    def test_what_leaves_it_aside(self):
        self.cache(self.other)
        self.export({"_name_or_path": self.ID})
        self.assertEqual(self.revert("--no-reference")[0], KIMI_HUB)
        self.assertIn("vision_tower.encoder.patch_embed.proj.weight", self.revert("--by-rules")[0])
        self.cache(self.other, KIMI | {"model_type": "another"})
        self.assertEqual(self.revert()[0], KIMI_HUB)
        for id in ("../../in", "models", "a/b/c", "/etc", "a/.."):
            self.export({"_name_or_path": id})
            self.assertEqual(self.revert()[0], KIMI_HUB)

    def test_one_that_contradicts_the_export_is_left_aside_with_a_warning(self):
        self.cache(["language_model.model.norm.weight"])
        self.export({"_name_or_path": self.ID})
        got, result = self.revert()
        self.assertEqual(got, KIMI_HUB)
        self.assertIn("but contradicts the export: ", result.stderr)

    def test_verify_finds_one_too(self):
        snapshot = self.cache(KIMI_HUB)
        write_checkpoint(self.path("in"), KIMI | {"_name_or_path": self.ID}, [(name, *rest) for name, rest in KIMI_HUB.items()])
        result = run("verify", self.path("in"), env=self.env)
        self.assertIn(f"note: the reference is {self.ID} of the Hugging Face cache", result.stderr)
        self.assertNotIn("the reference has no tensor", result.stderr)
        self.assertIn(snapshot, json.loads(run("verify", self.path("in"), "--json", env=self.env).stdout)["reference"])
        self.cache(self.other)
        self.assert_fails(run("verify", self.path("in"), env=self.env), "the reference has no tensor of this name")
        none = run("verify", self.path("in"), env={"HF_HUB_CACHE": self.path("none")})
        self.assertEqual(none.returncode, 2)
        self.assertRegex(none.stderr, "no reference is given.*--reference HUB.*--no-reference")
        alone = run("verify", self.path("in"), "--no-reference", env=self.env)
        self.assertNotIn("the reference has", alone.stderr + alone.stdout)
        self.assertIn("names and shapes are held against nothing", alone.stderr)


if __name__ == "__main__":
    unittest.main()
