"""Weights whose tensors are of no format: refused where their bytes would be read, carried where only names move, and
never called verified.
"""
import json
import unittest

from exports import bf16, fp8, mixtral_config, modelopt_config, nvfp4, tensor
from program import ProgramTest, read_checkpoint, run, write_checkpoint
from quantize_case import decoder, llama_config

LINEAR = "model.layers.0.self_attn.q_proj"
EXPERT = "model.layers.0.mlp.experts.0.gate_proj"
HUB_EXPERT = "model.layers.0.block_sparse_moe.experts.0.w1"
NVFP4_SCALE_2 = "weight_scale_2", "F32", []


def linear(*leaves):
    return [tensor(f"{LINEAR}.{leaf}", dtype, list(shape)) for leaf, dtype, shape in leaves]


def nvfp4_codes(codes=(128, 64), scale=(128, 8), scale_dtype="F8_E4M3"):
    return linear(("weight", "U8", codes), ("weight_scale", scale_dtype, scale), NVFP4_SCALE_2)


def quantized(algorithm):
    return llama_config(quantization_config=modelopt_config("", "", algorithm)["quantization_config"])


# What of the tensors does not fit -> the algorithm that the config says, the tensors and the words of the misfit.
MISFITS = {
    "codes transposed": ("NVFP4", nvfp4_codes(codes=(64, 128), scale=(128, 8)),
                         "the nearest is W4A16_NVFP4, but weight_scale is [128, 8], and W4A16_NVFP4 of [64, 256] has [64, 16] or [64, 8]"),
    "one scale too many": ("NVFP4", nvfp4_codes(scale=(128, 9)),
                           "weight_scale is [128, 9], and W4A16_NVFP4 of [128, 128] has [128, 8] or [128, 4]"),
    "scales in one dimension": ("NVFP4", nvfp4_codes(scale=(1024,)), "weight_scale is [1024]"),
    "scales of another dtype": ("NVFP4", nvfp4_codes(scale_dtype="BF16"),
                                "weight_scale is BF16, and W4A16_NVFP4 takes F8_E4M3"),
    "FP8 scales for half rows": ("FP8", linear(("weight", "F8_E4M3", (128, 128)), ("weight_scale", "F32", (2, 64))),
                                 "weight_scale is [2, 64], and FP8 of [128, 128] has [], [1], [1, 1] or [128]"),
    "FP8 scales that are integers": ("FP8", linear(("weight", "F8_E4M3", (128, 128)), ("weight_scale", "I32", ())),
                                     "weight_scale is I32, and FP8 takes F32, BF16, F16 or F8_E8M0"),
    "FP8 values of the other kind": ("FP8", linear(("weight", "F8_E5M2", (128, 128)), ("weight_scale", "F32", ())),
                                     "weight is F8_E5M2, and FP8 takes F8_E4M3"),
    "FP8 with a dimension too many": ("FP8", linear(("weight", "F8_E4M3", (128, 128, 1)), ("weight_scale", "F32", (128, 1))),
                                      "[128, 128, 1] is a matrix with a dimension too many"),
    "factors of two ranks": ("NVFP4", nvfp4_codes() + linear(("svdquant_lora_a", "BF16", (8, 128)), ("svdquant_lora_b", "BF16", (128, 16))),
                             "svdquant_lora_b is [128, 16], and NVFP4_SVD of [128, 128] has [128, 8]"),
    "scales beside numbers": ("NVFP4", linear(("weight", "BF16", (128, 128)), ("weight_scale", "F32", ())),
                              "weight_scale stands beside values of BF16"),
    "codes by themselves": ("NVFP4", linear(("weight", "I8", (128, 128))), "the values are I8, which are codes"),
    "a leaf of a quantizer": ("NVFP4", nvfp4_codes() + linear(("weight_quantizer._amax", "F32", ())),
                              "weight_quantizer._amax is no tensor of W4A16_NVFP4"),
}


