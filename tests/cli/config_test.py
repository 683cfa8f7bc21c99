"""Module references in config.json and hf_quant_config.json: rewritten by meaning, exact names, globs and
patterns alike.
"""
import json
import unittest

from exports import bf16, hf_quant_config, minimax_config, mixtral_config, nvfp4, radio_config
from modules import all_matched
from program import ProgramTest, read_checkpoint, run, write_checkpoint

TEXT, HUB = "model.language_model.layers", "language_model.model.layers"
VISION, HUB_VISION = "model.vision_tower", "vision_tower.vision_model"
PROJECTOR = "model.multi_modal_projector"

# A tiny MiniMax-M3: in-memory module -> hub modules. Layers 0 and 1, 2 and 10, to tell `layers.1` from `layers.10`.
MODULES = {"lm_head": ["language_model.lm_head"],
           "model.language_model.embed_tokens": ["language_model.model.embed_tokens"],
           "model.language_model.norm": ["language_model.model.norm"],
           f"{VISION}.pre_layrnorm": [f"{HUB_VISION}.pre_layrnorm"],
           f"{VISION}.embeddings.proj": [f"{HUB_VISION}.embeddings.patch_embedding"],
           f"{VISION}.layers.0.self_attn.q_proj": [f"{HUB_VISION}.encoder.layers.0.self_attn.q_proj"],
           f"{PROJECTOR}.linear_1": ["multi_modal_projector.linear_1"],
           f"{PROJECTOR}.linear_2": ["multi_modal_projector.linear_2"],
           f"{PROJECTOR}.merge_linear_1": ["patch_merge_mlp.linear_1"],
           f"{PROJECTOR}.merge_linear_2": ["patch_merge_mlp.linear_2"]}
for _i in (0, 1, 10):
    _in, _moe = f"{TEXT}.{_i}", f"{HUB}.{_i}.block_sparse_moe"
    MODULES |= {f"{_in}.self_attn.{p}_proj": [f"{HUB}.{_i}.self_attn.{p}_proj"] for p in "qkvo"}
    MODULES |= {f"{_in}.self_attn.indexer.q_proj": [f"{HUB}.{_i}.self_attn.index_q_proj"],
                f"{_in}.input_layernorm": [f"{HUB}.{_i}.input_layernorm"],
                f"{_in}.mlp.gate": [f"{_moe}.gate"],
                f"{_in}.mlp.shared_experts.down_proj": [f"{_moe}.shared_experts.down_proj"],
                f"{_in}.mlp.shared_experts.gate_up_proj": [f"{_moe}.shared_experts.gate_proj",
                                                           f"{_moe}.shared_experts.up_proj"]}
    for _e in (0, 1):
        MODULES |= {f"{_in}.mlp.experts.{_e}.{a}_proj": [f"{_moe}.experts.{_e}.{b}"]
                    for a, b in (("gate", "w1"), ("up", "w3"), ("down", "w2"))}
TENSORS = [bf16(f"{module}.weight", 4, 8) for module in MODULES]


