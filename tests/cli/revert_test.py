"""Reverting tiny exports, end to end: names, shapes and bytes of every tensor that comes out."""
import unittest

import exports
from exports import (as_dict, bf16, entry, fp8, minimax_config, mixtral_config, nvfp4, radio_config, renamed, rows,
                     tensor)
from program import read_checkpoint, run, write_checkpoint
from revert_case import RevertTest

W = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}  # linears of an expert, in memory and on Mixtral's hub
NVFP4_LEAVES = ("weight", "weight_scale", "weight_scale_2", "input_scale")


class ExpandedExpertsTest(RevertTest):
    def test_nvfp4_experts_get_the_names_of_mixtral(self):
        container, hub = "model.layers.0.mlp.experts", "model.layers.0.block_sparse_moe.experts"
        export, want = [], {}
        for i in range(3):
            for linear, short in W.items():
                module = nvfp4(f"{container}.{i}.{linear}", 32, 64, scalars=f"expert {i} {linear == 'down_proj'}")
                export += module
                want |= as_dict(renamed(module, (f"{container}.{i}.{linear}.", f"{hub}.{i}.{short}.")))
        router = bf16("model.layers.0.mlp.gate.weight", 3, 64)
        want |= as_dict(renamed([router], (".mlp.", ".block_sparse_moe.")))
        plain = [bf16("model.embed_tokens.weight", 8, 64), bf16("model.norm.weight", 64), bf16("lm_head.weight", 8, 64)]
        self.assert_tensors(self.revert(mixtral_config(), export + [router] + plain), want | as_dict(plain))

    def test_experts_named_as_in_memory_inside_the_hubs_container_are_not_taken_for_the_hubs(self):
        # llm-compressor saves so: the rest of the names is the hub's already.
        container = "model.layers.0.block_sparse_moe.experts"
        export, want = [], {}
        for i in range(2):
            for linear, short in W.items():
                module = fp8(f"{container}.{i}.{linear}", 32, 64)
                export += module
                want |= as_dict(renamed(module, (f"{container}.{i}.{linear}.", f"{container}.{i}.{short}.")))
        rest = [bf16("model.layers.0.block_sparse_moe.gate.weight", 2, 64), bf16("model.norm.weight", 64)]
        self.assert_tensors(self.revert(mixtral_config(algorithm="FP8"), export + rest), want | as_dict(rest))

    def test_expert_numbers_of_several_digits_stay_what_they_are(self):
        container, hub = "model.layers.11.mlp.experts", "model.layers.11.block_sparse_moe.experts"
        export, want = [], {}
        for i in range(12):
            for linear, short in W.items():
                module = nvfp4(f"{container}.{i}.{linear}", 32, 32, scalars=f"expert {i}")
                export += module
                want |= as_dict(renamed(module, (f"{container}.{i}.{linear}.", f"{hub}.{i}.{short}.")))
        self.assert_tensors(self.revert(mixtral_config(), export), want)

    def test_fp8_experts_follow_like_nvfp4_ones(self):
        container, hub = "model.layers.0.mlp.experts", "model.layers.0.block_sparse_moe.experts"
        export, want = [], {}
        for i in range(2):
            for linear, short in W.items():
                module = fp8(f"{container}.{i}.{linear}", 32, 64)
                export += module
                want |= as_dict(renamed(module, (f"{container}.{i}.{linear}.", f"{hub}.{i}.{short}.")))
        self.assert_tensors(self.revert(mixtral_config(algorithm="FP8"), export), want)

    def test_weight_only_nvfp4_experts_need_no_input_scale(self):
        container, hub = "model.layers.0.mlp.experts", "model.layers.0.block_sparse_moe.experts"
        export, want = [], {}
        for linear, short in W.items():
            module = nvfp4(f"{container}.0.{linear}", 32, 64, input_scale=False)
            export += module
            want |= as_dict(renamed(module, (f"{container}.0.{linear}.", f"{hub}.0.{short}.")))
        self.assert_tensors(self.revert(mixtral_config(algorithm="W4A16_NVFP4"), export), want)

    def test_partial_checkpoint_with_experts_of_one_layer_is_legal(self):
        module = nvfp4("model.layers.57.mlp.experts.3.up_proj", 32, 64)
        want = as_dict(renamed(module, (".mlp.experts.3.up_proj.", ".block_sparse_moe.experts.3.w3.")))
        self.assert_tensors(self.revert(mixtral_config(num_hidden_layers=2, num_local_experts=1), module), want)