class UnrecognizedTest(ProgramTest):
    def write(self, config, tensors):
        write_checkpoint(self.path("in"), config, [t for t in decoder() if LINEAR not in t[0]] + tensors)
        write_checkpoint(self.path("hub"), llama_config(), decoder())

    def run_in(self, command, *arguments):
        return run(command, self.path("in"), *arguments)

    def each(self):
        for kind, (algorithm, tensors, words) in MISFITS.items():
            with self.subTest(kind):
                self.setUp()
                self.write(quantized(algorithm), tensors)
                yield tensors, words

    def test_whoever_reads_bytes_refuses_by_name(self):
        for _, words in self.each():
            for command in (["dequantize"], ["quantize", "--recipe", "mxfp8"]):
                result = self.run_in(command[0], "-o", self.path("out"), *command[1:])
                self.assert_fails(result, f"{LINEAR}.weight: no format has these tensors", words)
                self.assert_nothing_left()

    def test_verify_reports_them(self):
        for _, words in self.each():
            result = self.run_in("verify", "--reference", self.path("hub"))
            self.assert_fails(result, f"{LINEAR}.weight: no format has these tensors", words, "not verified")

    def test_names_move_with_a_warning(self):
        for tensors, words in self.each():
            result = self.run_in("revert", "-o", self.path("out"))
            self.assert_done(result)
            self.assertIn(f"warning: weights that no format has are carried along as they are (1: {LINEAR}.weight)",
                          result.stderr)
            out = read_checkpoint(self.path("out"))
            for name, dtype, shape, body in tensors:
                self.assertEqual(out[name], (dtype, shape, body))
            shown = json.loads(self.run_in("inspect", "--json").stdout)
            found = next(module for module in shown["modules"] if module["name"] == LINEAR)
            self.assertEqual(found["layout"], "unrecognized")
            self.assertIn(words, found["misfit"])

    def test_all_of_them_are_named_at_once(self):
        names = [f"model.layers.0.self_attn.{p}_proj" for p in "qkv"]
        tensors = [t for t in decoder() if not any(name in t[0] for name in names)]
        for name in names:
            tensors += [tensor(f"{name}.weight", "F8_E4M3", [128, 128]), tensor(f"{name}.weight_scale", "F32", [2, 64])]
        write_checkpoint(self.path("in"), quantized("FP8"), tensors)
        result = self.run_in("dequantize", "-o", self.path("out"))
        self.assert_fails(result, *[f"{name}.weight: no format" for name in names])

    def test_a_warning_is_a_value(self):
        self.write(quantized("FP8"), MISFITS["FP8 scales for half rows"][1])
        for command in (["revert", "-o", self.path("out")], ["apply", "-o", self.path("out2")], ["inspect"]):
            report = json.loads(self.run_in(*command[:1], *command[1:], "--json").stdout)
            report = report.get("revert", report)
            # The rest of the model is stored plain, of which there is a warning too.
            found = [warning for warning in report["warnings"] if warning["id"] == "unrecognized-weights"]
            self.assertEqual(found, [{"id": "unrecognized-weights",
                                      "text": "weights that no format has are carried along as they are", "count": 1,
                                      "names": [f"{LINEAR}.weight"], "remedy": "inspect says what does not fit"}], command)

    def test_a_config_that_lost_its_quantization(self):
        self.write(llama_config(), nvfp4(LINEAR, 128, 128))
        words = f"{LINEAR}.weight: it is stored as NVFP4, and no config says that anything is quantized"
        self.assert_fails(self.run_in("dequantize", "-o", self.path("out")), words)
        self.assert_fails(self.run_in("quantize", "-o", self.path("out"), "--recipe", "mxfp8"), words)
        self.assert_fails(self.run_in("verify", "--reference", self.path("hub")), words)
        result = self.run_in("revert", "-o", self.path("out"))
        self.assert_done(result)
        self.assertIn("warning: weights are stored quantized, and no config says that anything is (1: ", result.stderr)

    def test_one_scale_in_a_list_of_one_is_for_all_rows(self):
        for shape in ([], [1]):
            self.setUp()
            self.write(quantized("W8A16"), [tensor(f"{LINEAR}.weight", "I8", [128, 128]),
                                            (f"{LINEAR}.weight_scale", "F32", shape, b"\0\0\0\x3f")])
            self.assert_done(self.run_in("dequantize", "-o", self.path("out")))
            codes = tensor(f"{LINEAR}.weight", "I8", [128, 128])[3]
            stored = read_checkpoint(self.path("out"))[f"{LINEAR}.weight"][2]
            for i in (0, 5, 128, 128 * 127 + 3):
                number = int.from_bytes(bytes(2) + stored[2 * i:2 * i + 2], "little")
                exponent, mantissa = number >> 23 & 255, 1 + (number & 0x7FFFFF) / 2**23
                value = 0 if exponent == 0 else mantissa * 2.0**(exponent - 127) * (-1 if number >> 31 else 1)
                self.assertEqual(value, (codes[i] - 256 * (codes[i] > 127)) / 2, i)


