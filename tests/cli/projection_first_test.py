"""Experts below their projections, experts.gate_proj.0, as ModelOpt 0.43 stored those of Qwen3-VL-MoE."""
import unittest

from exports import as_dict, bf16, modelopt_config, nvfp4, renamed
from program import ProgramTest, read_checkpoint, run, write_checkpoint

E, H, I = 2, 64, 32
L = "model.language_model.layers.0."
QWEN = {"architecture": "Qwen3VLMoeForConditionalGeneration", "model_type": "qwen3_vl_moe"}
TEXT = {"model_type": "qwen3_vl_moe_text", "num_experts": E, "hidden_size": H}
REST = [bf16(L + "mlp.gate.weight", E, H), bf16("model.language_model.norm.weight", H), bf16("lm_head.weight", 32, H)]
SHAPES = {"gate_proj": (I, H), "up_proj": (I, H), "down_proj": (H, I)}


def experts(container, names):
    """In NVFP4, as `names` puts a projection and a number."""
    tensors = []
    for i in range(E):
        for projection, shape in SHAPES.items():
            module = f"{container}.{names(projection, i)}"
            stored = nvfp4(f"{container}.{i}.{projection}", *shape, scalars=f"{i}")
            tensors += renamed(stored, (f"{container}.{i}.{projection}", module))
    return tensors


def first(projection, i):
    return f"{projection}.{i}"


def usual(projection, i):
    return f"{i}.{projection}"


class ProjectionFirstTest(ProgramTest):
    def export(self, name, tensors, **more):
        config = modelopt_config(QWEN["architecture"], QWEN["model_type"], text_config=TEXT, vision_config={"model_type": "qwen3_vl_moe"},
                                 exclude=["lm_head", L + "mlp.gate"], **more)
        write_checkpoint(self.path(name), config, tensors)
        return self.path(name)

    def setUp(self):
        super().setUp()
        container = L + "mlp.experts"
        self.want = as_dict(experts(container, usual) + REST)
        self.bad = self.export("bad", experts(container, first) + REST)
        write_checkpoint(self.path("hub"), {"architectures": [QWEN["architecture"]], "model_type": QWEN["model_type"], "text_config": TEXT},
                         REST + [bf16(f"{container}.gate_up_proj", E, H, 2 * I), bf16(f"{container}.down_proj", E, I, H)])

    def test_reverting_puts_the_number_first(self):
        for more in ([], ["--reference", self.path("hub")]):
            out = self.path(f"out{len(more)}")
            result = run("revert", self.bad, "-o", out, *more)
            self.assert_done(result)
            self.assertEqual(read_checkpoint(out), self.want)
            self.assertNotIn("hub names already", result.stderr)
            self.assert_done(run("verify", out, "--reference", self.path("hub")))

    def test_experts_of_a_hub_with_names_of_its_own(self):
        container = "model.layers.0.mlp.experts"
        config = modelopt_config("MixtralForCausalLM", "mixtral")
        write_checkpoint(self.path("in"), config, experts(container, first))
        self.assert_done(run("revert", self.path("in"), "-o", self.path("out")))
        short = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}
        want = experts(container, lambda projection, i: f"{i}.{short[projection]}")
        self.assertEqual(read_checkpoint(self.path("out")), as_dict(renamed(want, (".mlp.", ".block_sparse_moe."))))

    def test_verify_reports_each(self):
        result = run("verify", self.bad, "--reference", self.path("hub"))
        self.assert_fails(result, f"{L}mlp.experts.gate_proj.0: engines read it as {L}mlp.experts.0.gate_proj", "quantport revert renames it")
        self.assertIn("not verified: 6 problems", result.stderr)

    def test_a_class_without_a_mapping(self):
        config = modelopt_config("BrandNewForCausalLM", "new")
        write_checkpoint(self.path("in"), config | {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}, experts("model.layers.0.mlp.experts", first))
        self.assert_done(run("revert", self.path("in"), "-o", self.path("out")))
        self.assertEqual(read_checkpoint(self.path("out")), as_dict(experts("model.layers.0.mlp.experts", usual)))

    def test_what_reads_bytes_writes_the_usual_names(self):
        self.assert_done(run("dequantize", self.bad, "-o", self.path("plain")))
        names = set(read_checkpoint(self.path("plain")))
        self.assertIn(L + "mlp.experts.1.down_proj.weight", names)
        self.assertFalse([name for name in names if ".experts.down_proj." in name])


if __name__ == "__main__":
    unittest.main()