class DenseFusionTest(RevertTest):
    """MiniMax-M3's dense MLP and shared experts: gate_up_proj in memory, gate_proj and up_proj on the hub."""
    MODULE = "model.language_model.layers.0.mlp.shared_experts"
    HUB = "language_model.model.layers.0.block_sparse_moe.shared_experts"

    def unfused(self, tensors, cut, size):
        """What the fused module's tensors should become; `cut` and `size` per leaf in stored rows, None for whole."""
        want = {}
        for name, dtype, shape, body in tensors:
            leaf = name.rsplit(".", 1)[1]
            for part, begin, end in (("gate_proj", 0, cut[leaf]), ("up_proj", cut[leaf], size[leaf])):
                whole = (dtype, shape, body)
                want[f"{self.HUB}.{part}.{leaf}"] = whole if cut[leaf] is None else rows(whole, begin, end)
        return want

    def check(self, tensors, cut, size, algorithm):
        want = self.unfused(tensors, cut, size)
        self.assert_tensors(self.revert(minimax_config(algorithm=algorithm), tensors), want)

    def test_nvfp4_is_cut_along_rows_and_its_scalars_are_duplicated(self):
        tensors = nvfp4(f"{self.MODULE}.gate_up_proj", 48, 64)
        cut = {"weight": 24, "weight_scale": 24, "weight_scale_2": None, "input_scale": None}
        self.check(tensors, cut, {k: v and 48 for k, v in cut.items()}, "NVFP4")

    def test_scalars_of_one_element_keep_their_dimension(self):
        module = f"{self.MODULE}.gate_up_proj"
        tensors = [tensor(f"{module}.weight", "F8_E4M3", [32, 16]), tensor(f"{module}.weight_scale", "F32", [1]),
                   tensor(f"{module}.input_scale", "F32", [1])]
        cut = {"weight": 16, "weight_scale": None, "input_scale": None}
        self.check(tensors, cut, {k: v and 32 for k, v in cut.items()}, "FP8")

    def test_fp8_per_tensor_is_cut_and_its_scale_is_duplicated(self):
        tensors = fp8(f"{self.MODULE}.gate_up_proj", 6, 16)
        cut = {"weight": 3, "weight_scale": None, "input_scale": None}
        self.check(tensors, cut, {k: v and 6 for k, v in cut.items()}, "FP8")

    def test_fp8_per_channel_scale_is_cut_with_the_rows(self):
        for shape in ([6], [6, 1]):
            with self.subTest(shape):
                self.setUp()
                tensors = fp8(f"{self.MODULE}.gate_up_proj", 6, 16, shape, input_scale=False)
                self.check(tensors, {"weight": 3, "weight_scale": 3}, {"weight": 6, "weight_scale": 6},
                           "FP8_PER_CHANNEL_PER_TOKEN")

    def test_fp8_block_scales_are_cut_at_block_borders(self):
        for leaf, shape in (("weight_scale", [4, 1, 2, 1]), ("weight_scale_inv", [4, 2])):
            with self.subTest(leaf):
                self.setUp()
                tensors = fp8(f"{self.MODULE}.gate_up_proj", 512, 256, shape, leaf, input_scale=False)
                self.check(tensors, {"weight": 256, leaf: 2}, {"weight": 512, leaf: 4}, "FP8_PB_WO")

    def test_fp8_blocks_of_another_size_are_read_from_the_config(self):
        module = f"{self.MODULE}.gate_up_proj"
        tensors = fp8(module, 64, 64, [2, 2], "weight_scale_inv", input_scale=False)
        config = minimax_config()
        config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [32, 32],
                                         "modules_to_not_convert": []}
        want = self.unfused(tensors, {"weight": 32, "weight_scale_inv": 1}, {"weight": 64, "weight_scale_inv": 2})
        self.assert_tensors(self.revert(config, tensors), want)

    def test_float_weight_is_cut(self):
        tensors = [bf16(f"{self.MODULE}.gate_up_proj.weight", 10, 16)]
        self.check(tensors, {"weight": 5}, {"weight": 10}, "NVFP4")

    def test_bias_is_cut_with_its_weight(self):
        tensors = nvfp4(f"{self.MODULE}.gate_up_proj", 32, 64, bias=True)
        cut = {"weight": 16, "weight_scale": 16, "weight_scale_2": None, "input_scale": None, "bias": 16}
        self.check(tensors, cut, {k: v and 32 for k, v in cut.items()}, "NVFP4")

    def test_parts_put_together_again_are_the_fused_tensors(self):
        tensors = nvfp4(f"{self.MODULE}.gate_up_proj", 48, 64) + nvfp4(f"{self.MODULE}.down_proj", 64, 48)
        got = self.revert(minimax_config(), tensors)
        for name, (dtype, shape, body) in as_dict(tensors[:4]).items():
            leaf = name.rsplit(".", 1)[1]
            parts = [got[f"{self.HUB}.{part}.{leaf}"] for part in ("gate_proj", "up_proj")]
            self.assertEqual({part[0] for part in parts}, {dtype})
            if shape:
                self.assertEqual(parts[0][2] + parts[1][2], body)
                self.assertEqual([parts[0][1][0] + parts[1][1][0], *parts[0][1][1:]], shape)
            else:
                self.assertEqual([part[2] for part in parts], [body, body])


