"""Experts in one tensor with inputs before outputs, as Llama 4 and gpt-oss have them: quantized in one, as ModelOpt does."""
import random
import struct
import unittest

from program import read_checkpoint, run, write
from quantize_case import QuantizeTest, bf16, f32

EXPERTS, HIDDEN, INNER = 2, 512, 2048  # gate_up_proj has 8 MiB, which is read in several stretches
CONTAINER = "model.layers.0.mlp.experts"
SHAPES = {"gate_up_proj": (HIDDEN, 2 * INNER), "down_proj": (INNER, HIDDEN)}
E2M1 = (0, 0.5, 1, 1.5, 2, 3, 4, 6)
CONFIG = {"architectures": ["NobodyKnowsThis"], "model_type": "nobody", "torch_dtype": "bfloat16"}


def values(seed, count):
    """BF16 numbers of either sign that are spread over four powers of two."""
    source = random.Random(seed)
    data = bytearray(2 * count)
    data[0::2] = source.randbytes(count)
    data[1::2] = source.randbytes(count).translate(bytes([0x3C, 0x3D, 0xBC, 0xBD] * 64))
    return bytes(data)


def turned(data, size, experts, rows, columns):
    """[experts, rows, columns] of elements of `size` bytes as [experts, columns, rows]."""
    out = bytearray(len(data))
    for e in range(experts):
        for byte in range(size):
            for c in range(columns):
                begin = e * rows * columns
                out[(begin + c * rows) * size + byte:(begin + (c + 1) * rows) * size:size] = \
                    data[(begin + c) * size + byte:(begin + rows * columns) * size:columns * size]
    return bytes(out)