class StraysTest(ProgramTest):
    """Leaves that no format has, below a module whose weight is renamed."""

    def experts(self, *extra):
        tensors = [bf16("model.layers.0.mlp.gate.weight", 1, 128)]
        for name in ("gate_proj", "up_proj", "down_proj"):
            tensors += nvfp4(f"model.layers.0.mlp.experts.0.{name}", 128, 128)
        tensors += extra
        write_checkpoint(self.path("in"), mixtral_config(num_local_experts=1), tensors)

    def hub(self):
        write_checkpoint(self.path("hub"), {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral"},
                         [bf16("model.layers.0.block_sparse_moe.gate.weight", 1, 128)] +
                         [bf16(f"model.layers.0.block_sparse_moe.experts.0.w{i}.weight", 128, 128) for i in (1, 2, 3)])

    def test_follow_their_weight(self):
        self.hub()
        for leaf in ("act_scale", "weight_quantizer._amax", "lora_A.default.weight", "weight_amax", "scale"):
            for reference in ([], ["--reference", self.path("hub")]):
                with self.subTest(leaf, reference=bool(reference)):
                    shape = [8, 128] if "lora" in leaf else []
                    stray = tensor(f"{EXPERT}.{leaf}", "F32", shape)
                    self.experts(stray)
                    out = self.path(f"out {leaf} {len(reference)}")
                    result = run("revert", self.path("in"), "-o", out, *reference)
                    self.assert_done(result)
                    self.assertEqual(read_checkpoint(out)[f"{HUB_EXPERT}.{leaf}"], ("F32", shape, stray[3]))
                    self.assertIn(f"warning: weights that no format has are carried along as they are (1: {EXPERT}.weight)",
                                  result.stderr)

    def test_are_named_where_their_weight_is_joined(self):
        write_checkpoint(self.path("in"), {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral",
                                           "num_local_experts": 1},
                         [bf16(f"model.layers.0.block_sparse_moe.experts.0.w{i}.weight", 128, 128) for i in (1, 2, 3)] +
                         [tensor(f"{HUB_EXPERT}.act_scale", "F32", [])])
        result = run("apply", self.path("in"), "-o", self.path("out"))
        self.assert_fails(result, f"QuantConversionUnsupportedError: model.safetensors: {HUB_EXPERT}.act_scale: it stands "
                                  f"below {HUB_EXPERT}, which is cut, joined or permuted")
        self.assert_nothing_left()

    def test_a_models_own_parameter_beside_a_weight_keeps_its_own_name(self):
        config = modelopt_config("DeepseekV3ForCausalLM", "deepseek_v3")
        config.pop("quantization_config")
        names = ["model.layers.3.mlp.gate.weight", "model.layers.3.mlp.gate.e_score_correction_bias"]
        write_checkpoint(self.path("in"), config, [bf16(names[0], 4, 128), tensor(names[1], "F32", [4])])
        result = run("revert", self.path("in"), "-o", self.path("out"))
        self.assert_done(result)
        self.assertNotIn("warning", result.stderr)
        self.assertEqual(sorted(read_checkpoint(self.path("out"))), sorted(names))


if __name__ == "__main__":
    unittest.main()
