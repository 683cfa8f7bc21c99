"""What `apply` does to a hub checkpoint, `revert` undoes: names, shapes and bytes of every tensor."""
import json
import os
import unittest

from exports import as_dict, bf16, entry, mixtral_config, tensor
from program import ROOT, ProgramTest, read_checkpoint, run, write_checkpoint

SAMPLE_HUB = f"{ROOT}/samples/minimax-m3-tiny/hub"
E, H, I = 3, 8, 6  # experts, hidden size, intermediate size


def config(architecture, model_type, **more):
    return {"architectures": [architecture], "model_type": model_type, **more}


def elements(stored, size=2):
    """The elements of (dtype, shape, bytes) in their order."""
    return [stored[2][i:i + size] for i in range(0, len(stored[2]), size)]


def transposed(stored):
    """(dtype, [E, a, b], bytes) with the last two dimensions swapped."""
    dtype, (count, a, b), _ = stored
    values = elements(stored)
    return dtype, [count, b, a], b"".join(values[(e * a + i) * b + j]
                                          for e in range(count) for j in range(b) for i in range(a))


def picked(stored, rows):
    """These rows of the first dimension, in this order."""
    dtype, shape, body = stored
    step = len(body) // shape[0]
    return dtype, [len(rows), *shape[1:]], b"".join(body[r * step:(r + 1) * step] for r in rows)


class ApplyTest(ProgramTest):
    def apply(self, model, tensors):
        write_checkpoint(self.path("hub"), model, tensors)
        self.assert_done(run("apply", self.path("hub"), "-o", self.path("memory")))
        return read_checkpoint(self.path("memory"))

    def assert_undone(self, hub=None):
        hub = hub or self.path("hub")
        self.assert_done(run("revert", self.path("memory"), "-o", self.path("back"), "--reference", hub, "--strict"))
        self.assertEqual(read_checkpoint(self.path("back")), read_checkpoint(hub))


class SampleTest(ApplyTest):
    def test_fused_linears_and_stacked_experts_come_back(self):
        self.assert_done(run("apply", SAMPLE_HUB, "-o", self.path("memory")))
        memory = read_checkpoint(self.path("memory"))
        self.assertTrue(any(n.endswith("experts.gate_up_proj") and len(t[1]) == 3 for n, t in memory.items()))
        self.assertTrue(any(n.endswith("mlp.gate_up_proj.weight") for n in memory))
        self.assertNotEqual(set(memory), set(read_checkpoint(SAMPLE_HUB)))
        self.assert_undone(SAMPLE_HUB)

    def test_new_shards_hold_the_same(self):
        self.assert_done(run("apply", SAMPLE_HUB, "-o", self.path("memory"), "--max-shard-size", "64KB"))
        self.assertGreater(len([f for f in os.listdir(self.path("memory")) if f.endswith(".safetensors")]), 3)
        self.assert_undone(SAMPLE_HUB)

    def test_report_as_json(self):
        result = run("apply", SAMPLE_HUB, "-o", self.path("memory"), "--json")
        self.assert_done(result)
        report = json.loads(result.stdout)
        self.assertEqual(report["outcome"], "applied")
        self.assertEqual(report["input_tensors"], 99)
        self.assertEqual(report["rescaled"], [])


