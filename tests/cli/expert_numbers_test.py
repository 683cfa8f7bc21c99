"""Where experts become one tensor, or come out of one: their numbers, and how many there are."""
import unittest

from exports import as_dict, bf16, mixtral_config, modelopt_config, nvfp4
from program import ProgramTest, read_checkpoint, run, write_checkpoint
from quantize_case import weight

BLOCK = "model.layers.0.block_sparse_moe"
LINEARS = ("w1", "w2", "w3")


def hub(numbers, block=BLOCK, linears=LINEARS):
    return [bf16(f"{block}.experts.{i}.{linear}.weight", 8, 8) for i in numbers for linear in linears]


def router(rows, block=BLOCK, name="gate"):
    return bf16(f"{block}.{name}.weight", rows, 8)


def stacks(count, block="model.layers.0.mlp"):
    return [bf16(f"{block}.experts.gate_up_proj", count, 16, 8), bf16(f"{block}.experts.down_proj", count, 8, 8)]


class ExpertsTest(ProgramTest):
    def convert(self, command, tensors, config, *args):
        write_checkpoint(self.path("in"), config, tensors)
        return run(command, self.path("in"), "-o", self.path("out"), *args)

    def apply(self, tensors, *args, **config):
        return self.convert("apply", tensors, {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", **config},
                            *args)

    def revert(self, tensors, *args, **config):
        return self.convert("revert", tensors, mixtral_config(**config), *args)

    def assert_refused(self, result, *fragments):
        self.assert_fails(result, "QuantConversionUnsupportedError", *fragments)
        self.assert_nothing_left()


class NumberingTest(ExpertsTest):
    def test_a_gap_is_refused_and_named(self):
        for numbers, missing in (([0, 1, 2, 4, 5, 6, 7], "no expert 3, of 0 to 7"), ([1, 2, 3], "no expert 0, of 0 to 3"),
                                 ([0, 4, 6, 7, 11], "no expert 1 to 3, 5, 8 to 10, of 0 to 11"), ([7], "no expert 0 to 6")):
            with self.subTest(numbers):
                self.assert_refused(self.apply(hub(numbers)), f"{BLOCK}.experts: there is {missing}", "files that are missing")

    def test_both_stacks_of_a_container_name_a_gap_once(self):
        self.assertEqual(self.apply(hub([0, 2])).stderr.count("there is no expert 1"), 1)

    def test_a_number_that_stands_twice_is_refused_and_named(self):
        self.assert_refused(self.apply(hub([0, 1, "01"])), f"{BLOCK}.experts: w1 of expert 1 stands twice")

    def test_a_linear_that_one_expert_lacks_is_named(self):
        tensors = [t for t in hub(range(4)) if ".experts.3.w3." not in t[0]]
        self.assert_refused(self.apply(tensors), f"{BLOCK}.experts: w3 of expert 3 is missing")

    def test_projections_of_a_container_with_different_numbers_of_experts_are_refused(self):
        tensors = [t for t in hub(range(4)) if ".experts.3.w2." not in t[0]]
        self.assert_refused(self.apply(tensors), "its container model.layers.0.mlp.experts has 3 experts here and 4 in",
                            f"{BLOCK}.experts.0.w")

    def test_numbers_with_leading_zeros_are_numbers(self):
        self.assert_done(self.apply(hub(["00", "01"])))
        self.assertEqual(read_checkpoint(self.path("out"))["model.layers.0.mlp.experts.down_proj"][1], [2, 8, 8])

    def test_a_number_beyond_all_numbers_is_refused(self):
        for number in (2**64 - 1, 2**64):
            self.assert_refused(self.apply(hub([0, number])), f"{BLOCK}.experts")

    def test_a_name_that_says_no_number_is_refused(self):
        self.assert_refused(self.apply(hub([0, "one"])), "the names of the experts' w1 do not say their numbers")

    def test_parts_that_are_no_experts_are_numbered_as_well(self):
        mapping = self.path("mapping.json")
        with open(mapping, "w", encoding="utf-8") as f:
            f.write('{"format": 1, "library": "private", "version": "1", "conversions": {"m": [{"type": "WeightConverter",'
                    '"source_patterns": ["shard_*.weight"], "target_patterns": ["table.weight"], "operations": '
                    '[{"op": "Concatenate", "dim": 0, "num_shards_attribute": "shards"}]}]},'
                    '"classes": {"M": {"model_type": "m", "base_model_prefix": "model"}}}')
        config = {"architectures": ["M"], "model_type": "m", "shards": 2}
        tensors = [bf16(f"shard_{i}.weight", 4, 8) for i in (0, 2)]
        self.assert_refused(self.convert("apply", tensors, config, "--mapping", mapping), "no part 1, of 0 to 2")

    def test_experts_put_together_for_the_hub_are_numbered_too(self):
        container = "model.layers.0.block_sparse_moe.experts"
        granite = modelopt_config("GraniteMoeForCausalLM", "granitemoe")
        def experts(numbers):
            return [t for i in numbers for p in ("gate_proj", "up_proj", "down_proj")
                    for t in nvfp4(f"{container}.{i}.{p}", 16, 16, f"scalars {i}")]
        cases = (experts([0, 2]), "there is no expert 1, of 0 to 2"), (experts([1]), "there is no expert 0, of 0 to 1"), \
            ([t for t in experts(range(3)) if ".1.up_proj." not in t[0]], "up_proj of expert 1 is missing"), \
            ([t for t in experts(range(2)) if ".gate_proj." not in t[0]], "gate_proj of expert 0 to 1 is missing"), \
            (experts([0, 1, "01"]), "would become the same hub tensor")
        for tensors, message in cases:
            with self.subTest(message):
                result = self.convert("revert", tensors, granite, "--experts", "stacked")
                self.assert_fails(result, container, message)
                self.assert_nothing_left()

    def test_experts_that_stay_apart_may_be_any_of_them(self):
        tensors = [t for i in (1, 3) for p in ("gate_proj", "up_proj", "down_proj")
                   for t in nvfp4(f"model.layers.0.mlp.experts.{i}.{p}", 16, 16)] + [router(8, "model.layers.0.mlp")]
        self.assert_done(self.revert(tensors, num_local_experts=8))
        names = {name for name in read_checkpoint(self.path("out")) if name.endswith(".weight")}
        self.assertEqual(names, {f"{BLOCK}.experts.{i}.{w}.weight" for i in (1, 3) for w in LINEARS} | {f"{BLOCK}.gate.weight"})

    def test_experts_that_are_quantized_where_they_stand_may_be_any_of_them(self):
        tensors = [weight(f"{BLOCK}.experts.{i}.{w}.weight", 32, 32) for i in (0, 2) for w in LINEARS]
        config = {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_local_experts": 8}
        result = self.convert("quantize", tensors, config, "--recipe", "w4a16_nvfp4")
        self.assert_done(result)
        self.assertNotIn("warning", result.stderr)
        self.assertIn(f"{BLOCK}.experts.2.w1.weight_scale", read_checkpoint(self.path("out")))

    def test_stacks_that_differ_keep_their_names_where_that_is_asked_for(self):
        tensors = [stacks(4)[0], stacks(3)[1]]
        self.assert_fails(self.revert(tensors, "--on-unsupported", "keep-names"), "has 3 experts here and 4 in", status=3)
        self.assertEqual(read_checkpoint(self.path("out")), as_dict(tensors))


class CountTest(ExpertsTest):
    MESSAGE = f"there are 4 experts in {BLOCK}.experts, and num_local_experts is 8 in config.json"

    def test_a_count_unlike_the_configs_is_refused(self):
        result = self.apply(hub(range(4)) + [router(8)], num_local_experts=8)
        self.assert_refused(result, self.MESSAGE, f"with 8 rows in its router {BLOCK}.gate.weight")

    def test_a_router_of_as_many_rows_as_experts_decides(self):
        result = self.apply(hub(range(4)) + [router(4)], num_local_experts=8)
        self.assert_done(result)
        self.assertNotIn("warning", result.stderr)

    def test_a_router_is_told_by_where_it_stands(self):
        for name, found in (("router", True), ("router.gate", True), ("gate.wg", True), ("shared_expert_gate", False),
                            ("shared_experts.gate_proj", False), ("experts.0.gate", False)):
            with self.subTest(name):
                self.setUp()
                result = self.apply(hub(range(4)) + [router(8, name=name)], num_local_experts=8)
                if found:
                    self.assert_refused(result, f"in its router {BLOCK}.{name}.weight")
                else:
                    self.assert_done(result)
                    self.assertIn("no router", result.stderr)

    def test_a_router_of_another_block_is_not_asked(self):
        tensors = hub(range(4)) + [router(4, "model.layers.1.block_sparse_moe"), router(8)]
        self.assert_refused(self.apply(tensors, num_local_experts=8), self.MESSAGE)

    def test_without_a_router_there_is_one_warning_for_all_containers(self):
        tensors = hub(range(4)) + hub(range(4), "model.layers.1.block_sparse_moe")
        result = self.apply(tensors, num_local_experts=8)
        self.assert_done(result)
        line = " ".join(result.stderr.split())
        self.assertIn(f"{self.MESSAGE} (2: model.layers.0.", line)
        self.assertIn("there is no router to ask which is right", line)

    def test_the_count_of_the_config_is_right(self):
        for key in ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_routed_experts"):
            for count in (4, [4, 8]):
                with self.subTest(key=key, count=count):
                    self.setUp()
                    result = self.apply(hub(range(4)) + [router(3)], **{key: count})
                    self.assert_done(result)
                    self.assertNotIn("warning", result.stderr)

    def test_null_and_0_say_nothing(self):
        for count in (None, 0, [], "8", -1):
            with self.subTest(count):
                self.setUp()
                result = self.apply(hub(range(4)) + [router(8)], num_local_experts=count)
                self.assert_done(result)
                self.assertNotIn("warning", result.stderr)

    def test_draft_layers_are_held_to_it_too(self):
        config = {"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "num_hidden_layers": 1,
                  "n_routed_experts": 4}
        names = ("gate_proj", "up_proj", "down_proj")
        tensors = hub(range(4), "model.layers.0.mlp", names) + hub(range(3), "model.layers.1.mlp", names)
        tensors += [router(4, "model.layers.0.mlp"), router(4, "model.layers.1.mlp")]
        self.assert_refused(self.convert("apply", tensors, config), "there are 3 experts in model.layers.1.mlp.experts")

    def test_each_sub_model_is_held_to_its_own_config(self):
        config = {"architectures": ["Glm4vMoeForConditionalGeneration"], "model_type": "glm4v_moe", "n_routed_experts": 9,
                  "text_config": {"model_type": "glm4v_moe_text", "n_routed_experts": 4},
                  "vision_config": {"model_type": "glm4v_moe_vision"}}
        tensors = stacks(4, "model.language_model.layers.0.mlp")
        self.assert_done(self.convert("revert", tensors, config))
        config["text_config"]["n_routed_experts"] = 5
        self.setUp()
        result = self.convert("revert", tensors + [router(5, "model.language_model.layers.0.mlp")], config)
        self.assert_fails(result, "n_routed_experts is 5 in config.json")

    def test_a_stack_that_is_taken_apart_is_held_to_it_too(self):
        tensors = stacks(4) + [router(8, "model.layers.0.mlp")]
        self.assert_refused(self.revert(tensors, num_local_experts=8), "there are 4 experts in model.layers.0.mlp.experts",
                            "with 8 rows in its router model.layers.0.mlp.gate.weight")
        result = self.revert(stacks(4), num_local_experts=8)
        self.assert_done(result)
        self.assertIn("there is no router to ask", result.stderr)

    def test_stacks_of_a_container_with_different_numbers_of_experts_are_refused(self):
        self.assert_refused(self.revert([stacks(4)[0], stacks(3)[1]]), "has 3 experts here and 4 in")

    def test_experts_put_together_for_the_hub_are_held_to_it_too(self):
        block = "model.layers.0.block_sparse_moe"
        tensors = [t for i in range(2) for p in ("gate_proj", "up_proj", "down_proj")
                   for t in nvfp4(f"{block}.experts.{i}.{p}", 16, 16, f"scalars {i}")]
        config = modelopt_config("GraniteMoeForCausalLM", "granitemoe", num_local_experts=4)
        router_weight = bf16(f"{block}.router.layer.weight", 4, 8)
        result = self.convert("revert", tensors + [router_weight], config, "--experts", "stacked")
        self.assert_refused(result, f"there are 2 experts in {block}.experts, and num_local_experts is 4")

    def test_lists_of_text_and_vision_experts_are_held_to_each_number(self):
        config = {"architectures": ["Ernie4_5_VLMoeForConditionalGeneration"], "model_type": "ernie4_5_vl_moe",
                  "text_config": {"model_type": "ernie4_5_vl_moe_text", "moe_num_experts": [2, 2]},
                  "vision_config": {"model_type": "ernie4_5_vl_moe_vision"}}
        names = ("gate_proj", "up_proj", "down_proj")
        result = self.convert("apply", hub(range(4), "model.layers.1.mlp", names), config)
        self.assert_done(result)
        self.assertNotIn("warning", result.stderr)
        self.setUp()
        self.assert_fails(self.convert("apply", hub([0, 1, 3], "model.layers.1.mlp", names), config), "no expert 2, of 0 to 3")


if __name__ == "__main__":
    unittest.main()
