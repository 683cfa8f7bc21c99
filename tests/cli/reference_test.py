"""--reference: the hub's own names decide, and what contradicts them is an error."""
import os
import unittest

import exports
from exports import as_dict, bf16, fp8, minimax_config, mixtral_config, nvfp4, renamed, rows, tensor
from program import ProgramTest, read_checkpoint, run, write, write_checkpoint

INDEX = "model.safetensors.index.json"
HINT = "(is it the checkpoint this export was made from?)"


class ReferenceTest(ProgramTest):
    def write_reference(self, tensors, config=None):
        write_checkpoint(self.path("hub"), config or {}, tensors)
        return self.path("hub")

    def write_index(self, names):
        write(self.path(f"hub/{INDEX}"), {"metadata": {"total_size": 1},
                                          "weight_map": {n: "model-00001-of-00001.safetensors" for n in names}})
        return self.path(f"hub/{INDEX}")

    def revert(self, config, tensors, reference, *args):
        write_checkpoint(self.path("in"), config, tensors)
        return run("revert", self.path("in"), "-o", self.path("out"), "--reference", reference, *args)

    def assert_reverted(self, result, want):
        self.assert_done(result)
        got = read_checkpoint(self.path("out"))
        self.assertEqual(sorted(got), sorted(want))
        self.assertEqual(got, want)


class KimiTest(ReferenceTest):
    """Kimi-K2.5 renames `blocks` to `layers` at load, meant for the vision tower. Reversed it hits the text too."""
    TEXT = [t for name in ("self_attn.o_proj", "mlp.down_proj") for i in range(2)
            for t in nvfp4(f"model.language_model.layers.{i}.{name}", 32, 64)]
    PLAIN = [bf16("model.language_model.layers.0.input_layernorm.weight", 8),
             bf16("model.language_model.norm.weight", 8), bf16("lm_head.weight", 4, 8)]
    VISION = [bf16(f"model.vision_tower.layers.{i}.{name}", 8) for i in range(2)
              for name in ("norm1.weight", "norm2.weight", "attn.proj.bias", "mlp.fc1.bias", "mlp.fc2.bias")]

    @staticmethod
    def config(**more):
        return exports.modelopt_config("Kimi_K25ForConditionalGeneration", "kimi_k25",
                                       text_config={"model_type": "deepseek_v3"},
                                       vision_config={"model_type": "kimi_k25_vision"}, **more)

    def hub(self, layers):
        """The names of the hub, whose text layers are called `layers`."""
        want = as_dict(renamed(self.TEXT + self.PLAIN,
                               ("model.language_model.layers", f"language_model.model.{layers}"),
                               ("model.language_model", "language_model.model"), ("lm_head", "language_model.lm_head")))
        short = {"norm1.weight": "norm0.weight", "norm2.weight": "norm1.weight", "attn.proj.bias": "wo.bias",
                 "mlp.fc1.bias": "mlp.fc0.bias", "mlp.fc2.bias": "mlp.fc1.bias"}
        for name, value in as_dict(self.VISION).items():
            number, leaf = name.removeprefix("model.vision_tower.layers.").split(".", 1)
            want[f"vision_tower.encoder.blocks.{number}.{short[leaf]}"] = value
        return want

    def test_reference_of_an_index_alone_wins(self):
        want = self.hub("layers")
        values = [n for n in want if not n.endswith(("_scale", "_scale_2"))]
        result = self.revert(self.config(exclude=["model.vision_tower*", "model.language_model.norm"]),
                             self.TEXT + self.PLAIN + self.VISION, self.write_index(values))
        self.assert_reverted(result, want)
        self.assertNotIn("ambiguous", result.stderr)
        self.assertIn("note: for 5 tensors the reference's name is taken where the rules alone would give another",
                      result.stderr)
        self.assertIn("language_model.model.layers.0.self_attn.o_proj.weight (rules: "
                      "language_model.model.blocks.0.self_attn.o_proj.weight)", result.stderr)

    def test_folder_with_an_index_alone_is_a_reference(self):
        want = self.hub("layers")
        self.write_index([n for n in want if not n.endswith(("_scale", "_scale_2"))])
        result = self.revert(self.config(), self.TEXT + self.PLAIN + self.VISION, self.path("hub"))
        self.assert_reverted(result, want)

    def test_without_a_reference_the_rules_names_are_counted(self):
        write_checkpoint(self.path("in"), self.config(), self.TEXT + self.PLAIN + self.VISION)
        result = run("revert", self.path("in"), "-o", self.path("out"), "--by-rules")
        self.assert_reverted(result, self.hub("blocks"))
        self.assertRegex(result.stderr, r"warning: the names are those that the mapping's rules give, and the hub may have others \(\d+: ")
        self.assertIn("model.language_model.layers.0.input_layernorm.weight could be "
                      "language_model.model.blocks.0.input_layernorm.weight or "
                      "language_model.model.layers.0.input_layernorm.weight", result.stderr)