class TransposedTest(ApplyTest):
    EXPERTS = "model.language_model.layers.0.mlp.experts"
    QWEN = config("Qwen3VLMoeForConditionalGeneration", "qwen3_vl_moe",
                  text_config={"model_type": "qwen3_vl_moe_text", "hidden_size": H},
                  vision_config={"model_type": "qwen3_vl_moe"})

    def tensors(self, intermediate=I):
        return [bf16(f"{self.EXPERTS}.gate_up_proj", E, H, 2 * intermediate),
                bf16(f"{self.EXPERTS}.down_proj", E, intermediate, H), bf16("lm_head.weight", 4, H)]

    def test_experts_are_transposed_and_back(self):
        got = self.apply(self.QWEN, self.tensors())
        hub = as_dict(self.tensors())
        for name in (f"{self.EXPERTS}.gate_up_proj", f"{self.EXPERTS}.down_proj"):
            self.assertEqual(got[name], transposed(hub[name]), name)
        self.assert_undone()

    def test_what_has_the_shape_of_its_parameter_already_stays(self):
        tensors = [bf16(f"{self.EXPERTS}.gate_up_proj", E, 2 * I, H), bf16(f"{self.EXPERTS}.down_proj", E, H, I)]
        self.assertEqual(self.apply(self.QWEN, tensors), as_dict(tensors))
        self.assert_undone()

    def test_large_experts_are_reordered_and_the_plan_says_so(self):
        self.apply(self.QWEN, self.tensors(intermediate=640))
        self.assert_undone()
        plan = run("revert", self.path("memory"), "--plan", "--reference", self.path("hub"))
        self.assert_done(plan)
        lines = {line.split()[1]: line for line in plan.stdout.splitlines()}
        self.assertTrue(lines[f"{self.EXPERTS}.gate_up_proj"].endswith("(reordered)"), plan.stdout)
        self.assertFalse(lines["lm_head.weight"].endswith(")"), plan.stdout)
        self.assertFalse(os.path.exists(self.path("out")))


class KimiVisionTest(ApplyTest):
    HUB, MEMORY = "vision_tower.encoder.blocks.0", "model.vision_tower.layers.0"
    MODEL = config("Kimi_K25ForConditionalGeneration", "kimi_k25", text_config={"model_type": "deepseek_v3"},
                   vision_config={"model_type": "kimi_k25_vision", "vt_num_attention_heads": 2})
    ROPE = [0, 2, 1, 3, 4, 6, 5, 7]  # two heads of four: pairs become halves

    def test_fused_attention_is_cut_and_its_rotary_parts_permuted(self):
        tensors = [bf16(f"{self.HUB}.wqkv.weight", 24, 8), bf16(f"{self.HUB}.wqkv.bias", 24),
                   bf16(f"{self.HUB}.wo.weight", 8, 8)]
        got = self.apply(self.MODEL, tensors)
        for leaf in ("weight", "bias"):
            fused = as_dict(tensors)[f"{self.HUB}.wqkv.{leaf}"]
            for i, part in enumerate(("q_proj", "k_proj", "v_proj")):
                order = range(8) if part == "v_proj" else self.ROPE
                self.assertEqual(got[f"{self.MEMORY}.attn.{part}.{leaf}"], picked(fused, [8 * i + r for r in order]))
        self.assert_undone()

    def test_a_config_without_heads_is_refused_and_nothing_written(self):
        model = {**self.MODEL, "vision_config": {"model_type": "kimi_k25_vision"}}
        write_checkpoint(self.path("hub"), model, [bf16(f"{self.HUB}.wqkv.weight", 24, 8)])
        result = run("apply", self.path("hub"), "-o", self.path("out"))
        self.assert_fails(result, "PermuteForRope: config.json does not say how many attention heads there are",
                          "add num_attention_heads to vision_config")
        self.assert_nothing_left()


