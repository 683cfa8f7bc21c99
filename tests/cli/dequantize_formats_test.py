"""quantport dequantize on what GPTQ, AutoAWQ, compressed-tensors and ModelOpt's AWQ wrote, against decoders written here.

The checkpoints are tests/golden/layouts, each made by its own exporter.
"""
import json
import os
import shutil
import struct
import unittest

from program import ROOT, ProgramTest, read_checkpoint, run
from quantize_case import QuantizeTest, f32, llama_config, weight

LAYOUTS = f"{ROOT}/tests/golden/layouts"
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
E2M1 = (0, 0.5, 1, 1.5, 2, 3, 4, 6)


def words(data):
    return [word for (word,) in struct.iter_unpack("<I", data)]


def halves(data):
    return [value for (value,) in struct.iter_unpack("<e", data)]


def brains(data):
    return [struct.unpack("<f", bytes(2) + data[i:i + 2])[0] for i in range(0, len(data), 2)]


def stream(stored, bits, count):
    """Values of `bits` bits, the first in the lowest bits of the first word, and across words."""
    number = sum(word << 32 * i for i, word in enumerate(stored))
    return [number >> bits * i & (1 << bits) - 1 for i in range(count)]


def columns(data, width):
    values = words(data)
    return [values[column::width] for column in range(width)]