class NamesOfTheReferenceTest(ReferenceTest):
    def test_prefix_that_the_reference_does_not_have_is_not_added(self):
        config = exports.modelopt_config("LlavaForConditionalGeneration", "llava",
                                         text_config={"model_type": "llama"},
                                         vision_config={"model_type": "clip_vision_model"})
        tensors = [bf16("model.vision_tower.encoder.layers.0.mlp.fc1.weight", 8, 16),
                   bf16("model.vision_tower.pre_layrnorm.weight", 8), bf16("model.language_model.norm.weight", 8)]
        want = renamed(tensors, ("model.vision_tower", "vision_tower"),
                       ("model.language_model", "language_model.model"))
        self.assert_reverted(self.revert(config, tensors, self.write_reference(want)), as_dict(want))

    def test_reference_that_is_quantized_itself(self):
        hub = "model.layers.0.block_sparse_moe.experts"
        reference = [t for i in range(2) for k in (1, 2, 3)
                     for t in fp8(f"{hub}.{i}.w{k}", 256, 128, [2, 1], "weight_scale_inv", input_scale=False)]
        fp8_config = {"quant_method": "fp8", "weight_block_size": [128, 128]}
        self.write_reference(reference, {"quantization_config": fp8_config})
        tensors, want = [], {}
        for i in range(2):
            for linear, short in (("gate_proj", "w1"), ("down_proj", "w2"), ("up_proj", "w3")):
                module = nvfp4(f"model.layers.0.mlp.experts.{i}.{linear}", 256, 128, scalars=f"{i}")
                tensors += module
                want |= as_dict(renamed(module, (f"model.layers.0.mlp.experts.{i}.{linear}", f"{hub}.{i}.{short}")))
        self.assert_reverted(self.revert(mixtral_config(), tensors, self.path("hub")), want)

    def test_names_that_the_reference_settles_against_the_rules(self):
        tensors = [bf16("model.language_model.layers.0.mlp.gate_up_proj.weight", 8, 16),
                   bf16("model.language_model.layers.1.mlp.shared_experts.gate_up_proj.weight", 8, 16)]
        dense = "language_model.model.layers.0.mlp"
        shared = "language_model.model.layers.1.block_sparse_moe.shared_experts"
        want = {f"{m}.{part}_proj.weight": rows(tensors[i][1:], begin, begin + 4)
                for i, m in enumerate((dense, shared)) for part, begin in (("gate", 0), ("up", 4))}
        reference = [bf16(name, 4, 16) for name in want]
        self.assert_reverted(self.revert(minimax_config(), tensors, self.write_reference(reference)), want)


