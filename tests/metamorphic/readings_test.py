"""Forms that producers write beside those of the goldens: each must be read, and as the numbers that it was.

A form is another spelling of a quantized weight that means the same: a tensor of another shape or dtype, one that is not there, or
one more. FORMS lists them for each golden of tests/golden/layouts; what must be refused instead is metamorphic_test.py's affair.
"""
import json
import multiprocessing
import os
import struct
import subprocess
import sys
import tempfile
import unittest
from collections import namedtuple

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, f"{os.path.dirname(HERE)}/cli"]

import goldens  # noqa: E402
import outcomes  # noqa: E402
from dtypes import Tensor, count, decode, encode  # noqa: E402
from program import PROGRAM, read_checkpoint, safetensors, write  # noqa: E402

# `base` and `spelled` take the parts of a module, leaf -> tensor, and give those that change; None takes a tensor away.
Form = namedtuple("Form", "label base spelled config", defaults=({},))

# ---- spellings -------------------------------------------------------------------------------------------------------

SHAPES = {"[]": lambda shape: [], "[1]": lambda shape: [1], "[1, 1]": lambda shape: [1, 1], "[out]": lambda shape: shape[:1],
          "[out, 1]": lambda shape: [shape[0], 1], "[r, c]": lambda shape: shape[::2], "[r, 1, c, 1]": lambda shape: [shape[0], 1, shape[1], 1]}


def unchanged(parts):
    return {}


def shaped(leaf, *names):
    """The same elements in other dimensions, in those modules where they are as many."""
    def spelled(parts, name):
        shape = SHAPES[name](parts[leaf].shape)
        return {leaf: parts[leaf]._replace(shape=shape)} if count(shape) == count(parts[leaf].shape) else {}
    return [Form(f"{leaf} {name}", unchanged, lambda parts, name=name: spelled(parts, name)) for name in names]


def scalar(*leaves):
    return [form for leaf in leaves for form in shaped(leaf, "[]", "[1]", "[1, 1]")]


def rounded(dtype, numbers):
    if dtype == "BF16":
        return [struct.unpack("<f", bytes(2) + struct.pack("<f", number)[2:])[0] for number in numbers]
    return [struct.unpack("<e", struct.pack("<e", number))[0] for number in numbers] if dtype == "F16" else numbers


def typed(leaf, *dtypes):
    """The same numbers in other dtypes; those that a dtype does not hold are rounded before, in the golden as well."""
    def recoded(parts, dtype, other):
        own = parts[leaf]
        return {leaf: own._replace(dtype=other, data=encode(other, rounded(dtype, decode(own))))}
    return [Form(f"{leaf} as {dtype}", lambda parts, dtype=dtype: recoded(parts, dtype, parts[leaf].dtype),
                 lambda parts, dtype=dtype: recoded(parts, dtype, dtype)) for dtype in dtypes]


def floats(*leaves):
    return [form for leaf in leaves for form in typed(leaf, "F32", "BF16", "F16")]


def same_bytes(leaf, dtype):
    return [Form(f"{leaf} as {dtype}", unchanged, lambda parts: {leaf: parts[leaf]._replace(dtype=dtype)})]


def absent(*leaves):
    return [Form(f"without {leaf}", unchanged, lambda parts, leaf=leaf: {leaf: None}) for leaf in leaves]


def called(**names):
    return [Form(f"called {', '.join(names.values())}", unchanged,
                 lambda parts: {leaf: None for leaf in names} | {name: parts[leaf] for leaf, name in names.items()})]


def added(leaf, dtype, shape_of, number=0, word=None):
    """One more tensor, full of a number or of words."""
    def spelled(parts):
        shape = shape_of(parts)
        data = word * count(shape) if word else encode(dtype, [number] * count(shape))
        return {leaf: Tensor(dtype, shape, data)}
    return [Form(f"with {leaf} {dtype}", unchanged, spelled)]


def first_zeros(parts):
    """Of GPTQ's first checkpoint format, which stores zero points less one; the goldens are of the second."""
    zeros = parts["qzeros"]
    assert all(byte >> shift & 15 for byte in zeros.data for shift in (0, 4))
    return {"qzeros": zeros._replace(data=bytes(byte - 0x11 for byte in zeros.data))}


# ---- what is written -------------------------------------------------------------------------------------------------