class InklingTest(ApplyTest):
    HUB, MEMORY = "model.llm.layers.0.mlp", "model.language_model.layers.0.mlp"

    def test_interleaved_rows_are_taken_apart_and_back(self):
        tensors = [bf16(f"{self.HUB}.experts.w13_weight", E, 2 * I, H), bf16(f"{self.HUB}.w13_dn.weight", 2 * I, H),
                   bf16(f"{self.HUB}.w2_md.weight", H, I),
                   bf16(f"{self.HUB}.shared_experts.shared_w13_weight", E, 2 * I, H)]
        got = self.apply(config("InklingForConditionalGeneration", "inkling_mm_model"), tensors)
        hub = as_dict(tensors)
        even, odd = list(range(0, 2 * I, 2)), list(range(1, 2 * I, 2))
        dense = hub[f"{self.HUB}.w13_dn.weight"]
        self.assertEqual(got[f"{self.MEMORY}.gate_proj.weight"], picked(dense, even))
        self.assertEqual(got[f"{self.MEMORY}.up_proj.weight"], picked(dense, odd))
        for i in range(E):
            stacked = entry(hub[f"{self.HUB}.experts.w13_weight"], i)
            self.assertEqual(entry(got[f"{self.MEMORY}.experts.gate_up_proj"], i), picked(stacked, even + odd))
            shared = entry(hub[f"{self.HUB}.shared_experts.shared_w13_weight"], i)
            self.assertEqual(entry(got[f"{self.MEMORY}.shared_experts.up_proj"], i), picked(shared, odd))
        self.assert_undone()


class ErnieTest(ApplyTest):
    MODEL = config("Ernie4_5_VLMoeForConditionalGeneration", "ernie4_5_vl_moe",
                   text_config={"model_type": "ernie4_5_vl_moe_text"},
                   vision_config={"model_type": "ernie4_5_vl_moe_vision"})
    HUB, MEMORY = "model.layers.1.mlp", "model.language_model.layers.1.mlp"

    def test_text_and_vision_experts_are_stacked_apart_and_back(self):
        tensors = [bf16(f"{self.HUB}.gate.weight", H, 2), bf16(f"{self.HUB}.gate.weight_1", H, 2),
                   tensor(f"{self.HUB}.moe_statics.e_score_correction_bias", "F32", [2, 4])]
        for i in range(4):
            rows = I if i < 2 else 4  # vision experts are narrower
            tensors += [bf16(f"{self.HUB}.experts.{i}.gate_proj.weight", rows, H),
                        bf16(f"{self.HUB}.experts.{i}.up_proj.weight", rows, H),
                        bf16(f"{self.HUB}.experts.{i}.down_proj.weight", H, rows)]
        got = self.apply(self.MODEL, tensors)
        hub = as_dict(tensors)
        self.assertEqual(got[f"{self.MEMORY}.text_moe.gate.weight"][1], [2, H])
        for side, first in (("text_moe", 0), ("vision_moe", 2)):
            gate_up = b"".join(hub[f"{self.HUB}.experts.{i}.{p}_proj.weight"][2]
                               for i in (first, first + 1) for p in ("gate", "up"))
            self.assertEqual(got[f"{self.MEMORY}.{side}.experts.gate_up_proj"][2], gate_up)
        self.assert_undone()


class UsageTest(ProgramTest):
    def test_an_output_is_needed(self):
        self.assertEqual(run("apply", SAMPLE_HUB).returncode, 2)

    def test_an_output_that_is_taken_is_left_alone(self):
        write_checkpoint(self.path("out"), mixtral_config(), [bf16("x", 1)])
        result = run("apply", SAMPLE_HUB, "-o", self.path("out"))
        self.assertEqual(result.returncode, 1)
        self.assertEqual(list(read_checkpoint(self.path("out"))), ["x"])

    def test_options_that_only_a_reversal_has_are_refused(self):
        for option in (["--reference", SAMPLE_HUB], ["--plan"], ["--experts", "stacked"], ["--strict"]):
            with self.subTest(option):
                self.assertEqual(run("apply", SAMPLE_HUB, "-o", self.path("out"), *option).returncode, 2)
        self.assert_nothing_left()

    def test_values_that_are_none_of_an_option_are_refused(self):
        for command, option in (("apply", ["--merge-scales", "min"]), ("revert", ["--merge-scales", ""]),
                                ("revert", ["--experts", "fused"])):
            with self.subTest(option):
                result = run(command, SAMPLE_HUB, "-o", self.path("out"), *option)
                self.assertEqual(result.returncode, 2)
                self.assertIn(option[0], result.stderr)
        self.assert_nothing_left()


if __name__ == "__main__":
    unittest.main()
