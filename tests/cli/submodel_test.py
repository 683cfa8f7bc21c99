"""A model that was saved alone gets the names it has inside the reference's model."""
import os
import unittest

from exports import bf16
from program import ProgramTest, read_checkpoint, run, write_checkpoint

LLAVA = {"architectures": ["LlavaForConditionalGeneration"], "model_type": "llava",
         "text_config": {"model_type": "llama", "num_hidden_layers": 1}, "vision_config": {"model_type": "clip_vision_model"}}
LINEAR = "layers.0.self_attn.q_proj.weight"
LLAVA_HUB = [bf16(f"language_model.model.{LINEAR}", 8, 8), bf16("language_model.model.embed_tokens.weight", 6, 8),
             bf16("language_model.lm_head.weight", 6, 8), bf16("multi_modal_projector.linear_1.weight", 8, 4),
             bf16("vision_tower.vision_model.embeddings.class_embedding", 8)]


class SubModelTest(ProgramTest):
    def revert(self, config, export, *arguments):
        write_checkpoint(self.path("hub"), LLAVA, LLAVA_HUB)
        write_checkpoint(self.path("in"), config, export)
        return run("revert", self.path("in"), "-o", self.path("out"), "--reference", self.path("hub"), *arguments)

    def test_a_base_model_without_a_mapping_of_its_own(self):
        result = self.revert({"architectures": ["LlamaModel"], "model_type": "llama", "num_hidden_layers": 1},
                             [bf16(LINEAR, 8, 8), bf16("embed_tokens.weight", 6, 8)])
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(sorted(read_checkpoint(self.path("out"))),
                         ["language_model.model.embed_tokens.weight", f"language_model.model.{LINEAR}"])
        self.assertIn("LlamaModel is taken for model.language_model of the reference's LlavaForConditionalGeneration",
                      result.stderr)

    def test_a_model_with_its_head(self):
        result = self.revert({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 1},
                             [bf16(f"model.{LINEAR}", 8, 8), bf16("model.embed_tokens.weight", 6, 8),
                              bf16("lm_head.weight", 6, 8)])
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(sorted(read_checkpoint(self.path("out"))),
                         ["language_model.lm_head.weight", "language_model.model.embed_tokens.weight",
                          f"language_model.model.{LINEAR}"])

    def test_other_parts_of_the_reference_are_not_missing(self):
        result = self.revert({"architectures": ["LlamaModel"], "model_type": "llama", "num_hidden_layers": 1},
                             [bf16(LINEAR, 8, 8), bf16("embed_tokens.weight", 6, 8)], "--strict")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertNotIn("only in the reference", result.stderr)

    def test_its_own_missing_tensors_are(self):
        result = self.revert({"architectures": ["LlamaModel"], "model_type": "llama", "num_hidden_layers": 1},
                             [bf16(LINEAR, 8, 8)], "--strict")
        self.assertEqual(result.returncode, 1)
        self.assertIn("language_model.model.embed_tokens.weight", result.stderr)
        self.assertFalse(os.path.exists(self.path("out")))

    def test_a_reference_of_another_model_is_refused_even_without_a_mapping(self):
        result = self.revert({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "num_hidden_layers": 1},
                             [bf16(f"model.{LINEAR}", 8, 8), bf16("model.norm.weight", 8)])
        self.assertEqual(result.returncode, 1)
        self.assertIn("ReferenceMismatchError", result.stderr)


if __name__ == "__main__":
    unittest.main()
