"""Quantized formats: what their exporters make of a fused weight, cut, is what they make of its parts.

The cases below tests/golden/layouts were recorded by tools/make_layout_goldens.py; each says how in its case.json.
"""
import json
import os
import shutil
import struct
import unittest

from exports import bf16, hf_quant_config, nvfp4, tensor
from program import ROOT, ProgramTest, read_checkpoint, read_file, run, write_checkpoint

GOLDEN = f"{ROOT}/tests/golden/layouts"
MAPPING = f"{GOLDEN}/mapping.json"
CASES = sorted(name for name in os.listdir(GOLDEN) if os.path.isdir(f"{GOLDEN}/{name}"))
QKV, FUSED = "model.layers.0.attn.qkv", "model.layers.0.mlp.gate_up"
O, OTHER = "model.layers.0.attn.o", "model.layers.0.mlp.down"  # which are renamed only
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 64, "desc_act": False}
PACKED = {"quant_method": "compressed-tensors", "format": "pack-quantized",
          "config_groups": {"group_0": {"weights": {"num_bits": 4, "group_size": 64}, "targets": ["Linear"]}}}
BNB = {"quant_method": "bitsandbytes", "load_in_4bit": True}


def read_json(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def config(quantization):
    return {"architectures": ["GoldenForCausalLM"], "model_type": "golden", "quantization_config": quantization}


def modelopt(algorithm, **more):
    """config.json of a ModelOpt export with this algorithm."""
    return config({"quant_method": "modelopt", "quant_algo": algorithm, "ignore": ["lm_head"]} | more)


def shape_of(out, inputs):
    return (f"{FUSED}.weight_shape", "I64", [2], struct.pack("<2q", out, inputs))


def bitsandbytes(out, inputs, scale_type="F32"):
    """A 4-bit weight with a scale for 64 values."""
    state = json.dumps({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [out, inputs]}).encode()
    return [tensor(f"{FUSED}.weight", "U8", [out * inputs // 2, 1]),
            tensor(f"{FUSED}.weight.absmax", scale_type, [out * inputs // 64]),
            tensor(f"{FUSED}.weight.quant_map", "F32", [16]),
            (f"{FUSED}.weight.quant_state.bitsandbytes__nf4", "U8", [len(state)], state)]


class GoldenTest(ProgramTest):
    def test_no_golden_is_lost(self):
        """The tests below go through the folders that are there."""
        self.assertEqual(len(CASES), 42)

    def test_every_format_is_cut_as_its_exporter_would_have(self):
        for name in CASES:
            with self.subTest(name):
                self.setUp()
                result = run("revert", f"{GOLDEN}/{name}/export", "-o", self.path("out"), "--mapping", MAPPING)
                self.assert_done(result)
                got, want = read_checkpoint(self.path("out")), read_file(f"{GOLDEN}/{name}/expected.safetensors")
                self.assertEqual(sorted(got), sorted(want))
                for tensor_name, (dtype, shape, body) in want.items():
                    self.assertEqual(got[tensor_name][:2], (dtype, shape), tensor_name)
                    self.assertEqual(got[tensor_name][2], body, f"{tensor_name}: other bytes")

    def test_every_format_is_named(self):
        for name in CASES:
            with self.subTest(name):
                case = read_json(f"{GOLDEN}/{name}/case.json")
                result = run("inspect", f"{GOLDEN}/{name}/export", "--json")
                self.assert_done(result)
                layouts = {module["name"]: module["layout"] for module in json.loads(result.stdout)["modules"]}
                self.assertEqual(layouts[case["module"]], case["layout"])
                self.assertEqual(layouts["lm_head"], "plain")


class LayoutCase(ProgramTest):
    def revert(self, configuration, tensors, **extra):
        write_checkpoint(self.path("in"), configuration, [*tensors, bf16("lm_head.weight", 4, 8)], **extra)
        return run("revert", self.path("in"), "-o", self.path("out"), "--mapping", MAPPING)

    def assert_refused(self, result, *fragments):
        self.assert_fails(result, *fragments)
        self.assert_nothing_left()


class CutTest(LayoutCase):
    """Cuts that a format's storage does not allow, and the physical reason."""

    def refuse(self, configuration, tensors, reason, key=f"{FUSED}.weight"):
        self.setUp()
        result = self.revert(configuration, tensors)
        self.assert_refused(result, "QuantConversionUnsupportedError: ", f"{key}: Chunk: {reason}")

    def test_two_rows_share_a_byte_of_packed_int4(self):
        self.refuse(modelopt("W4A16_AWQ"),
                    [tensor(f"{FUSED}.weight", "U8", [3, 128]), tensor(f"{FUSED}.weight_scale", "F32", [6, 1])],
                    "the cut at 3 falls inside a block of 2 that shares one element of weight")

    def test_rows_share_words_of_zero_points(self):
        gptq = [tensor(f"{FUSED}.qweight", "I32", [16, 24]), tensor(f"{FUSED}.qzeros", "I32", [2, 3]),
                tensor(f"{FUSED}.scales", "F16", [2, 24]), tensor(f"{FUSED}.g_idx", "I32", [128])]
        self.refuse(config(GPTQ), gptq, "the cut at 12 falls inside a block of 8 that shares one element of qzeros")
        awq = [tensor(f"{FUSED}.qweight", "I32", [128, 3]), tensor(f"{FUSED}.qzeros", "I32", [2, 3]),
               tensor(f"{FUSED}.scales", "F16", [2, 24])]
        self.refuse(config({"quant_method": "awq", "bits": 4, "group_size": 64, "version": "gemm"}), awq,
                    "the cut at 12 falls inside a block of 8 that shares one element of qweight")
        packed = [tensor(f"{FUSED}.weight_packed", "I32", [24, 16]), tensor(f"{FUSED}.weight_scale", "BF16", [24, 2]),
                  tensor(f"{FUSED}.weight_zero_point", "I32", [3, 2]), shape_of(24, 128)]
        self.refuse(config(PACKED), packed,
                    "the cut at 12 falls inside a block of 8 that shares one element of weight_zero_point")

    def test_a_cut_inside_a_tile(self):
        self.refuse(config({"quant_method": "fp8", "weight_block_size": [128, 128]}),
                    [tensor(f"{FUSED}.weight", "F8_E4M3", [192, 128]),
                     tensor(f"{FUSED}.weight_scale_inv", "F32", [2, 1])],
                    "the cut at 96 falls inside a block of 128 that shares one element of weight_scale_inv")

    def test_blocks_of_flattened_values_span_rows(self):
        self.refuse(config(BNB), bitsandbytes(6, 32),
                    "the cut at 3 falls inside a block of 2 that shares one element of weight.absmax")

    def test_double_quantization_takes_a_mean_over_the_whole_weight(self):
        nested = [tensor(f"{FUSED}.weight.nested_absmax", "F32", [1]),
                  tensor(f"{FUSED}.weight.nested_quant_map", "F32", [256])]
        self.refuse(config(BNB), bitsandbytes(8, 64, "U8") + nested,
                    "weight.absmax: double quantization takes the mean of the whole weight's scales off them")


class ContradictionTest(LayoutCase):
    """Configs and tensors that can't both be right: who reads bytes or cuts them stops, who only moves names warns."""

    def warned(self, configuration, tensors, reason, tensor_name):
        self.setUp()
        result = self.revert(configuration, tensors)
        self.assert_done(result)
        self.assertRegex(result.stderr, f"warning: config.json: modules .*{tensor_name}")
        shutil.rmtree(self.path("out"))
        result = run("dequantize", self.path("in"), "-o", self.path("out"))
        self.assert_refused(result, f"InvalidConfigError: config.json: {tensor_name}: {reason}")

    def contradict(self, configuration, tensors, reason):
        """Of a fused weight, and of the same as one that is renamed only."""
        self.setUp()
        result = self.revert(configuration, tensors)
        self.assert_refused(result, f"{QKV}.weight: Chunk: Chunk needs to know how this weight is stored, and the config contradicts it: {reason}")
        alone = [(t[0].replace(QKV, O), *t[1:]) for t in tensors]
        self.warned(json.loads(json.dumps(configuration).replace(QKV, O)), alone, reason, f"{O}.weight")

    def accept(self, configuration, tensors, **options):
        self.setUp()
        self.assert_done(self.revert(configuration, tensors, **options))

    def test_another_algorithm(self):
        self.contradict(modelopt("FP8"), nvfp4(QKV, 48, 64), "the config says FP8, the tensors are NVFP4")
        self.contradict(config({"quant_method": "fp8", "weight_block_size": [128, 128]}), nvfp4(QKV, 48, 64),
                        "the config says fp8, the tensors are NVFP4")

    def test_a_compression_format_that_the_leaves_contradict(self):
        self.contradict(config({"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"}),
                        nvfp4(QKV, 48, 64), "the config says nvfp4-pack-quantized, the tensors are NVFP4")

    def test_another_group_size(self):
        groups = {"group_0": {"weights": {"num_bits": 4, "group_size": 32}, "targets": ["Linear"]}}
        self.contradict(modelopt("NVFP4", config_groups=groups), nvfp4(QKV, 48, 64),
                        "group_size is 32, but weight_scale has one scale for 16 values")

    def test_another_width(self):
        gptq = [tensor(f"{QKV}.qweight", "I32", [16, 96]), tensor(f"{QKV}.qzeros", "I32", [2, 12]),
                tensor(f"{QKV}.scales", "F16", [2, 96]), tensor(f"{QKV}.g_idx", "I32", [128])]
        self.contradict(config(GPTQ | {"bits": 8}), gptq, "the config says 8 bits, the tensors hold values of 4")
        self.accept(config(GPTQ | {"bits": 8, "dynamic": {"+:.*qkv": {"bits": 4}}}), gptq)

    def test_a_tile_that_does_not_make_these_scales(self):
        fp8 = config({"quant_method": "fp8", "weight_block_size": [64, 64]})
        for shape in ([3, 1], []):
            self.warned(fp8, [tensor(f"{O}.weight", "F8_E4M3", [384, 128]), (f"{O}.weight_scale_inv", "F32", shape)],
                        f"weight_block_size is [64, 64], which does not make scales of shape {shape}", f"{O}.weight")

    def test_an_excluded_module_that_is_quantized(self):
        for entry in (QKV, "*.qkv", "re:.*qkv$"):
            self.warned(modelopt("NVFP4", ignore=[entry]), nvfp4(QKV, 48, 64),
                        f'the exclude entry "{entry}" covers this module', QKV)

    def test_a_layer_of_mixed_precision_with_another_algorithm(self):
        layers = {QKV: {"quant_algo": "FP8"}, OTHER: {"quant_algo": "NVFP4", "group_size": 16}}
        tensors = nvfp4(QKV, 48, 64) + nvfp4(OTHER, 16, 64)
        self.contradict(modelopt("MIXED_PRECISION", quantized_layers=layers), tensors,
                        "the config says FP8, the tensors are NVFP4")
        layers[QKV] = {"quant_algo": "W4A16_NVFP4", "group_size": 16}
        self.accept(modelopt("MIXED_PRECISION", quantized_layers=layers), tensors)

    def test_sloppy_configs_are_no_contradictions(self):
        tensors = nvfp4(QKV, 48, 64)
        for configuration in (
                modelopt("nvfp4"), modelopt("NVFP4_AWQ"), modelopt("SOMETHING_NEW"), modelopt("MIXED_PRECISION"),
                modelopt("NVFP4", ignore=None), modelopt("NVFP4", ignore=["model.layers.0.attn", "attn", "mtp*"]),
                modelopt("NVFP4", config_groups={"group_0": {"weights": None}, "group_1": None}),
                config({"quant_method": "modelopt"}), config({"quant_method": "brand_new", "group_size": -1}),
                config({"quant_method": "compressed-tensors", "format": "mixed-precision"})):
            self.accept(configuration, tensors)

    def test_the_other_config_file_is_held_against_the_tensors_as_well(self):
        self.assert_done(self.revert(modelopt("NVFP4"), nvfp4(O, 48, 64),
                                     extra={"hf_quant_config.json": hf_quant_config(algorithm="FP8")}))
        shutil.rmtree(self.path("out"))
        result = run("dequantize", self.path("in"), "-o", self.path("out"))
        self.assert_refused(result, f"InvalidConfigError: hf_quant_config.json: {O}.weight: the config says FP8")

    def test_verify_and_inspect_do_not_stop_at_a_contradiction(self):
        write_checkpoint(self.path("in"), modelopt("FP8"), nvfp4(QKV, 48, 64))
        self.assert_done(run("inspect", self.path("in"), "--json"))
        write_checkpoint(self.path("hub"), {}, [bf16(f"{QKV}.weight", 48, 64)])
        result = run("verify", self.path("in"), "--reference", self.path("hub"), "--mapping", MAPPING)
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn("the config says FP8, the tensors are NVFP4", result.stdout + result.stderr)


if __name__ == "__main__":
    unittest.main()
