"""Tensors that transformers' quantizers rename at load, beside the model's own mapping: a hub's `.scale` and `.qscale_weight`."""
import json
import os
import struct
import unittest

from exports import MODELOPT, as_dict, bf16, nvfp4, tensor
from program import ProgramTest, fill, read_checkpoint, run, write, write_checkpoint

H, I, E = 256, 128, 2
CONFIG = {"architectures": ["DeepseekV4ForCausalLM"], "model_type": "deepseek_v4", "transformers_version": "5.17.0", "hidden_size": H,
          "num_hidden_layers": 1, "n_routed_experts": E, "moe_intermediate_size": I, "vocab_size": 32, "dtype": "bfloat16",
          "expert_dtype": "fp4"}
FP8 = {"quant_method": "fp8", "fmt": "e4m3", "scale_fmt": "ue8m0", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
PLAIN = [bf16("embed.weight", 32, H), bf16("head.weight", 32, H), bf16("norm.weight", H), bf16("layers.0.attn_norm.weight", H),
         bf16("layers.0.ffn.gate.weight", E, H), tensor("layers.0.hc_attn_scale", "F32", [3])]
LINEARS = {"attn.wq_a": (128, H), "attn.wkv": (192, H), "ffn.shared_experts.w1": (I, H), "ffn.shared_experts.w2": (H, I),
           "ffn.shared_experts.w3": (I, H)}
EXPERTS = {f"ffn.experts.{i}.{w}": (H, I) if w == "w2" else (I, H) for i in range(E) for w in ("w1", "w2", "w3")}
CODES = [0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6]


def powers(module, leaf, shape):
    """Exponents around 2^0, so that no product overflows."""
    return (f"{module}.{leaf}", "F8_E8M0", shape, bytes(118 + b % 12 for b in fill(module, shape[0] * shape[1])))


def fp8_tiles(module, leaf="scale"):
    out, inner = LINEARS[module.split(".", 2)[2]]
    codes = bytes(b & 0x77 for b in fill(module, out * inner))
    return [(f"{module}.weight", "F8_E4M3", [out, inner], codes), powers(module, leaf, [-(-out // 128), -(-inner // 128)])]


def fp4(module, leaf="scale"):
    out, inner = EXPERTS[module.split(".", 2)[2]]
    return [tensor(f"{module}.weight", "I8", [out, inner // 2]), powers(module, leaf, [out, inner // 32])]


def hub(leaf="scale"):
    """As DeepSeek publishes it: tiles of FP8, experts of two FP4 values a byte, and a draft layer."""
    return (PLAIN + [t for m in LINEARS for t in fp8_tiles(f"layers.0.{m}", leaf)]
            + [t for layer in ("layers.0", "mtp.0") for m in EXPERTS for t in fp4(f"{layer}.{m}", leaf)])


def finite(stored):
    """The same with numbers that are some, and one scalar for all, as engines ask for."""
    name, dtype, shape, body = stored
    return (name, dtype, shape, bytes(b & 0x77 for b in body) if dtype == "F8_E4M3" else struct.pack("<f", 0.5) if dtype == "F32" else body)


def pro():
    """As NVIDIA publishes it: the same with experts in NVFP4, in a config that stays fine-grained FP8's."""
    experts = [finite(t) for m, (out, inner) in EXPERTS.items() for t in nvfp4(f"layers.0.{m}", out, inner)]
    return [t for t in hub() if not t[0].startswith("layers.0.ffn.experts.")] + experts


PRO = FP8 | {"quant_algo": "MIXED_PRECISION", "moe_quant_algo": "NVFP4", "group_size": 16, "producer": MODELOPT,
             "ignore": ["*.attn.*", "*.ffn.shared_experts.*", "head", "mtp.*"],
             "quantized_layers": {"layers.0.ffn.experts": {"quant_algo": "NVFP4", "group_size": 16}}}


def fp4_numbers(weight, scales):
    """BF16 bytes of FP4 codes, two in a byte, with a power of two for 32 of them: exact."""
    _, (_, packed), codes = weight
    _, (_, groups), exponents = scales
    values = []
    for i, byte in enumerate(codes):
        scale = 2.0 ** (exponents[i // packed * groups + 2 * (i % packed) // 32] - 127)
        values += [CODES[byte & 15] * scale, CODES[byte >> 4] * scale]
    return b"".join(struct.pack("<f", value)[2:] for value in values)


def e4m3(byte):
    sign, exponent, mantissa = -1 if byte >> 7 else 1, byte >> 3 & 15, byte & 7
    return sign * (mantissa / 8 * 2.0 ** -6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7))


def fp8_numbers(weight, scales):
    _, (_, inner), codes = weight
    _, (_, across), exponents = scales
    values = [e4m3(b) * 2.0 ** (exponents[i // inner // 128 * across + i % inner // 128] - 127) for i, b in enumerate(codes)]
    return b"".join(struct.pack("<f", value)[2:] for value in values)


class QuantizerNamesTest(ProgramTest):
    def write(self, name, tensors, quantization=None, config=None):
        write_checkpoint(self.path(name), (config or CONFIG) | ({"quantization_config": quantization} if quantization else {}), tensors)
        return self.path(name)

    def index(self, tensors):
        write(self.path("index/model.safetensors.index.json"),
              {"metadata": {}, "weight_map": {t[0]: "model-00001-of-00001.safetensors" for t in tensors}})
        return self.path("index/model.safetensors.index.json")

    def apply(self, name):
        self.assert_done(run("apply", self.path(name), "-o", self.path("memory")))
        return read_checkpoint(self.path("memory"))

    def assert_reverts(self, want, *arguments):
        out = self.path(f"back{len(os.listdir(self.path('.')))}")
        self.assert_done(run("revert", self.path("memory"), "-o", out, *arguments))
        self.assertEqual(read_checkpoint(out), as_dict(want))

    def test_memory_has_weight_scale_inv(self):
        self.write("hub", hub(), FP8)
        memory = self.apply("hub")
        self.assertFalse([name for name in memory if name.endswith(".scale") and "_hc." not in name])
        self.assertEqual(memory["model.layers.0.self_attn.q_a_proj.weight_scale_inv"][:2], ("F8_E8M0", [1, 2]))
        self.assertEqual(memory["model.layers.0.mlp.experts.gate_up_proj_scale_inv"][:2], ("F8_E8M0", [E, 2 * I, H // 32]))
        # A parameter of that name is not renamed, and a head stays beside the base model.
        self.assertIn("model.layers.0.attn_hc.scale", memory)
        self.assertIn("lm_head.weight", memory)

    def test_reverting_gives_the_published_leaf_back(self):
        for tensors, quantization in ((hub(), FP8), (pro(), PRO)):
            with self.subTest(quantization.get("quant_algo")):
                self.setUp()
                folder = self.write("hub", tensors, quantization)
                self.apply("hub")
                self.assert_reverts(tensors, "--reference", folder)
                self.assert_reverts(tensors, "--reference", self.index(tensors))

    def test_reverting_to_weight_scale_inv_where_the_reference_has_that(self):
        folder = self.write("hub", hub("weight_scale_inv"), FP8)
        self.assert_done(run("apply", self.path("hub"), "-o", self.path("memory")))
        self.assert_reverts(hub("weight_scale_inv"), "--reference", folder)

    def test_codes_of_both_kinds_are_read_with_their_scales(self):
        for tensors, quantization in ((hub(), FP8), (pro(), PRO)):
            with self.subTest(quantization.get("quant_algo")):
                self.setUp()
                folder = self.write("hub", tensors, quantization)
                result = run("inspect", folder, "--json")
                self.assert_done(result)
                self.assertEqual(json.loads(result.stdout)["warnings"], [])
                self.assert_done(run("verify", folder, "--reference", folder))
                self.assert_done(run("dequantize", folder, "-o", self.path("plain")))
                got, stored = read_checkpoint(self.path("plain")), as_dict(tensors)
                self.assertFalse([name for name in got if name.endswith(".scale")])
                for module, numbers in (("layers.0.attn.wkv", fp8_numbers), ("mtp.0.ffn.experts.1.w2", fp4_numbers)):
                    self.assertEqual(got[f"{module}.weight"][2], numbers(stored[f"{module}.weight"], stored[f"{module}.scale"]), module)
                self.assert_done(run("quantize", folder, "-o", self.path("nvfp4"), "--recipe", "nvfp4_experts_only_input_scale1-kv_fp8_cast"))
                names = read_checkpoint(self.path("nvfp4"))
                self.assertIn("layers.0.ffn.experts.0.w1.weight_scale_2", names)
                self.assertFalse([name for name in names if name.endswith(".scale") and ".experts." in name])

    def test_verify_tells_of_a_scale_that_the_reference_calls_otherwise(self):
        self.write("hub", hub(), FP8)
        self.write("other", hub("weight_scale_inv"), FP8)
        for checkpoint, reference, tensor_name, hub_leaf in (("other", "hub", "layers.0.attn.wkv.weight_scale_inv", "scale"),
                                                             ("hub", "other", "layers.0.attn.wkv.scale", "weight_scale_inv")):
            result = run("verify", self.path(checkpoint), "--reference", self.path(reference))
            self.assert_fails(result, f"{tensor_name}: the reference calls such a tensor {hub_leaf}")
            # It has hub names but for these, which reverting changes.
            self.assert_done(run("revert", self.path(checkpoint), "-o", self.path(f"{checkpoint}-out"), "--reference", self.path(reference)))
            self.assertEqual(read_checkpoint(self.path(f"{checkpoint}-out")), read_checkpoint(self.path(reference)))

    def test_an_export_keeps_the_leaf_that_it_has_where_nothing_speaks_of_it(self):
        self.write("memory", [bf16("model.norm.weight", H), ("model.layers.0.self_attn.kv_proj.weight", *fp8_tiles("layers.0.attn.wkv")[0][1:]),
                              ("model.layers.0.self_attn.kv_proj.scale", *fp8_tiles("layers.0.attn.wkv")[1][1:])], FP8)
        self.assert_done(run("revert", self.path("memory"), "-o", self.path("back"), "--by-rules"))
        self.assertIn("model.layers.0.attn.wkv.scale", read_checkpoint(self.path("back")))

    def test_a_scale_beside_numbers_is_a_parameter_of_its_own(self):
        config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
        tensors = [bf16("model.norm.weight", 8), bf16("model.layers.0.mlp.up_proj.weight", 8, 8), bf16("model.layers.0.mlp.up_proj.scale", 8)]
        self.write("hub", tensors, config=config)
        self.assert_done(run("apply", self.path("hub"), "-o", self.path("memory")))
        self.assertEqual(read_checkpoint(self.path("memory")), as_dict(tensors))

    def test_mistrals_scales(self):
        """Per-tensor FP8 with static activations, in a model that has no mapping of its own."""
        config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16, "dtype": "bfloat16"}
        m = "model.layers.0.mlp.up_proj"
        scale = struct.pack("<f", 0.5)
        tensors = [bf16("model.norm.weight", 16), (f"{m}.weight", "F8_E4M3", [8, 16], bytes([0x38] * 128)),
                   (f"{m}.qscale_weight", "F32", [], scale), (f"{m}.qscale_act", "F32", [], scale)]
        folder = self.write("hub", tensors, {"quant_method": "fp8", "activation_scheme": "static"}, config)
        self.assert_done(run("verify", folder, "--reference", folder))
        memory = self.apply("hub")
        self.assertEqual(sorted(memory), ["model.layers.0.mlp.up_proj.activation_scale", "model.layers.0.mlp.up_proj.weight",
                                          "model.layers.0.mlp.up_proj.weight_scale_inv", "model.norm.weight"])
        self.assert_reverts(tensors, "--reference", folder)
        self.assert_reverts(tensors, "--reference", self.index(tensors))
        self.assert_done(run("dequantize", folder, "-o", self.path("plain")))
        self.assertEqual(read_checkpoint(self.path("plain"))[f"{m}.weight"][2], b"\x00\x3f" * 128)  # 1 x 0.5
        self.assert_done(run("quantize", folder, "-o", self.path("fp8"), "--recipe", "w4a16_nvfp4"))

    def test_the_second_method_of_the_same_quantizer(self):
        """MXFP8 as MiniMax publishes it: a scale for 32 inputs, with the names of fine-grained FP8's list."""
        config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "dtype": "bfloat16"}
        m = "model.layers.0.mlp.up_proj"
        tensors = [bf16("model.norm.weight", 64), bf16("model.layers.0.mlp.gate_proj.weight", 8, 64),
                   (f"{m}.weight", "F8_E4M3", [8, 64], bytes([0x38] * 512)), (f"{m}.scale", "U8", [8, 2], bytes([126] * 16))]
        mxfp8 = {"quant_method": "mxfp8", "activation_scheme": "dynamic", "weight_block_size": [1, 32]}
        folder = self.write("hub", tensors, mxfp8 | {"ignored_layers": ["model.layers.0.mlp.gate_proj"]}, config)
        self.assert_done(run("verify", folder, "--reference", folder))
        self.apply("hub")
        self.assert_reverts(tensors, "--reference", self.index(tensors))
        self.assert_done(run("dequantize", folder, "-o", self.path("plain")))
        self.assertEqual(read_checkpoint(self.path("plain"))[f"{m}.weight"][2], b"\x00\x3f" * 512)  # 1 x 0.5
        folder = self.write("wrong", tensors, mxfp8, config)
        self.assert_fails(run("verify", folder, "--reference", folder), "model.layers.0.mlp.gate_proj")

    def test_what_quarks_quantizers_hold_in_memory_is_reverted(self):
        config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
        m = "model.layers.0.mlp.up_proj"
        quark = {"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp8_e4m3", "qscheme": "per_tensor"}}}
        tensors = [bf16("model.norm.weight", 16), tensor(f"{m}.weight", "F8_E4M3", [8, 16]), tensor(f"{m}.weight_quantizer.scale", "F32", []),
                   tensor(f"{m}.input_quantizer.scale", "F32", [])]
        self.write("memory", tensors, quark, config)
        want = [(name.replace("_quantizer.scale", "_scale"), *rest) for name, *rest in tensors]
        self.assert_reverts(want)


if __name__ == "__main__":
    unittest.main()