class MismatchTest(ReferenceTest):
    EXPORT = [bf16("model.layers.0.mlp.gate.weight", 4, 8), *nvfp4("model.layers.0.self_attn.q_proj", 32, 64),
              bf16("model.layers.0.mlp.experts.down_proj", 2, 8, 16)]
    HUB = [bf16("model.layers.0.block_sparse_moe.gate.weight", 4, 8),
           bf16("model.layers.0.self_attn.q_proj.weight", 32, 64),
           *(bf16(f"model.layers.0.block_sparse_moe.experts.{i}.w2.weight", 8, 16) for i in range(2))]

    def assert_refused(self, result, *errors):
        self.assert_fails(result, *errors)
        self.assertEqual(result.stderr.count("error: "), len(errors), result.stderr)
        self.assert_nothing_left()

    def test_this_pair_agrees(self):
        result = self.revert(mixtral_config(), self.EXPORT, self.write_reference(self.HUB), "--strict")
        self.assert_done(result)
        # The config excludes nothing, and the experts are not quantized.
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        self.assertIn("(1: model.layers.0.mlp.experts)", result.stderr)

    def test_every_logical_shape_that_differs_is_listed(self):
        hub = [bf16("model.layers.0.block_sparse_moe.gate.weight", 4, 9),
               bf16("model.layers.0.self_attn.q_proj.weight", 32, 32), *self.HUB[2:]]
        self.assert_refused(
            self.revert(mixtral_config(), self.EXPORT, self.write_reference(hub)),
            "error: ReferenceMismatchError: model.layers.0.block_sparse_moe.gate.weight: the logical shape is [4, 8], "
            f"the reference's [4, 9] {HINT}",
            "error: ReferenceMismatchError: model.layers.0.self_attn.q_proj.weight: the logical shape is [32, 64], the "
            f"reference's [32, 32] {HINT}")

    def test_stack_of_more_experts_than_the_reference_has(self):
        self.assert_refused(self.revert(mixtral_config(), self.EXPORT, self.write_reference(self.HUB[:-1])),
                            f"the export stacks 2 experts, the reference has 1 {HINT}")

    def test_every_name_that_the_reference_lacks_is_listed(self):
        ghosts = [bf16("model.layers.0.mlp.ghost.weight", 4, 8), bf16("model.extra", 3)]
        self.assert_refused(self.revert(mixtral_config(), self.EXPORT + ghosts, self.write_reference(self.HUB)),
                            "ghost.weight: the reference has no tensor of this name",
                            "model.extra: the reference has no tensor of this name")

    def test_ghost_beside_an_index_alone(self):
        ghosts = [bf16("model.layers.0.mlp.ghost.weight", 4, 8)]
        index = self.write_index(t[0] for t in self.HUB)
        self.assert_refused(self.revert(mixtral_config(), self.EXPORT + ghosts, index),
                            "ghost.weight: the reference has no tensor of this name")

    def test_names_that_only_the_reference_has_are_listed(self):
        hub = self.HUB + [bf16("model.norm.weight", 8), bf16("model.layers.1.self_attn.q_proj.weight", 32, 64)]
        result = self.revert(mixtral_config(), self.EXPORT, self.write_reference(hub))
        self.assert_done(result)
        self.assertIn("note: 2 tensors are only in the reference:", result.stderr)
        for name in ("model.norm.weight", "model.layers.1.self_attn.q_proj.weight"):
            self.assertIn(name, result.stderr)

    def test_names_that_only_the_reference_has_are_errors_when_strict(self):
        hub = self.HUB + [bf16("model.norm.weight", 8), bf16("model.layers.1.self_attn.q_proj.weight", 32, 64)]
        self.assert_refused(self.revert(mixtral_config(), self.EXPORT, self.write_reference(hub), "--strict"),
                            "model.norm.weight: only the reference has this tensor",
                            "model.layers.1.self_attn.q_proj.weight: only the reference has this tensor")

    def test_two_tensors_for_one_name_of_the_reference(self):
        twice = [*self.EXPORT, bf16("model.layers.0.block_sparse_moe.gate.weight", 4, 8)]
        self.assert_refused(self.revert(mixtral_config(), twice, self.write_reference(self.HUB)), "NameCollisionError")

    def test_another_models_reference(self):
        hub = [bf16(f"transformer.h.{i}.attn.weight", 4, 4) for i in range(3)]
        result = self.revert(mixtral_config(), self.EXPORT, self.write_reference(hub))
        self.assert_fails(result, "ReferenceMismatchError", "the reference has no tensor of this name")
        self.assert_nothing_left()

    def test_mismatch_is_not_excused_by_keep_names(self):
        ghosts = [bf16("model.extra", 3)]
        self.assert_refused(self.revert(mixtral_config(), self.EXPORT + ghosts, self.write_reference(self.HUB),
                                        "--on-unsupported", "keep-names"), "model.extra")

    def test_reference_that_is_not_there(self):
        self.assert_fails(self.revert(mixtral_config(), self.EXPORT, self.path("nowhere")), "nowhere")
        self.assert_nothing_left()

    def test_reference_folder_without_weights_and_index(self):
        os.mkdir(self.path("hub"))
        self.assert_fails(self.revert(mixtral_config(), self.EXPORT, self.path("hub")), "no safetensors file")

    def test_reference_whose_index_lies(self):
        write_checkpoint(self.path("hub"), {}, self.HUB, shards=2)
        os.remove(self.path("hub/model-00002-of-00002.safetensors"))
        self.assert_fails(self.revert(mixtral_config(), self.EXPORT, self.path("hub")), "this shard, but it is missing")
        self.assert_nothing_left()


