"""Linears that see one input share NVFP4's global scale, as ModelOpt's export of these models has them."""
import unittest

from quantize_case import QuantizeTest, weight

NOBODY = {"architectures": ["NobodyKnowsThis"], "model_type": "nobody", "num_hidden_layers": 1}
BLOCK = "model.layers.0.self_attn"


class SharedInputsTest(QuantizeTest):
    def groups(self, *linears):
        """The linears by their global scale."""
        self.hub([weight(f"{BLOCK}.{name}.weight", 64, 128) for name in linears], NOBODY)
        scales = {}
        for name, (_, _, data) in self.quantized().items():
            if name.endswith(".weight_scale_2"):
                scales.setdefault(data, []).append(name.removeprefix(f"{BLOCK}.").removesuffix(".weight_scale_2"))
        return sorted(sorted(group) for group in scales.values())

    def test_an_indexer_sees_what_its_attentions_projections_see(self):
        self.assertEqual(self.groups("q_a_proj", "kv_a_proj_with_mqa", "indexer.wk", "indexer.weights_proj", "q_b_proj", "indexer.wq_b", "o_proj"),
                         [["indexer.weights_proj", "indexer.wk", "kv_a_proj_with_mqa", "q_a_proj"], ["indexer.wq_b", "q_b_proj"], ["o_proj"]])

    def test_so_do_compressors_and_their_indexers(self):
        indexer = "compressor.indexer"
        self.assertEqual(
            self.groups("q_a_proj", "kv_proj", "compressor.kv_proj", "compressor.gate_proj", f"{indexer}.kv_proj", f"{indexer}.gate_proj",
                        f"{indexer}.scorer.weights_proj", "q_b_proj", f"{indexer}.q_b_proj", "o_b_proj"),
            [["compressor.gate_proj", f"{indexer}.gate_proj", f"{indexer}.kv_proj", f"{indexer}.scorer.weights_proj", "compressor.kv_proj",
              "kv_proj", "q_a_proj"], [f"{indexer}.q_b_proj", "q_b_proj"], ["o_b_proj"]])

    def test_a_linear_that_multiplies_in_groups_stays_as_it_is_and_is_excluded(self):
        self.hub([weight(f"{BLOCK}.{name}.weight", 64, 128) for name in ("o_a_proj", "o_b_proj")], NOBODY)
        result = self.quantized()
        self.assertEqual(result[f"{BLOCK}.o_a_proj.weight"][0], "BF16")
        self.assertEqual(result[f"{BLOCK}.o_b_proj.weight"][0], "U8")


if __name__ == "__main__":
    unittest.main()
