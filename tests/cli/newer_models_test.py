"""Models that came with transformers 5.24.0, and operations that only they need."""
import unittest

from exports import as_dict, bf16, modelopt_config
from program import ProgramTest, read_checkpoint, run, write_checkpoint

VERSION = ("--transformers", "5.24.0")


class InklingVocabularyTest(ProgramTest):
    CONFIG = modelopt_config("Inkling2ForCausalLM", "inkling2_text", vocab_size=8, unpadded_vocab_size=6)
    HEAD = bf16("lm_head.weight", 6, 4)

    def test_the_unembedding_is_padded_with_zeros_and_cut_again(self):
        write_checkpoint(self.path("in"), self.CONFIG, [self.HEAD, bf16("model.norm.weight", 4)])
        self.assert_done(run("revert", self.path("in"), "-o", self.path("hub"), *VERSION))
        hub = read_checkpoint(self.path("hub"))
        self.assertEqual(hub["model.llm.unembed.weight"], ("BF16", [8, 4], self.HEAD[3] + bytes(16)))
        self.assertIn("model.llm.norm.weight", hub)

        self.assert_done(run("apply", self.path("hub"), "-o", self.path("memory"), *VERSION))
        self.assertEqual(read_checkpoint(self.path("memory")), read_checkpoint(self.path("in")))

        self.assert_done(run("revert", self.path("memory"), "-o", self.path("back"), "--reference", self.path("hub"),
                             "--strict", *VERSION))
        self.assertEqual(read_checkpoint(self.path("back")), hub)

    def test_the_plan_says_that_it_is_padded(self):
        write_checkpoint(self.path("in"), self.CONFIG, [self.HEAD])
        result = run("revert", self.path("in"), "--plan", *VERSION)
        self.assert_done(result)
        self.assertRegex(result.stdout, r"model\.llm\.unembed\.weight BF16 \[8, 4\] 64 <- .* \(padded\)\n")

    def test_a_config_without_the_size_is_refused(self):
        config = {k: v for k, v in self.CONFIG.items() if k != "vocab_size"}
        write_checkpoint(self.path("in"), config, [self.HEAD])
        self.assert_fails(run("revert", self.path("in"), "-o", self.path("out"), *VERSION),
                          "Inkling2UnpadVocab: config.json does not say vocab_size")
        self.assert_nothing_left()


class SplitTest(ProgramTest):
    """Fused projections of unequal sizes: Lara's linear attention."""
    CONFIG = modelopt_config("LaraMiniForCausalLM", "lara_mini")
    PARTS = [bf16(f"model.layers.0.linear_attn.in_proj_{p}.weight", rows, 4)
             for p, rows in (("qkv", 12), ("z", 4), ("b", 2), ("a", 2))]

    def test_unequal_parts_are_fused_in_their_order(self):
        write_checkpoint(self.path("in"), self.CONFIG, self.PARTS)
        self.assert_done(run("revert", self.path("in"), "-o", self.path("hub"), *VERSION))
        fused = b"".join(t[3] for t in self.PARTS)
        self.assertEqual(read_checkpoint(self.path("hub")),
                         as_dict([("model.layers.0.linear_attn.in_proj.weight", "BF16", [20, 4], fused)]))

        result = run("apply", self.path("hub"), "-o", self.path("out"), *VERSION)
        self.assert_fails(result, "in_proj.weight: Split: the sizes of the parts are those of the model's own parameters")
        self.assert_nothing_left()


class LayerPairTest(ProgramTest):
    """Dory's hub has attention and MLP as layers of their own."""
    NAMES = {"backbone.layers.2.mixer.q_proj.weight": "model.layers.1.self_attn.q_proj.weight",
             "backbone.layers.2.mixer.g_proj.weight": "model.layers.1.self_attn.gate_proj.weight",
             "backbone.layers.3.mixer.up_proj.weight": "model.layers.1.mlp.up_proj.weight",
             "backbone.layers.3.mlp_alpha": "model.layers.1.lambda_2"}

    def test_only_a_reference_parts_the_layers_again(self):
        config = modelopt_config("DoryForCausalLM", "dory")
        hub = [bf16(name, 4, 4) for name in self.NAMES]
        write_checkpoint(self.path("hub"), config, hub)
        write_checkpoint(self.path("in"), config, [(self.NAMES[n], *rest) for n, *rest in hub])
        self.assert_done(run("revert", self.path("in"), "-o", self.path("rule"), *VERSION))
        self.assertIn("backbone.layers.1.mlp.up_proj.weight", read_checkpoint(self.path("rule")))
        self.assert_done(run("revert", self.path("in"), "-o", self.path("out"), "--reference", self.path("hub"),
                             "--strict", *VERSION))
        self.assertEqual(read_checkpoint(self.path("out")), as_dict(hub))

if __name__ == "__main__":
    unittest.main()