def rounded(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


class Unit:
    """The stored parts of one module."""

    def __init__(self, tensors, module):
        self.parts = {name[len(module) + 1:]: tensor for name, tensor in tensors.items() if name.startswith(f"{module}.")}

    def data(self, leaf):
        return self.parts[leaf][2]

    def shape(self, leaf):
        return self.parts[leaf][1]


def gptq(unit, less_one=False):
    (groups, out), inputs = unit.shape("scales"), unit.shape("g_idx")[0]
    bits = unit.shape("qweight")[0] * 32 // inputs
    codes = [stream(column, bits, inputs) for column in columns(unit.data("qweight"), out)]
    width = unit.shape("qzeros")[1]
    stored = words(unit.data("qzeros"))
    zeros = [stream(stored[g * width:(g + 1) * width], bits, out) for g in range(groups)]
    scales, index = halves(unit.data("scales")), words(unit.data("g_idx"))
    return [(codes[row][i] - zeros[index[i]][row] - less_one) * scales[index[i] * out + row]
            for row in range(out) for i in range(inputs)]


def awq(unit):
    (groups, out), inputs = unit.shape("scales"), unit.shape("qweight")[0]

    def unpacked(leaf):
        numbers = []
        for word in words(unit.data(leaf)):
            slots = stream([word], 4, 8)
            numbers += [slots[AWQ_ORDER.index(i)] for i in range(8)]
        return numbers
    codes, zeros, scales = unpacked("qweight"), unpacked("qzeros"), halves(unit.data("scales"))
    return [(codes[i * out + row] - zeros[i * groups // inputs * out + row]) * scales[i * groups // inputs * out + row]
            for row in range(out) for i in range(inputs)]


def packed(unit):
    out, inputs = struct.unpack("<qq", unit.data("weight_shape"))
    width = unit.shape("weight_packed")[1]
    bits = 4 if width * 8 == inputs else 3
    stored, scales = words(unit.data("weight_packed")), brains(unit.data("weight_scale"))
    groups = len(scales) // out
    zeros = [[1 << bits - 1] * out] * groups
    if "weight_zero_point" in unit.parts:
        zeros = [stream(column, bits, out) for column in columns(unit.data("weight_zero_point"), groups)]
    numbers = []
    for row in range(out):
        codes = stream(stored[row * width:(row + 1) * width], bits, inputs)
        numbers += [(codes[i] - zeros[i * groups // inputs][row]) * scales[row * groups + i * groups // inputs]
                    for i in range(inputs)]
    return numbers


def int8(unit):
    out, inputs = unit.shape("weight")
    codes = struct.unpack(f"{out * inputs}b", unit.data("weight"))
    scales = brains(unit.data("weight_scale"))
    groups = len(scales) // out
    zeros = [0] * len(scales)
    if "weight_zero_point" in unit.parts:
        zeros = struct.unpack(f"{len(scales)}b", unit.data("weight_zero_point"))
    at = [row * groups + i * groups // inputs for row in range(out) for i in range(inputs)]
    return [(code - zeros[group]) * scales[group] for code, group in zip(codes, at)]


def smoothed_int4(unit):
    half, inputs = unit.shape("weight")
    scales, factors = f32(unit.data("weight_scale")), brains(unit.data("pre_quant_scale"))
    numbers = []
    for row in range(2 * half):
        for i in range(inputs):
            nibble = unit.data("weight")[row // 2 * inputs + i] >> 4 * (row % 2) & 15
            value = rounded((nibble - 16 if nibble > 7 else nibble) * scales[row])
            numbers.append(rounded(value * factors[i]))
    return numbers


def smoothed_int8(unit):
    out, inputs = unit.shape("weight")
    scales, factors = f32(unit.data("weight_scale")), brains(unit.data("pre_quant_scale"))
    codes = struct.unpack(f"{out * inputs}b", unit.data("weight"))
    return [rounded(rounded(codes[row * inputs + i] * scales[row]) * factors[i]) for row in range(out) for i in range(inputs)]


def e4m3(code):
    exponent, mantissa = code >> 3 & 15, code & 7
    return mantissa * 2.0 ** -9 if exponent == 0 else (8 + mantissa) * 2.0 ** (exponent - 10)


def fp4(unit):
    out, half = unit.shape("weight")
    scales, factors = unit.data("weight_scale"), brains(unit.data("pre_quant_scale"))
    scale_2 = f32(unit.data("weight_scale_2"))[0]
    numbers = []
    for row in range(out):
        for i in range(2 * half):
            code = unit.data("weight")[row * half + i // 2] >> 4 * (i % 2) & 15
            scale = rounded(e4m3(scales[(row * 2 * half + i) // 16]) * scale_2)
            value = rounded(E2M1[code & 7] * scale) * (-1 if code & 8 else 1)
            numbers.append(rounded(value * factors[i]))
    return numbers


DECODERS = {"gptq-2bit": gptq, "gptq-3bit": gptq, "gptq-4bit": gptq, "gptq-4bit-order": gptq, "gptq-8bit": gptq, "awq-gemm": awq,
            "ct-pack-int4": packed, "ct-pack-int4-asymmetric": packed, "ct-pack-int3-asymmetric": packed, "ct-int8": int8,
            "ct-int8-asymmetric": int8, "ct-naive-int8-group": int8, "modelopt-int4-awq": smoothed_int4,
            "modelopt-int8-sq": smoothed_int8, "modelopt-nvfp4-awq": fp4}
MODULES = ("model.layers.0.attn.qkv", "model.layers.0.attn.o")


class FormatsTest(ProgramTest):
    def export(self, name, **quantization):
        """The golden's export, whose config asks for F32."""
        folder = self.path(name)
        shutil.rmtree(folder, ignore_errors=True)
        os.mkdir(folder)
        for file in os.listdir(f"{LAYOUTS}/{name}/export"):
            shutil.copyfile(f"{LAYOUTS}/{name}/export/{file}", f"{folder}/{file}")
        with open(f"{folder}/config.json", encoding="utf-8") as f:
            config = json.load(f)
        config["dtype"] = "float32"
        config["quantization_config"].update(quantization)
        with open(f"{folder}/config.json", "w", encoding="utf-8") as f:
            json.dump(config, f)
        return folder

    def dequantized(self, name, **quantization):
        folder = self.export(name, **quantization)
        shutil.rmtree(self.path("plain"), ignore_errors=True)
        self.assert_done(run("dequantize", folder, "-o", self.path("plain")))
        return read_checkpoint(folder), read_checkpoint(self.path("plain"))

    def assert_decoded(self, stored, plain, decode):
        for module in MODULES:
            expected = decode(Unit(stored, module))
            dtype, shape, data = plain[f"{module}.weight"]
            self.assertEqual((dtype, shape[0] * shape[1]), ("F32", len(expected)))
            self.assertEqual(f32(data), expected)
        # Nothing of the quantization is left, and what was plain is as it was.
        self.assertEqual(sorted(plain), sorted({f"{module}.weight" for module in MODULES}
                                               | {name for name in stored if not name.startswith(MODULES)}))

    def test_every_format_is_decoded_as_its_exporter_means_it(self):
        for name, decode in DECODERS.items():
            with self.subTest(name=name):
                self.assert_decoded(*self.dequantized(name), decode)

    def test_gptqs_first_format_stores_zero_points_less_one(self):
        for stated in ({"checkpoint_format": "gptq"}, {"checkpoint_format": None}):
            stored, plain = self.dequantized("gptq-4bit", **stated)
            self.assert_decoded(stored, plain, lambda unit: gptq(unit, less_one=True))

    def test_a_group_that_there_are_no_scales_for_is_named(self):
        folder = self.export("gptq-4bit-order")
        with open(f"{folder}/model.safetensors", "rb") as f:
            content = bytearray(f.read())
        header = struct.unpack("<Q", content[:8])[0]
        at = json.loads(content[8:8 + header])["model.layers.0.attn.o.g_idx"]["data_offsets"][0] + 8 + header
        content[at + 4 * 7:at + 4 * 8] = struct.pack("<i", 2)
        with open(f"{folder}/model.safetensors", "wb") as f:
            f.write(content)
        self.assert_fails(run("dequantize", folder, "-o", self.path("out")), "model.layers.0.attn.o.weight",
                          "input 7 is of group 2, and there are 2")
        self.assert_nothing_left()

    def test_formats_that_are_not_read_are_named(self):
        for name, said in (("bnb-nf4", "BITSANDBYTES_4BIT"), ("quark-int4", "QUARK_INT4"), ("modelopt-w4a8-awq", "W4A8_AWQ"),
                           ("modelopt-nvfp4-svd", "NVFP4_SVD")):
            result = run("dequantize", f"{LAYOUTS}/{name}/export", "-o", self.path("out"))
            self.assert_fails(result, "model.layers.0.attn.qkv.weight", f"stored as {said}", "dequantized are")
            self.assert_nothing_left()


    def test_stacked_experts_of_fine_grained_fp8_have_their_tiles_one_expert_after_the_other(self):
        stored, plain = self.dequantized("fine-grained-fp8")
        stacked = [name for name, (dtype, shape, _) in stored.items() if dtype == "F8_E4M3" and len(shape) == 3]
        self.assertGreater(len(stacked), 0)
        for name in stacked:
            _, (experts, rows, width), codes = stored[name]
            _, (_, down, across), scales = stored[f"{name}_scale_inv"]
            scales, got = f32(scales), f32(plain[name][2])
            self.assertEqual(plain[name][1], [experts, rows, width])
            for at in range(0, experts * rows * width, 7):
                expert, row, column = at // (rows * width), at // width % rows, at % width
                scale = scales[(expert * down + row * down // rows) * across + column * across // width]
                code = codes[at]
                self.assertEqual(got[at], rounded(e4m3(code & 127) * (-1 if code & 128 else 1) * scale), (name, at))


class StackedTest(QuantizeTest):
    """Experts in one tensor, outputs before inputs, are read as each of them by itself would be."""

    RECIPES = ("w4a16_nvfp4", "fp8_per_channel_per_token", "mxfp8", "mxfp4", "int8_weight_only", "int4_blockwise_weight_only")

    def test_each_expert_has_its_own_scales(self):
        names = [f"model.layers.{i}.mlp.down_proj" for i in range(3)]
        self.hub([weight(f"{name}.weight", 64, 128) for name in names], llama_config(num_hidden_layers=len(names)))
        for recipe in self.RECIPES:
            with self.subTest(recipe=recipe):
                single = self.quantized(recipe=recipe, out=recipe)
                self.assert_done(run("dequantize", self.path(recipe), "-o", self.path(f"{recipe}-plain")))
                plain = read_checkpoint(self.path(f"{recipe}-plain"))
                tensors = []
                for leaf in sorted(name.removeprefix(f"{names[0]}.") for name in single if name.startswith(names[0])):
                    parts = [single[f"{name}.{leaf}"] for name in names]
                    end = "" if leaf == "weight" else f"_{leaf}"
                    tensors.append((f"model.experts.down_proj{end}", parts[0][0], [len(names), *parts[0][1]],
                                    b"".join(data for _, _, data in parts)))
                self.hub(tensors, llama_config(quantization_config={"quant_method": "modelopt"}), name=f"{recipe}-stacked")
                self.assert_done(run("dequantize", self.path(f"{recipe}-stacked"), "-o", self.path(f"{recipe}-unstacked")))
                got = read_checkpoint(self.path(f"{recipe}-unstacked"))
                self.assertEqual(got, {"model.experts.down_proj": ("BF16", [len(names), 64, 128], b"".join(
                    plain[f"{name}.weight"][2] for name in names))})


class RequantizeTest(QuantizeTest):
    def test_what_another_tool_quantized_is_quantized_anew(self):
        """From the integers, as from their numbers written out."""
        shutil.copytree(f"{LAYOUTS}/awq-gemm/export", self.path("hub"))
        self.assert_done(run("dequantize", self.path("hub"), "-o", self.path("plain")))
        result = run("quantize", self.path("hub"), "-o", self.path("direct"), "--recipe", "mxfp8")
        self.assert_done(result)
        self.assert_done(run("quantize", self.path("plain"), "-o", self.path("twice"), "--recipe", "mxfp8"))
        self.assertEqual(read_checkpoint(self.path("direct")), read_checkpoint(self.path("twice")))

    def test_stretches_of_rows_begin_anywhere_in_the_words_of_zero_points(self):
        """One matrix of 4-bit GPTQ in stretches of 252 rows, which are no multiple of a word's eight."""
        out, inputs, group = 1128, 4160, 1040
        scales = b"".join(struct.pack("<e", 1 + row % 7 / 8) for row in range(out)) * (inputs // group)
        column = bytes(range(256)) * (4 * out // 256 + 1)
        qweight = b"".join(column[word % 19:word % 19 + 4 * out] for word in range(inputs // 8))
        qzeros = b"".join(bytes((g * 31 + i * 7) % 256 for i in range(out // 2)) for g in range(inputs // group))
        name = "model.layers.0.mlp.down_proj"
        self.hub([(f"{name}.qweight", "I32", [inputs // 8, out], qweight),
                  (f"{name}.qzeros", "I32", [inputs // group, out // 8], qzeros),
                  (f"{name}.scales", "F16", [inputs // group, out], scales)],
                 llama_config(torch_dtype="float32", quantization_config={
                     "quant_method": "gptq", "bits": 4, "group_size": group, "desc_act": False, "checkpoint_format": "gptq_v2"}))
        self.assert_done(run("dequantize", self.path("hub"), "-o", self.path("plain")))
        got = f32(read_checkpoint(self.path("plain"))[f"{name}.weight"][2])
        for row in (0, 251, 252, 253, 503, 504, 700, 1007, 1008, 1127):
            for i in range(0, inputs, 37):
                code = qweight[i // 8 * out * 4 + row * 4 + i % 8 // 2] >> 4 * (i % 2) & 15
                zero = qzeros[i // group * out // 2 + row // 2] >> 4 * (row % 2) & 15
                self.assertEqual(got[row * inputs + i], (code - zero) * (1 + row % 7 / 8), (row, i))


if __name__ == "__main__":
    unittest.main()