PQS = added("pre_quant_scale", "BF16", lambda parts: parts["weight"].shape[1:], 1)
MX = same_bytes("weight_scale", "F8_E8M0")
MODELOPT_NVFP4 = scalar("weight_scale_2") + absent("input_scale") + scalar("input_scale") + floats("input_scale")
GPTQ = floats("scales") + added("bias", "F16", lambda parts: parts["qweight"].shape[1:])
NO_ZEROS = added("weight_zero_point", "I8", lambda parts: parts["weight_scale"].shape)
BIAS = added("bias", "BF16", lambda parts: parts["weight"].shape[:1])

FORMS = {
    "awq-gemm": floats("scales"),
    "bnb-fp4": [],
    "bnb-int8": [],
    "bnb-nf4": [],
    # compressed-tensors' scales are of the model's dtype, or F32. It kept the zero points of symmetric schemes once.
    "ct-float-block": floats("weight_scale") + shaped("weight_scale", "[r, 1, c, 1]"),
    "ct-float-channel": floats("weight_scale") + shaped("weight_scale", "[out]"),
    "ct-float-tensor": scalar("weight_scale", "input_scale") + floats("weight_scale", "input_scale") + absent("input_scale"),
    "ct-int8": BIAS + floats("weight_scale") + NO_ZEROS + shaped("weight_scale", "[out]"),
    "ct-int8-asymmetric": floats("weight_scale") + shaped("weight_zero_point", "[out]"),
    "ct-mxfp4": [],
    "ct-mxfp8": [],
    "ct-naive-int8-group": floats("weight_scale") + NO_ZEROS,
    "ct-nvfp4": scalar("weight_global_scale", "input_global_scale") + absent("input_global_scale"),
    "ct-pack-int3-asymmetric": floats("weight_scale") + shaped("weight_scale", "[out]") + typed("weight_shape", "I32"),
    # A group index of -1 says that there is no order.
    "ct-pack-int4": floats("weight_scale") + typed("weight_shape", "I32")
    + added("weight_g_idx", "I32", lambda parts: [int(decode(parts["weight_shape"])[1])], word=b"\xff" * 4),
    "ct-pack-int4-asymmetric": floats("weight_scale") + typed("weight_shape", "I32"),
    # One zero point beside one scale is not packed.
    "ct-pack-int4-tensor-asymmetric": scalar("weight_scale", "weight_zero_point") + floats("weight_scale"),
    # DeepSeek's powers of two as F8_E8M0 or F32; static activations have a scale.
    "fine-grained-fp8": floats("weight_scale_inv") + added("activation_scale", "F32", lambda parts: [], 0.5),
    "fine-grained-fp8-ue8m0": typed("weight_scale_inv", "F32", "BF16"),
    "gpt-oss-mxfp4": same_bytes("scales", "F8_E8M0"),
    "gptq-2bit": GPTQ,
    "gptq-3bit": GPTQ,
    "gptq-4bit": GPTQ + absent("g_idx") + [Form("gptq_v1", unchanged, first_zeros, {"checkpoint_format": "gptq"})],
    "gptq-4bit-order": GPTQ,
    "gptq-8bit": GPTQ,
    "modelopt-fp8": scalar("weight_scale", "input_scale") + floats("weight_scale", "input_scale") + absent("input_scale"),
    # A weight of a single tile loses the dimensions of its scale on the way out; mtq.compress has two of them.
    "modelopt-fp8-pb-wo": floats("weight_scale") + shaped("weight_scale", "[]", "[r, c]"),
    "modelopt-fp8-pc-pt": floats("weight_scale") + shaped("weight_scale", "[out, 1]"),
    "modelopt-int4-awq": floats("weight_scale", "pre_quant_scale"),
    "modelopt-int4-blockwise": floats("weight_scale") + PQS,
    "modelopt-int8-sq": scalar("input_scale") + floats("weight_scale", "pre_quant_scale") + shaped("weight_scale", "[out, 1]"),
    "modelopt-mxfp4": MX,
    "modelopt-mxfp8": MX + called(weight_scale="weight_scale_inv"),  # as SGLang calls it
    "modelopt-nvfp4": MODELOPT_NVFP4 + BIAS + called(input_scale="input_scale_2"),  # as Quark calls it
    "modelopt-nvfp4-awq": MODELOPT_NVFP4 + floats("pre_quant_scale"),
    "modelopt-nvfp4-svd": MODELOPT_NVFP4 + floats("svdquant_lora_a", "svdquant_lora_b")
    + called(svdquant_lora_a="weight_quantizer._svdquant_lora_a", svdquant_lora_b="weight_quantizer._svdquant_lora_b"),
    "modelopt-w4a16-nvfp4": scalar("weight_scale_2"),
    "modelopt-w4a8-awq": scalar("weight_scale_2", "input_scale") + floats("weight_scale"),
    "modelopt-w4a8-mxfp4-fp8": MX + added("input_scale", "F32", lambda parts: [], 0.5),
    "modelopt-w4a8-nvfp4-fp8": MODELOPT_NVFP4,
    "modelopt-w8a16": floats("weight_scale") + shaped("weight_scale", "[out, 1]"),
    "quark-int4": floats("weight_scale") + absent("weight_zero_point"),
}