def read_json(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


class ConfigCase(ProgramTest):
    def rewritten(self, quantization, hf_quantization, tensors=None, config=None):
        """Both quantization objects after a revert of the tiny model."""
        config = config or minimax_config()
        config["quantization_config"] |= quantization
        hf_quant = hf_quant_config()
        hf_quant["quantization"] |= hf_quantization
        write_checkpoint(self.path("in"), config, tensors or TENSORS, extra={"hf_quant_config.json": hf_quant})
        self.assert_done(run("revert", self.path("in"), "-o", self.path("out")))
        return (read_json(self.path("out/config.json"))["quantization_config"],
                read_json(self.path("out/hf_quant_config.json"))["quantization"])

    def exclude(self, *entries, **more):
        """The exclude list `entries` becomes; both files must have the same."""
        config, hf_quant = self.rewritten({"ignore": list(entries)}, {"exclude_modules": list(entries)}, **more)
        self.assertEqual(config["ignore"], hf_quant["exclude_modules"])
        return config["ignore"]

    def assert_meaning(self, before, after):
        """The entries match exactly the hub modules of what they matched in memory."""
        want = {hub for module in all_matched(before, MODULES) for hub in MODULES[module]}
        every = {hub for hubs in MODULES.values() for hub in hubs}
        self.assertEqual(all_matched(after, every), want, f"{before} became {after}")

    def check(self, *entries):
        after = self.exclude(*entries)
        self.assert_meaning(entries, after)
        return after


class ConfigTest(ConfigCase):
    def test_the_tiny_model_is_what_this_test_believes(self):
        self.exclude("lm_head")
        got = {name.removesuffix(".weight") for name in read_checkpoint(self.path("out"))}
        self.assertEqual(got, {hub for hubs in MODULES.values() for hub in hubs})

    def test_exact_names(self):
        after = self.check("lm_head", f"{TEXT}.1.mlp.gate", f"{TEXT}.10.self_attn.indexer.q_proj")
        self.assertEqual(after, ["language_model.lm_head", f"{HUB}.1.block_sparse_moe.gate",
                                 f"{HUB}.10.self_attn.index_q_proj"])

    def test_exact_name_of_a_fused_module_becomes_two(self):
        after = self.check(f"{TEXT}.1.mlp.shared_experts.gate_up_proj")
        self.assertEqual(after, [f"{HUB}.1.block_sparse_moe.shared_experts.{p}_proj" for p in ("gate", "up")])

    def test_names_of_whole_subtrees(self):
        after = self.check(f"{TEXT}.1", f"{TEXT}.10.mlp.experts", VISION)
        self.assertEqual(after[:2], [f"{HUB}.1", f"{HUB}.10.block_sparse_moe.experts"])
        self.setUp()
        self.check("model.language_model")

    def test_glob_behind_a_module(self):
        self.assertEqual(self.check("lm_head*"), ["language_model.lm_head*"])

    def test_glob_behind_a_layer_also_takes_layers_that_begin_alike(self):
        self.assertEqual(self.check(f"{TEXT}.0*"), [f"{HUB}.0*"])
        self.setUp()
        self.assertEqual(self.check(f"{TEXT}.1*"), [f"{HUB}.1*"])
        self.setUp()
        self.assertEqual(self.check(f"{TEXT}.1.*"), [f"{HUB}.1.*"])

    def test_globs_as_modelopt_writes_them(self):
        self.check("lm_head", "model.language_model.embed_tokens", f"{TEXT}.0*", f"{TEXT}.1.mlp.gate",
                   f"{TEXT}.1.mlp.shared_experts*", f"{TEXT}.1.self_attn*", f"{PROJECTOR}*", f"{VISION}*")

    def test_glob_over_the_projector_becomes_two_modules(self):
        self.assertEqual(sorted(self.check(f"{PROJECTOR}*")), ["multi_modal_projector*", "patch_merge_mlp*"])

    def test_name_of_the_projector_becomes_two_modules(self):
        self.assertEqual(sorted(self.check(PROJECTOR)), ["multi_modal_projector", "patch_merge_mlp"])

    def test_globs_with_a_star_in_front(self):
        for entry in ("*lm_head", "*.mlp.gate", "*.mlp.gate*", "*gate*", "*experts*", "*.self_attn.*", "*.indexer.*",
                      "*_proj", "*"):
            with self.subTest(entry):
                self.setUp()
                self.check(entry)

    def test_globs_with_a_star_in_the_middle(self):
        for entry in (f"{TEXT}.*.mlp.gate", f"{TEXT}.*.mlp.shared_experts.*", f"{TEXT}.*.self_attn*", "model*norm",
                      f"{TEXT}.?.mlp.gate", f"{TEXT}.[01].mlp.experts.[!0].*", f"{TEXT}.1*.mlp.gate"):
            with self.subTest(entry):
                self.setUp()
                self.check(entry)

    def test_patterns(self):
        for entry in ("re:.*self_attn.*", r"re:.*\.mlp\.gate$", "re:lm_head", rf"re:{TEXT}\.1\..*".replace("_", "."),
                      r"re:.*mlp\.experts\.\d+\.(gate|up)_proj$", "re:.*gate_up_proj", "re:model.vision.*", "re:.*",
                      "re:.*layernorm"):
            with self.subTest(entry):
                self.setUp()
                self.check(entry)

    def test_pattern_that_means_the_same_on_the_hub_stays(self):
        self.assertEqual(self.check("re:.*self_attn\\..*"), ["re:.*self_attn\\..*"])

    def test_module_whose_name_begins_another_ones_stays_alone(self):
        self.check(f"{TEXT}.1.mlp.gate", f"{TEXT}.0.mlp.experts.1.gate_proj")

    def test_entries_are_not_repeated(self):
        after = self.check(f"{TEXT}.1.mlp.gate", f"{TEXT}.1.mlp.gate", "lm_head", "lm_head")
        self.assertEqual(after, [f"{HUB}.1.block_sparse_moe.gate", "language_model.lm_head"])

    def test_layers_that_a_partial_checkpoint_lacks_are_renamed_by_rule(self):
        after = self.exclude(f"{TEXT}.57.mlp.gate", f"{TEXT}.57*", f"{TEXT}.57.self_attn*", f"{TEXT}.57")
        self.assertEqual(after, [f"{HUB}.57.block_sparse_moe.gate", f"{HUB}.57*", f"{HUB}.57.self_attn*", f"{HUB}.57"])

    def test_entries_that_match_nothing_match_nothing_afterwards(self):
        for entry in ("mtp.layers.0*", "model.mtp.fc", "re:.*no_such.*", "*no_such*", "lm_head2"):
            with self.subTest(entry):
                self.setUp()
                self.assertEqual(len(self.check(entry)), 1)

    def test_list_of_another_producer(self):
        entries = ["lm_head", f"{TEXT}.0.mlp.gate"]
        config, _ = self.rewritten({"modules_to_not_convert": entries}, {})
        self.assertEqual(config["modules_to_not_convert"],
                         ["language_model.lm_head", f"{HUB}.0.block_sparse_moe.gate"])

    def test_keys_of_quantized_layers(self):
        nvfp4_layer, fp8_layer = {"quant_algo": "NVFP4", "group_size": 16}, {"quant_algo": "FP8"}
        layers = {f"{TEXT}.1.self_attn.q_proj": fp8_layer, f"{TEXT}.1.mlp.shared_experts.gate_up_proj": nvfp4_layer,
                  f"{TEXT}.0.mlp.experts.0.down_proj": nvfp4_layer, f"{TEXT}.10.mlp.experts": nvfp4_layer}
        config, hf_quant = self.rewritten({"quantized_layers": layers}, {"quantized_layers": layers})
        moe = "block_sparse_moe"
        want = {f"{HUB}.1.self_attn.q_proj": fp8_layer, f"{HUB}.1.{moe}.shared_experts.gate_proj": nvfp4_layer,
                f"{HUB}.1.{moe}.shared_experts.up_proj": nvfp4_layer, f"{HUB}.0.{moe}.experts.0.w2": nvfp4_layer,
                f"{HUB}.10.{moe}.experts": nvfp4_layer}
        self.assertEqual(config["quantized_layers"], want)
        self.assertEqual(hf_quant["quantized_layers"], want)

    def test_targets_of_config_groups(self):
        groups = {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4}},
                  "group_1": {"targets": [f"{TEXT}.1.self_attn.q_proj", f"re:{TEXT}.*mlp.experts.*", "MiniMaxExpert"]},
                  "group_2": {"weights": None}}
        config, _ = self.rewritten({"config_groups": groups}, {})
        got = config["config_groups"]
        self.assertEqual(got["group_0"], groups["group_0"])
        self.assertEqual(got["group_2"], groups["group_2"])
        self.assertIn("MiniMaxExpert", got["group_1"]["targets"])
        self.assertIn(f"{HUB}.1.self_attn.q_proj", got["group_1"]["targets"])
        self.assert_meaning(groups["group_1"]["targets"], got["group_1"]["targets"])

    def test_quantization_without_module_lists_is_left_alone(self):
        write_checkpoint(self.path("in"), {"architectures": ["MixtralForCausalLM"], "quantization_config": None},
                         [bf16("model.layers.0.mlp.gate.weight", 4, 8)])
        self.assert_done(run("revert", self.path("in"), "-o", self.path("out")))
        self.assertIsNone(read_json(self.path("out/config.json"))["quantization_config"])

    def test_hf_quant_config_alone_is_rewritten_as_well(self):
        config = minimax_config()
        del config["quantization_config"]
        write_checkpoint(self.path("in"), config, TENSORS,
                         extra={"hf_quant_config.json": hf_quant_config([f"{TEXT}.0.mlp.gate"])})
        self.assert_done(run("revert", self.path("in"), "-o", self.path("out")))
        self.assertEqual(read_json(self.path("out/hf_quant_config.json"))["quantization"]["exclude_modules"],
                         [f"{HUB}.0.block_sparse_moe.gate"])
        self.assertEqual(read_json(self.path("out/config.json")), config)

    def test_quantization_below_the_text_config_is_rewritten(self):
        config = minimax_config()
        config["text_config"]["quantization_config"] = {"ignore": [f"{TEXT}.0.mlp.gate"]}
        write_checkpoint(self.path("in"), config, TENSORS)
        self.assert_done(run("revert", self.path("in"), "-o", self.path("out")))
        self.assertEqual(read_json(self.path("out/config.json"))["text_config"]["quantization_config"]["ignore"],
                         [f"{HUB}.0.block_sparse_moe.gate"])

    def test_list_entries_that_are_not_names_are_kept(self):
        config, _ = self.rewritten({"ignore": [None, 3, "lm_head"]}, {})
        self.assertEqual(config["ignore"], [None, 3, "language_model.lm_head"])