class BatchedExpertsTest(QuantizeTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.weights = {name: values(name, EXPERTS * rows * columns) for name, (rows, columns) in SHAPES.items()}

    def batched(self):
        return self.hub([(f"{CONTAINER}.{name}", "BF16", [EXPERTS, *shape], self.weights[name])
                         for name, shape in SHAPES.items()], CONFIG)

    def linears(self, turn):
        """The same numbers as one linear for each projection, its outputs those of all experts."""
        tensors = []
        for name, (inputs, outputs) in SHAPES.items():
            data = turned(self.weights[name], 2, EXPERTS, inputs, outputs) if turn else self.weights[name]
            shape = [EXPERTS * outputs, inputs] if turn else [EXPERTS * inputs, outputs]
            tensors.append((f"model.layers.0.{name}.weight", "BF16", shape, data))
        return self.hub(tensors, CONFIG, name="linears")

    def test_blocks_of_nvfp4_run_along_the_inputs_and_bytes_hold_two_of_them(self):
        self.batched()
        self.linears(turn=True)
        for recipe in ("w4a16_nvfp4", "nvfp4_experts_only_input_scale1-kv_fp8_cast"):
            got = self.quantized("--kv-cache", "none", recipe=recipe, out=recipe)
            want = self.quantized(model="linears", out=f"{recipe}-linears")
            for name, (inputs, outputs) in SHAPES.items():
                linear = f"model.layers.0.{name}"
                dtype, shape, data = got[f"{CONTAINER}.{name}"]
                self.assertEqual((dtype, shape), ("U8", [EXPERTS, inputs // 2, outputs]))
                self.assertEqual(data, turned(want[f"{linear}.weight"][2], 1, EXPERTS, outputs, inputs // 2))
                dtype, shape, data = got[f"{CONTAINER}.{name}_weight_scale"]
                self.assertEqual((dtype, shape), ("F8_E4M3", [EXPERTS, inputs // 16, outputs]))
                self.assertEqual(data, turned(want[f"{linear}.weight_scale"][2], 1, EXPERTS, outputs, inputs // 16))
                self.assertEqual(got[f"{CONTAINER}.{name}_weight_scale_2"], want[f"{linear}.weight_scale_2"])
        self.assertEqual(f32(got[f"{CONTAINER}.down_proj_input_scale"][2]), [1.0])

    def test_blocks_of_other_formats_run_along_the_outputs(self):
        self.batched()
        self.linears(turn=False)
        for recipe in ("mxfp8", "mxfp4"):
            got = self.quantized("--kv-cache", "none", recipe=recipe, out=recipe)
            want = self.quantized(recipe=recipe, model="linears", out=f"{recipe}-linears")
            for name, (inputs, outputs) in SHAPES.items():
                self.assertEqual(got[f"{CONTAINER}.{name}"][2], want[f"model.layers.0.{name}.weight"][2])
                dtype, shape, data = got[f"{CONTAINER}.{name}_weight_scale"]
                self.assertEqual((dtype, shape), ("U8", [EXPERTS, inputs, outputs // 32]))
                self.assertEqual(data, want[f"model.layers.0.{name}.weight_scale"][2])

    def test_a_projection_without_a_calibrated_amax_gets_the_others(self):
        self.batched()
        path = self.calibration({f"{CONTAINER}.gate_up_proj.input_amax": 6.0})
        result = self.quantize("--calibration", path, recipe="nvfp4")
        self.assert_done(result)
        self.assertIn(f"{CONTAINER}.down_proj has no calibrated amax: 6 is taken", result.stderr)
        scales = [f32(data) for name, (_, _, data) in read_checkpoint(self.path("out")).items() if name.endswith("input_scale")]
        self.assertEqual(scales, [[struct.unpack("<f", struct.pack("<f", 6 / 2688))[0]]] * 2)

    def test_projections_of_which_none_was_calibrated_get_modelopts_fallback(self):
        self.batched()
        result = self.quantize("--calibration", self.calibration({"lm_head.input_amax": 6.0}), recipe="nvfp4")
        self.assert_done(result)
        for projection in SHAPES:
            self.assertIn(f"{CONTAINER}.{projection} has no calibrated amax: 0.5 is taken", result.stderr)
        self.assert_input_amax(0.5)

    def test_a_recipe_that_calibrates_nothing_gives_modelopts_fallback(self):
        self.batched()
        write(self.path("none.yaml"), b"""
imports: {nvfp4: configs/numerics/nvfp4}
metadata: {recipe_type: ptq, description: without an algorithm}
quantize:
  algorithm: null
  quant_cfg:
    - {quantizer_name: '*', enable: false}
    - {quantizer_name: '*mlp*weight_quantizer', cfg: {$import: nvfp4}}
    - {quantizer_name: '*mlp*input_quantizer', cfg: {$import: nvfp4}}
""")
        self.assert_done(self.quantize(recipe=self.path("none.yaml")))
        self.assert_input_amax(0.5)

    def assert_input_amax(self, amax):
        scale = struct.unpack("<f", struct.pack("<f", amax / 2688))[0]
        self.assertEqual([f32(data) for name, (_, _, data) in read_checkpoint(self.path("out")).items()
                          if name.endswith("input_scale")], [[scale]] * 2)

    def test_a_number_that_is_not_finite_is_named_with_its_place(self):
        for name, (rows, columns) in SHAPES.items():
            data = bytearray(self.weights[name])
            data[2 * (columns * 17 + 5):2 * (columns * 17 + 6)] = b"\x80\x7f"
            self.hub([(f"{CONTAINER}.{other}", "BF16", [EXPERTS, *shape], bytes(data) if other == name else self.weights[other])
                      for other, shape in SHAPES.items()], CONFIG, name=name)
            self.assert_fails(self.quantize(model=name), f"{CONTAINER}.{name}:", "element [17, 5] is infinite")
            self.assert_nothing_left()

    def test_shapes_that_do_not_go_together_are_refused(self):
        self.hub([(f"{CONTAINER}.gate_up_proj", "BF16", [2, 64, 96], bytes(2 * 2 * 64 * 96)),
                  (f"{CONTAINER}.down_proj", "BF16", [2, 64, 96], bytes(2 * 2 * 64 * 96))], CONFIG)
        self.assert_fails(self.quantize(), CONTAINER, "shapes that do not go together")
        self.assert_nothing_left()

    def test_dequantized_experts_are_those_of_their_linears_turned_over(self):
        self.batched()
        self.linears(turn=True)
        for model in ("hub", "linears"):
            self.quantized(model=model, out=f"{model}-nvfp4")
            self.assert_done(run("dequantize", self.path(f"{model}-nvfp4"), "-o", self.path(f"{model}-plain")))
        got, want = (read_checkpoint(self.path(f"{model}-plain")) for model in ("hub", "linears"))
        self.assertEqual(sorted(got), sorted(f"{CONTAINER}.{name}" for name in SHAPES))
        for name, (inputs, outputs) in SHAPES.items():
            dtype, shape, data = got[f"{CONTAINER}.{name}"]
            self.assertEqual((dtype, shape), ("BF16", [EXPERTS, inputs, outputs]))
            self.assertEqual(data, turned(want[f"model.layers.0.{name}.weight"][2], 2, EXPERTS, outputs, inputs))

    def test_dequantized_experts_of_other_formats_are_those_of_one_matrix(self):
        self.batched()
        self.linears(turn=False)
        for recipe in ("mxfp8", "mxfp4"):
            for model in ("hub", "linears"):
                self.quantized(model=model, recipe=recipe, out=f"{model}-{recipe}")
                self.assert_done(run("dequantize", self.path(f"{model}-{recipe}"), "-o", self.path(f"{model}-{recipe}-plain")))
            got, want = (read_checkpoint(self.path(f"{model}-{recipe}-plain")) for model in ("hub", "linears"))
            for name in SHAPES:
                self.assertEqual(got[f"{CONTAINER}.{name}"][2], want[f"model.layers.0.{name}.weight"][2])

    def test_the_experts_of_gpt_oss_are_read_as_the_numbers_that_they_stand_for(self):
        tensors = []
        for name, (inputs, outputs) in SHAPES.items():
            shape = [EXPERTS, outputs, inputs // 32]
            count = EXPERTS * outputs * inputs // 32
            source = random.Random(name)
            tensors += [(f"{CONTAINER}.{name}_blocks", "U8", [*shape, 16], source.randbytes(16 * count)),
                        (f"{CONTAINER}.{name}_scales", "U8", shape, bytes(source.choices(range(118, 124), k=count)))]
        self.hub(tensors, CONFIG | {"quantization_config": {"quant_method": "mxfp4"}}, name="gpt-oss")
        self.assert_done(run("dequantize", self.path("gpt-oss"), "-o", self.path("plain")))
        plain = read_checkpoint(self.path("plain"))
        (_, shape, blocks), (_, _, scales) = tensors[0][1:], tensors[1][1:]
        values = bf16(plain[f"{CONTAINER}.gate_up_proj"][2])
        inputs, outputs = SHAPES["gate_up_proj"]
        for expert, i, o in ((0, 0, 0), (0, 1, 0), (0, 33, 7), (1, 511, 4095), (1, 17, 2048)):
            at = (expert * outputs + o) * inputs + i
            code = blocks[at // 2] >> 4 * (i % 2) & 15
            number = E2M1[code & 7] * (-1 if code & 8 else 1) * 2.0 ** (scales[at // 32] - 127)
            self.assertEqual(values[(expert * inputs + i) * outputs + o], number)
        direct = self.quantized(model="gpt-oss", out="direct", recipe="mxfp8")
        self.assertEqual(direct, self.quantized(model="plain", out="twice", recipe="mxfp8"))
        # NVFP4 holds the same numbers.
        cast = self.quantized(model="gpt-oss", out="cast")
        self.assertEqual(cast[f"{CONTAINER}.down_proj"][1], [EXPERTS, INNER // 2, HIDDEN])
        self.assert_done(run("dequantize", self.path("cast"), "-o", self.path("cast-plain")))
        self.assertEqual(bf16(read_checkpoint(self.path("cast-plain"))[f"{CONTAINER}.gate_up_proj"][2]), values)

    def test_the_result_is_read_as_what_it_is(self):
        self.batched()
        self.quantized()
        inspected = run("inspect", self.path("out"), "--modules")
        self.assert_done(inspected)
        self.assertIn("W4A16_NVFP4", inspected.stdout)


if __name__ == "__main__":
    unittest.main()
