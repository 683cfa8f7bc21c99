"""What quantport writes loads with the real libraries: safetensors opens every shard, transformers matches every key."""
import os
import subprocess
import tempfile
import unittest

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForImageTextToText, MixtralConfig, MixtralForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAM = os.environ.get("QUANTPORT", f"{ROOT}/build/release/quantport")
SAMPLE = f"{ROOT}/samples/minimax-m3-tiny"


def revert(source, target, *args):
    result = subprocess.run([PROGRAM, "revert", source, "-o", target, *args], capture_output=True, text=True)
    if result.returncode != 0:
        raise AssertionError(result.stderr)


def save_in_memory_names(model, folder):
    """The model as a quantizer would save it: the names it has in memory, tied weights once."""
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    tensors, seen = {}, set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            tensors[name] = tensor.contiguous()
    save_file(tensors, f"{folder}/model.safetensors", metadata={"format": "pt"})
    return tensors


class LoadsTest(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = temporary.name

    def assert_loads_equal(self, model_class, folder, expected):
        loaded, info = model_class.from_pretrained(folder, output_loading_info=True, dtype=torch.bfloat16)
        self.assertEqual({key: list(info[key]) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")},
                         {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": []})
        state = loaded.state_dict()
        for name, tensor in expected.items():
            self.assertTrue(torch.equal(state[name], tensor), name)

    def test_the_quantized_sample_opens_with_safetensors(self):
        revert(f"{SAMPLE}/export", f"{self.folder}/out", "--reference", f"{SAMPLE}/hub")
        names = set()
        for file in os.listdir(f"{self.folder}/out"):
            if file.endswith(".safetensors"):
                with safe_open(f"{self.folder}/out/{file}", "pt") as shard:
                    for name in shard.keys():
                        shard.get_tensor(name)
                        names.add(name)
        self.assertEqual(len(names), 177)
        self.assertIn("language_model.model.layers.1.block_sparse_moe.experts.3.w2.weight_scale_2", names)

    def test_unquantized_minimax_m3_loads_with_every_key_matched(self):
        model = AutoModelForImageTextToText.from_pretrained(f"{SAMPLE}/hub", dtype=torch.bfloat16)
        os.mkdir(f"{self.folder}/in")
        expected = save_in_memory_names(model, f"{self.folder}/in")
        for i, args in enumerate([(), ("--reference", f"{SAMPLE}/hub")]):
            revert(f"{self.folder}/in", f"{self.folder}/out{i}", *args)
            self.assert_loads_equal(AutoModelForImageTextToText, f"{self.folder}/out{i}", expected)

    def test_unquantized_mixture_of_experts_load_with_every_key_matched(self):
        sizes = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                     num_key_value_heads=2)
        for i, (config, model_class) in enumerate([(MixtralConfig(**sizes, num_local_experts=4), MixtralForCausalLM),
                                                   (Qwen3MoeConfig(**sizes, num_experts=4, moe_intermediate_size=16,
                                                                   head_dim=8), Qwen3MoeForCausalLM)]):
            model = model_class(config).to(torch.bfloat16)
            os.mkdir(f"{self.folder}/in{i}")
            expected = save_in_memory_names(model, f"{self.folder}/in{i}")
            revert(f"{self.folder}/in{i}", f"{self.folder}/out{i}")
            self.assert_loads_equal(model_class, f"{self.folder}/out{i}", expected)


if __name__ == "__main__":
    unittest.main()