# What is read nowhere, and not where a mapping of experts makes single ones of it.
UNREAD = {"in": outcomes.UNREADABLE, "hub": (*outcomes.UNREADABLE, "gpt-oss-mxfp4")}

# ---- reading ---------------------------------------------------------------------------------------------------------


class Checkpoint:
    """A golden's export with its modules changed, in a folder of its own."""

    def __init__(self, golden, change, config, folder):
        self.golden, self.folder = golden, folder
        self.tensors = dict(golden.export)
        for module in golden.modules():
            for leaf, tensor in change(goldens.parts_of(golden.export, module)).items():
                name = goldens.part_name(module, leaf)
                self.tensors[name] = tensor
        self.tensors = {name: tensor for name, tensor in self.tensors.items() if tensor is not None}
        settings = golden.config | {"quantization_config": golden.config["quantization_config"] | config}
        biases = {name: tensor for name, tensor in self.tensors.items() if name.endswith(".bias")}
        for kind, tensors in (("in", self.tensors), ("reference", golden.reference() | biases)):
            write(f"{folder}/{kind}/model.safetensors", safetensors([(name, *tensor) for name, tensor in tensors.items()]))
        write(f"{folder}/in/config.json", settings)
        for name, content in golden.extra.items():
            write(f"{folder}/in/{name}", content)

    def run(self, command, source, *args):
        result = subprocess.run([os.path.abspath(PROGRAM), command, source, *args], capture_output=True, text=True,
                                timeout=60, cwd=self.folder)
        if result.returncode != 0 or "warning: " in result.stderr:
            raise AssertionError(f"{command}: {result.stderr}{result.stdout}")
        return result.stdout

    def numbers(self, source):
        """What dequantize makes of a folder's weights."""
        self.run("dequantize", source, "-o", f"{source}-plain")
        return {name: tensor for name, tensor in read_checkpoint(f"{self.folder}/{source}-plain").items()
                if name.endswith(("weight", "_proj"))}

    def outcome(self):
        """The numbers as the export has them and as its hub checkpoint does, where they can be read at all."""
        # The goldens' class is no one's; the commands below are given its mapping.
        warnings = [w for w in json.loads(self.run("inspect", "in", "--json"))["warnings"]
                    if w["id"] != "unknown-architecture"]
        if warnings:
            raise AssertionError(f"inspect: {warnings}")
        self.run("verify", "in", "--reference", "reference", "--mapping", goldens.MAPPING)
        self.run("revert", "in", "-o", "hub", "--mapping", goldens.MAPPING)
        return [self.numbers(source) for source in ("in", "hub") if self.golden.name not in UNREAD[source]]


def outcome_of(golden, change, config):
    with tempfile.TemporaryDirectory(prefix="quantport-test-", dir=outcomes.MEMORY) as folder:
        return Checkpoint(golden, change, config, folder).outcome()


def failures(name):
    """Of one golden, the forms that are refused or other numbers."""
    golden, found = goldens.Golden(name), []
    own = outcome_of(golden, unchanged, {})
    for form in FORMS[name]:
        try:
            base = own if form.base is unchanged else outcome_of(golden, form.base, {})
            if outcome_of(golden, form.spelled, form.config) != base:
                found.append(f"{name}, {form.label}: other numbers")
        except AssertionError as error:
            found.append(f"{name}, {form.label}: {error}")
    return found


class ReadingsTest(unittest.TestCase):
    def test_every_golden_has_its_list(self):
        self.assertEqual(sorted(FORMS), goldens.NAMES)

    def test_every_form_is_read_as_what_it_was(self):
        with multiprocessing.Pool(os.cpu_count()) as pool:
            found = [line for lines in pool.imap_unordered(failures, goldens.NAMES) for line in lines]
        self.assertEqual(found, [], "\n".join(found))


if __name__ == "__main__":
    unittest.main()
