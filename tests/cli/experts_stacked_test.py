"""--experts stacked: experts the export keeps one by one become the tensor that the hub has for all of them."""
import json
import unittest

from exports import as_dict, bf16, modelopt_config, nvfp4
from program import ProgramTest, read_checkpoint, run, write_checkpoint

E, H, I = 3, 64, 48  # experts, hidden size, intermediate size
LEAVES = ("weight", "weight_scale", "weight_scale_2", "input_scale")


def experts(container, count=E):
    tensors = []
    for i in range(count):
        tensors += nvfp4(f"{container}.{i}.gate_proj", I, H, f"expert {i}")
        tensors += nvfp4(f"{container}.{i}.up_proj", I, H, f"expert {i}")
        tensors += nvfp4(f"{container}.{i}.down_proj", H, I)
    return tensors


def stacks(tensors, container, leaf, linears):
    """(dtype, [E, ...], bytes) of all experts, their linears one below the other."""
    stored = as_dict(tensors)
    parts = [[stored[f"{container}.{i}.{linear}.{leaf}"] for linear in linears] for i in range(E)]
    dtype, shape, _ = parts[0][0]
    if not shape:
        return dtype, [E], b"".join(expert[0][2] for expert in parts)
    return dtype, [E, len(linears) * shape[0], *shape[1:]], b"".join(p[2] for expert in parts for p in expert)


def swapped(stored):
    """[E, a, b] of one byte an element -> [E, b, a]."""
    dtype, (count, a, b), body = stored
    return dtype, [count, b, a], b"".join(body[(e * a) * b + j:(e + 1) * a * b:b]
                                          for e in range(count) for j in range(b))


def tensor_name(parameter, leaf):
    """The stored name beside a parameter, or beside "<module>.weight"."""
    if leaf == "weight":
        return parameter
    return parameter.removesuffix("weight") + leaf if parameter.endswith(".weight") else f"{parameter}_{leaf}"


class StackedTest(ProgramTest):
    def revert(self, model, tensors, *args):
        write_checkpoint(self.path("in"), model, tensors)
        return run("revert", self.path("in"), "-o", self.path("out"), "--experts", "stacked", *args)

    def assert_stacked(self, result, container, tensors, names, change=None):
        self.assert_done(result)
        got = read_checkpoint(self.path("out"))
        want = {}
        for parameter, linears in zip(names, (("gate_proj", "up_proj"), ("down_proj",))):
            for leaf in LEAVES:
                stack = stacks(tensors, container, leaf, linears)
                want[tensor_name(parameter, leaf)] = change(stack) if change and len(stack[1]) == 3 else stack
        self.assertEqual(sorted(n for n in got if "expert" in n or "_linear" in n), sorted(want))
        for name, stored in want.items():
            self.assertEqual(got[name][:2], stored[:2], name)
            self.assertTrue(got[name][2] == stored[2], f"{name}: other bytes")