class OtherModelsTest(ConfigCase):
    def test_three_excluded_modules_that_become_one(self):
        layer = "encoder.layer.0.attention.attention"
        tensors = [bf16(f"{layer}.{part}.weight", 4, 8) for part in ("query", "key", "value")]
        after = self.exclude(*(f"{layer}.{part}" for part in ("query", "key", "value")), config=radio_config(),
                             tensors=tensors)
        self.assertEqual(after, ["radio_model.model.blocks.0.attn.qkv"])

    def test_container_of_stacked_experts(self):
        tensors = [bf16("model.layers.0.mlp.experts.gate_up_proj", 2, 8, 16),
                   bf16("model.layers.0.mlp.experts.down_proj", 2, 16, 4),
                   bf16("model.layers.0.mlp.gate.weight", 2, 16), *nvfp4("model.layers.0.self_attn.q_proj", 32, 64)]
        after = self.exclude("model.layers.0.mlp.experts", config=mixtral_config(), tensors=tensors)
        every = {name.rpartition(".")[0] for name in read_checkpoint(self.path("out"))}
        hub = "model.layers.0.block_sparse_moe.experts"
        self.assertEqual(all_matched(after, every), {f"{hub}.{i}.w{k}" for i in range(2) for k in (1, 2, 3)})


if __name__ == "__main__":
    unittest.main()