class HubNamesTest(ReferenceTest):
    """An export that has hub names already is a plain copy."""
    HUB = [*nvfp4("language_model.model.layers.0.block_sparse_moe.experts.0.w2", 32, 64),
           bf16("language_model.model.layers.0.block_sparse_moe.shared_experts.gate_proj.weight", 4, 16),
           bf16("language_model.model.layers.0.block_sparse_moe.shared_experts.up_proj.weight", 4, 16),
           bf16("multi_modal_projector.linear_1.weight", 4, 4), bf16("patch_merge_mlp.linear_1.weight", 4, 4),
           tensor("language_model.model.layers.0.self_attn.k_proj.k_scale", "F32", []),
           bf16("language_model.model.layers.0.self_attn.k_proj.weight", 4, 4)]
    CONFIG = minimax_config(exclude=["patch_merge_mlp*", "language_model.model.layers.0.self_attn*"])

    def assert_copied(self, result, source, target):
        self.assert_done(result)
        self.assertIn("note: the export has hub names already: a plain copy", result.stderr)
        for name in os.listdir(self.path(source)):
            if name.endswith(".safetensors"):
                continue
            with open(self.path(f"{source}/{name}"), "rb") as a, open(self.path(f"{target}/{name}"), "rb") as b:
                self.assertEqual(a.read(), b.read(), name)
        self.assertEqual(read_checkpoint(self.path(target)), read_checkpoint(self.path(source)))

    def test_without_a_reference(self):
        write_checkpoint(self.path("in"), self.CONFIG, self.HUB)
        self.assert_copied(run("revert", self.path("in"), "-o", self.path("out")), "in", "out")

    def test_with_a_reference(self):
        values = [t for t in self.HUB if not t[0].endswith(("_scale", "_scale_2")) and t[1] != "U8"]
        values.append(bf16("language_model.model.layers.0.block_sparse_moe.experts.0.w2.weight", 32, 64))
        self.assert_copied(self.revert(self.CONFIG, self.HUB, self.write_reference(values)), "in", "out")

    def test_reverting_twice_is_harmless(self):
        tensors = [*nvfp4("model.language_model.layers.0.mlp.experts.0.down_proj", 32, 64),
                   *nvfp4("model.language_model.layers.0.mlp.shared_experts.gate_up_proj", 32, 64),
                   bf16("model.multi_modal_projector.merge_linear_1.weight", 4, 4), bf16("lm_head.weight", 4, 4)]
        write_checkpoint(self.path("in"), minimax_config(exclude=["lm_head"]), tensors)
        self.assert_done(run("revert", self.path("in"), "-o", self.path("once")))
        again = run("revert", self.path("once"), "-o", self.path("twice"))
        self.assert_copied(again, "once", "twice")

    def test_names_that_only_the_reference_has_are_listed_all_the_same(self):
        hub = [t for t in self.HUB if not t[0].endswith(("_scale", "_scale_2"))]
        hub.append(bf16("language_model.model.more", 3))
        hub[0] = bf16(hub[0][0], 32, 64)
        result = self.revert(self.CONFIG, self.HUB, self.write_reference(hub))
        self.assert_copied(result, "in", "out")
        self.assertIn("language_model.model.more", result.stderr)
        strict = run("revert", self.path("in"), "-o", self.path("strict"), "--reference", self.path("hub"), "--strict")
        self.assert_fails(strict, "language_model.model.more: only the reference has this tensor")
        self.assert_nothing_left("strict")

    def test_shapes_are_held_against_the_reference_all_the_same(self):
        hub = [bf16(name, 5, 5) for name, *_ in self.HUB if not name.endswith(("_scale", "_scale_2"))]
        result = self.revert(self.CONFIG, self.HUB, self.write_reference(hub))
        self.assert_fails(result, "ReferenceMismatchError", "the logical shape is")
        self.assert_nothing_left()


if __name__ == "__main__":
    unittest.main()
