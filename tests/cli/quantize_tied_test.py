"""`quantport quantize` of models whose head is the embedding, and of which nothing is stored for the head."""
import json
import os
import shutil
import unittest
import zlib

from hub_models import load, write_tensors
from program import run, write
from quantize_case import QuantizeTest, decoder, llama_config


class TiedHeadTest(QuantizeTest):
    def tied(self, config):
        """A Llama's tensors without the head, which is the embedding."""
        self.hub([t for t in decoder() if not t[0].startswith("lm_head")], config)

    def excluded(self):
        with open(self.path("out/config.json"), encoding="utf-8") as f:
            config = json.load(f)["quantization_config"]["ignore"]
        with open(self.path("out/hf_quant_config.json"), encoding="utf-8") as f:
            self.assertEqual(json.load(f)["quantization"]["exclude_modules"], config)
        return config

    def test_a_tied_head_is_excluded_as_modelopt_excludes_it(self):
        self.tied(llama_config(tie_word_embeddings=True))
        self.quantized()
        self.assertEqual(self.excluded(), ["lm_head", "model.embed_tokens"])

    def test_a_head_that_is_missing_and_not_tied_is_not_excluded(self):
        self.tied(llama_config(tie_word_embeddings=False))
        self.quantized()
        self.assertEqual(self.excluded(), ["model.embed_tokens"])

    def test_a_tied_head_keeps_its_name_in_memory_as_in_modelopt(self):
        config = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "transformers_version": "5.17.0",
                  "text_config": {"model_type": "gemma3_text", "num_hidden_layers": 1}}
        tensors = [t for t in decoder() if not t[0].startswith("lm_head")]
        self.hub([(f"language_model.{t[0]}", *t[1:]) for t in tensors], config)
        self.quantized()
        self.assertEqual(self.excluded(), ["lm_head"])

    def test_tensors_and_lists_are_modelopts(self):
        golden = load("tied.json")
        self.assertEqual(sorted(golden["models"]), ["gemma3", "gemma4", "llama", "qwen3"])
        for name, model in golden["models"].items():
            with self.subTest(name):
                write_tensors(model["checkpoint"], self.path("hub"))
                shutil.rmtree(self.path("out"), ignore_errors=True)
                got = self.quantized(recipe=golden["recipe"])
                self.assertEqual({n: [t, s, zlib.crc32(data)] for n, (t, s, data) in got.items()},
                                 {n: rest for n, *rest in model["export"]})
                self.assertEqual(model["excluded"]["hf_quant_config.json"], self.excluded())
                self.assertEqual(model["excluded"]["config.json"], self.excluded())
                self.assert_done(run("verify", self.path("out"), "--reference", self.path("hub")))

    def test_a_recipe_that_asks_for_a_tied_head_is_refused(self):
        write(self.path("head.yaml"), b"""
imports: {nvfp4: configs/numerics/nvfp4}
metadata: {recipe_type: ptq, description: all linears}
quantize:
  algorithm: max
  quant_cfg:
    - {quantizer_name: '*', enable: false}
    - {quantizer_name: '*weight_quantizer', parent_class: Linear, cfg: {$import: nvfp4}}
""")
        self.tied(llama_config(tie_word_embeddings=True))
        self.assert_fails(self.quantize(recipe=self.path("head.yaml")), "lm_head: its weight is tied to another module's")
        self.assertFalse(os.path.exists(self.path("out")))


if __name__ == "__main__":
    unittest.main()