class MixedPrecisionTest(RevertTest):
    def test_formats_of_one_checkpoint_are_reverted_side_by_side(self):
        layer, hub = "model.language_model.layers.0", "language_model.model.layers.0"
        down = fp8(f"{layer}.mlp.experts.0.down_proj", 32, 64)
        gate = nvfp4(f"{layer}.mlp.experts.0.gate_proj", 32, 64, "s")
        up = nvfp4(f"{layer}.mlp.experts.0.up_proj", 32, 64, "s")
        shared = fp8(f"{layer}.mlp.shared_experts.gate_up_proj", 8, 16)
        query = [bf16(f"{layer}.self_attn.q_proj.weight", 8, 16)]
        moe = f"{hub}.block_sparse_moe"
        want = as_dict(renamed(down, (f"{layer}.mlp.experts.0.down_proj", f"{moe}.experts.0.w2")))
        want |= as_dict(renamed(gate, (f"{layer}.mlp.experts.0.gate_proj", f"{moe}.experts.0.w1")))
        want |= as_dict(renamed(up, (f"{layer}.mlp.experts.0.up_proj", f"{moe}.experts.0.w3")))
        want |= as_dict(renamed(query, (layer, hub)))
        for name, value in as_dict(shared).items():
            leaf = name.rsplit(".", 1)[1]
            for part, begin in (("gate_proj", 0), ("up_proj", 4)):
                want[f"{moe}.shared_experts.{part}.{leaf}"] = rows(value, begin, begin + 4)
        config = minimax_config(algorithm="MIXED_PRECISION")
        self.assert_tensors(self.revert(config, down + gate + up + shared + query), want)

    def test_cache_scales_are_renamed_and_never_cut(self):
        layer, hub = "model.language_model.layers.0.self_attn", "language_model.model.layers.0.self_attn"
        tensors = [*nvfp4(f"{layer}.k_proj", 16, 32), *nvfp4(f"{layer}.v_proj", 16, 32),
                   tensor(f"{layer}.k_proj.k_scale", "F32", []), tensor(f"{layer}.v_proj.v_scale", "F32", [1])]
        self.assert_tensors(self.revert(minimax_config(), tensors), as_dict(renamed(tensors, (layer, hub))))

    def test_cache_scales_of_a_fused_projection_stand_once(self):
        layer, hub = "encoder.layer.0.attention.attention", "radio_model.model.blocks.0.attn.qkv"
        tensors = []
        for part in ("query", "key", "value"):
            tensors += fp8(f"{layer}.{part}", 4, 16)
        scalars = {leaf: tensor("x", "F32", [], leaf)[3] for leaf in ("weight_scale", "input_scale")}
        tensors = [(n, d, s, scalars.get(n.rsplit(".", 1)[1], b)) for n, d, s, b in tensors]
        cache = [tensor(f"{layer}.key.k_scale", "F32", []), tensor(f"{layer}.value.v_scale", "F32", [])]
        got = self.revert(radio_config(algorithm="FP8"), tensors + cache)
        self.assertEqual(sorted(got), sorted(f"{hub}.{leaf}" for leaf in
                                             ("weight", "weight_scale", "input_scale", "k_scale", "v_scale")))
        self.assertEqual(got[f"{hub}.k_scale"], ("F32", [], cache[0][3]))
        self.assertEqual(got[f"{hub}.v_scale"], ("F32", [], cache[1][3]))