class GraniteTest(StackedTest):
    MODEL = modelopt_config("GraniteMoeForCausalLM", "granitemoe")
    CONTAINER, HUB = "model.layers.0.block_sparse_moe.experts", "model.layers.0.block_sparse_moe"
    NAMES = (f"{HUB}.input_linear.weight", f"{HUB}.output_linear.weight")
    OTHER = [bf16("model.embed_tokens.weight", 8, H)]

    def hub(self):
        write_checkpoint(self.path("hub"), {}, [bf16(self.NAMES[0], E, 2 * I, H), bf16(self.NAMES[1], E, H, I),
                                                bf16("model.embed_tokens.weight", 8, H)])
        return self.path("hub")

    def test_experts_are_stacked_by_rule(self):
        tensors = experts(self.CONTAINER) + self.OTHER
        self.assert_stacked(self.revert(self.MODEL, tensors), self.CONTAINER, tensors, self.NAMES)

    def test_experts_are_stacked_by_reference(self):
        tensors = experts(self.CONTAINER) + self.OTHER
        result = self.revert(self.MODEL, tensors, "--reference", self.hub(), "--strict")
        self.assert_stacked(result, self.CONTAINER, tensors, self.NAMES)

    def test_biases_are_stacked_with_their_weights(self):
        tensors = experts(self.CONTAINER)
        biases = [bf16(f"{self.CONTAINER}.{i}.{p}.bias", H if p == "down_proj" else I)
                  for i in range(E) for p in ("gate_proj", "up_proj", "down_proj")]
        self.assert_done(self.revert(self.MODEL, tensors + biases + self.OTHER))
        got = read_checkpoint(self.path("out"))
        for parameter, linears in zip(self.NAMES, (("gate_proj", "up_proj"), ("down_proj",))):
            want = stacks(biases, self.CONTAINER, "bias", linears)
            self.assertEqual(got[tensor_name(parameter, "bias")], want)

    def test_a_missing_expert_is_refused(self):
        tensors = [t for t in experts(self.CONTAINER) if ".experts.1." not in t[0]] + self.OTHER
        result = self.revert(self.MODEL, tensors)
        self.assert_fails(result, f"{self.CONTAINER}: there is no expert 1, of 0 to 2")
        self.assert_nothing_left()

    def test_a_missing_linear_is_refused(self):
        tensors = [t for t in experts(self.CONTAINER) if ".experts.1.up_proj." not in t[0]] + self.OTHER
        self.assert_fails(self.revert(self.MODEL, tensors), f"{self.CONTAINER}: up_proj of expert 1 is missing")
        self.assert_nothing_left()

    def test_missing_last_experts_contradict_the_reference(self):
        result = self.revert(self.MODEL, experts(self.CONTAINER, E - 1) + self.OTHER, "--reference", self.hub())
        self.assert_fails(result, "ReferenceMismatchError", f"the logical shape is [{E - 1}, ")

    def test_differing_scales_of_gate_and_up_are_refused(self):
        tensors = [t for i in range(E) for p in ("gate_proj", "up_proj")
                   for t in nvfp4(f"{self.CONTAINER}.{i}.{p}", I, H)]
        self.assert_fails(self.revert(self.MODEL, tensors), "its weight_scale_2 differs", "--merge-scales max")

    def test_without_the_option_experts_stay_expanded(self):
        write_checkpoint(self.path("in"), self.MODEL, experts(self.CONTAINER) + self.OTHER)
        self.assert_done(run("revert", self.path("in"), "-o", self.path("out")))
        got = read_checkpoint(self.path("out"))
        self.assertEqual(len([n for n in got if n.endswith("_proj.weight")]), 3 * E)


class MixedTest(StackedTest):
    MAPPING = {"format": 1, "library": "private", "version": "1", "conversions": {"m": [
        {"type": "WeightConverter", "source_patterns": ["moe.fused"], "target_patterns": ["experts.a_proj", "experts.b_proj"],
         "operations": [{"op": "Chunk", "dim": 1}]}]}, "classes": {"M": {"model_type": "m", "base_model_prefix": "model"}}}

    def test_a_hub_tensor_of_expanded_and_of_stacked_experts_is_refused(self):
        with open(self.path("mapping.json"), "w", encoding="utf-8") as f:
            json.dump(self.MAPPING, f)
        expanded = [bf16(f"layers.0.experts.{i}.a_proj.weight", 8, 8) for i in range(2)]
        stacked = [bf16("layers.0.experts.b_proj", 2, 8, 8)]
        model = {"architectures": ["M"], "model_type": "m"}
        result = self.revert(model, expanded + stacked, "--mapping", self.path("mapping.json"))
        self.assert_fails(result, "layers.0.experts.b_proj is stacked and layers.0.experts.0.a_proj.weight expanded")
        self.assert_nothing_left()


class QwenTest(StackedTest):
    MODEL = modelopt_config("Qwen3VLMoeForConditionalGeneration", "qwen3_vl_moe",
                            text_config={"model_type": "qwen3_vl_moe_text", "hidden_size": H},
                            vision_config={"model_type": "qwen3_vl_moe"})
    CONTAINER = "model.language_model.layers.0.mlp.experts"
    NAMES = (f"{CONTAINER}.gate_up_proj", f"{CONTAINER}.down_proj")

    def test_experts_are_stacked_as_they_are_by_rule(self):
        tensors = experts(self.CONTAINER)
        self.assert_stacked(self.revert(self.MODEL, tensors), self.CONTAINER, tensors, self.NAMES)

    def test_experts_are_stacked_and_transposed_by_reference(self):
        tensors = experts(self.CONTAINER)
        write_checkpoint(self.path("hub"), {}, [bf16(self.NAMES[0], E, H, 2 * I), bf16(self.NAMES[1], E, I, H)])
        result = self.revert(self.MODEL, tensors, "--reference", self.path("hub"), "--strict")
        self.assert_stacked(result, self.CONTAINER, tensors, self.NAMES, swapped)


if __name__ == "__main__":
    unittest.main()