class FusionOfPartsTest(RevertTest):
    LAYER, HUB = "encoder.layer.0.attention.attention", "radio_model.model.blocks.0.attn.qkv"

    def test_query_key_and_value_with_equal_scalars_become_one(self):
        parts = [as_dict(nvfp4(f"{self.LAYER}.{p}", out, 32, "qkv", bias=True))
                 for p, out in (("query", 16), ("key", 8), ("value", 8))]
        tensors = [(n, *v) for part in parts for n, v in part.items()]
        want = {}
        for leaf in (*NVFP4_LEAVES, "bias"):
            pieces = [next(v for n, v in part.items() if n.endswith(f".{leaf}")) for part in parts]
            dtype, shape, body = pieces[0]
            if shape:
                shape, body = [32, *shape[1:]], b"".join(p[2] for p in pieces)
            want[f"{self.HUB}.{leaf}"] = (dtype, shape, body)
        self.assert_tensors(self.revert(radio_config(), tensors), want)


class NoMappingTest(RevertTest):
    def test_llama_has_the_same_names_everywhere_and_is_copied(self):
        tensors = [*nvfp4("model.layers.0.mlp.gate_proj", 32, 64), *nvfp4("model.layers.0.mlp.up_proj", 32, 64),
                   bf16("model.embed_tokens.weight", 8, 64), bf16("lm_head.weight", 8, 64)]
        config = exports.modelopt_config("LlamaForCausalLM", "llama", exclude=["lm_head"])
        write_checkpoint(self.path("in"), config, tensors)
        result = run("revert", self.path("in"), "-o", self.path("out"))
        self.assert_done(result)
        self.assertIn("a plain copy", result.stderr)
        self.assert_tensors(read_checkpoint(self.path("out")), as_dict(tensors))
        with open(self.path("in/config.json"), "rb") as a, open(self.path("out/config.json"), "rb") as b:
            self.assertEqual(a.read(), b.read())


class CompositionTest(RevertTest):
    def test_llava_with_another_text_model_takes_the_rules_of_both(self):
        config = exports.modelopt_config("LlavaForConditionalGeneration", "llava",
                                         text_config={"model_type": "qwen3_moe"},
                                         vision_config={"model_type": "siglip_vision_model"})
        layer = "layers.0.mlp.experts"
        stacked = [bf16(f"model.language_model.{layer}.gate_up_proj", 2, 8, 16),
                   bf16(f"model.language_model.{layer}.down_proj", 2, 16, 4)]
        others = [bf16("model.language_model.layers.0.self_attn.q_proj.weight", 8, 16),
                  bf16("model.vision_tower.encoder.layers.0.mlp.fc1.weight", 8, 16),
                  bf16("model.multi_modal_projector.linear_1.weight", 8, 16), bf16("lm_head.weight", 8, 16)]
        want = as_dict(renamed(others, ("model.language_model.", "language_model.model."),
                               ("model.vision_tower.", "vision_tower.vision_model."),
                               ("model.multi", "multi"), ("lm_head", "language_model.lm_head")))
        gate_up, down = (as_dict(stacked)[name] for name, *_ in stacked)
        for i in range(2):
            hub = f"language_model.model.{layer}.{i}"
            want[f"{hub}.gate_proj.weight"] = rows(entry(gate_up, i), 0, 4)
            want[f"{hub}.up_proj.weight"] = rows(entry(gate_up, i), 4, 8)
            want[f"{hub}.down_proj.weight"] = entry(down, i)
        self.assert_tensors(self.revert(config, stacked + others), want)


if __name__ == "__main__":
    unittest.main()
