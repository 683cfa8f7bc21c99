"""--merge-scales max: linears that become one get the largest of their scales, and the report says what it cost."""
import json
import math
import os
import struct
import unittest

from exports import as_dict, fp8, nvfp4, radio_config
from program import ProgramTest, read_checkpoint, run, write_checkpoint

ATTENTION, HUB = "encoder.layer.0.attention.attention", "radio_model.model.blocks.0.attn.qkv"
PARTS = ("query", "key", "value")


def decoded(code):
    """The number an F8_E4M3 code stands for; None for the codes that stand for none."""
    exponent, mantissa = code >> 3 & 15, code & 7
    if code & 0x7F == 0x7F:
        return None
    value = mantissa * 2.0 ** -9 if exponent == 0 else (8 + mantissa) * 2.0 ** (exponent - 10)
    return -value if code & 0x80 else value


VALUES = [decoded(code) for code in range(0x7F)]


def encoded(value):
    """The nearest code; of two as near, the even one."""
    code = min(range(0x7F), key=lambda c: (abs(VALUES[c] - abs(value)), c % 2))
    return code | (0x80 if math.copysign(1, value) < 0 else 0)


def rescaled(codes, factor, blocks=False):
    """The codes re-expressed; those of block scales that are not zero stay so."""
    out = []
    for code in codes:
        value = decoded(code)
        new = code if value is None else encoded(value * factor)
        out.append(1 if blocks and value and value > 0 and new == 0 else new)
    return bytes(out)


def cost(codes, factors, got):
    """(changed, rms, largest) of the new codes `got`, errors in units of the common scale."""
    changed, squares, errors, largest = 0, 0.0, 0.0, 0.0
    for code, factor, new in zip(codes, factors, got):
        if decoded(code) is None:
            continue
        exact = decoded(code) * factor
        error = abs(decoded(new) - exact)
        squares, errors = squares + exact * exact, errors + error * error
        if error:
            changed, largest = changed + 1, max(largest, error / abs(exact))
    return changed, math.sqrt(errors / squares), largest


def f32(value):
    return struct.pack("<f", value)


class MergeScalesTest(ProgramTest):
    SCALES = {"query": 0.5, "key": 0.25, "value": 0.375}

    def with_scalars(self, tensors, leaf):
        """The same tensors with the scalars `leaf` of SCALES, and other activation scales a part."""
        out = []
        for name, dtype, shape, body in tensors:
            part = name.split(".")[-2]
            if name.endswith(f".{leaf}"):
                body = f32(self.SCALES[part])
            elif name.endswith(".input_scale"):
                body = f32(2 * self.SCALES[part])
            out.append((name, dtype, shape, body))
        return out

    def refuse(self, leaf):
        result = run("revert", self.path("in"), "-o", self.path("out"))
        self.assert_fails(result, f"its {leaf} differs from that of", "--merge-scales max")
        self.assert_nothing_left()

    def merge(self):
        result = run("revert", self.path("in"), "-o", self.path("out"), "--merge-scales", "max", "--json")
        self.assert_done(result)
        return read_checkpoint(self.path("out")), json.loads(result.stdout)["rescaled"]

    def check(self, tensors, leaf, coded, blocks):
        """`coded`: the leaf of the codes that are multiplied with the scalar."""
        stored = as_dict(tensors)
        codes = [stored[f"{ATTENTION}.{p}.{coded}"][2] for p in PARTS]
        factors = [self.SCALES[p] / 0.5 for p in PARTS]
        want = b"".join(rescaled(c, f, blocks) for c, f in zip(codes, factors))
        got, report = self.merge()
        self.assertEqual(got[f"{HUB}.{coded}"][2], want)
        self.assertEqual(got[f"{HUB}.{leaf}"], ("F32", [], f32(0.5)))
        self.assertEqual(got[f"{HUB}.input_scale"], ("F32", [], f32(1.0)))
        self.assertEqual([(r["name"], r["scalar"]) for r in report], [(f"{HUB}.{coded}", leaf)])
        changed, rms, largest = cost(b"".join(codes), [f for c, f in zip(codes, factors) for _ in c], want)
        self.assertGreater(changed, 0)
        self.assertEqual((report[0]["elements"], report[0]["changed"]), (len(want), changed))
        self.assertAlmostEqual(report[0]["rms_relative"], rms, 9)
        self.assertAlmostEqual(report[0]["largest_relative"], largest, 9)
        return got, stored

    def test_block_scales_of_nvfp4_are_put_under_the_largest_scalar(self):
        tensors = self.with_scalars([t for p in PARTS for t in nvfp4(f"{ATTENTION}.{p}", 16, 256)], "weight_scale_2")
        write_checkpoint(self.path("in"), radio_config(), tensors)
        self.refuse("weight_scale_2")
        got, stored = self.check(tensors, "weight_scale_2", "weight_scale", True)
        self.assertEqual(got[f"{HUB}.weight"][2], b"".join(stored[f"{ATTENTION}.{p}.weight"][2] for p in PARTS))

    def test_values_of_fp8_are_put_under_the_largest_scale(self):
        tensors = self.with_scalars([t for p in PARTS for t in fp8(f"{ATTENTION}.{p}", 16, 32)], "weight_scale")
        write_checkpoint(self.path("in"), radio_config(algorithm="FP8"), tensors)
        self.refuse("weight_scale")
        self.check(tensors, "weight_scale", "weight", False)

    def test_text_report_and_plan_speak_of_it(self):
        tensors = self.with_scalars([t for p in PARTS for t in fp8(f"{ATTENTION}.{p}", 16, 32)], "weight_scale")
        write_checkpoint(self.path("in"), radio_config(algorithm="FP8"), tensors)
        plan = run("revert", self.path("in"), "--plan", "--merge-scales", "max")
        self.assert_done(plan)
        lines = {line.split()[1]: line for line in plan.stdout.splitlines()}
        self.assertTrue(lines[f"{HUB}.weight"].endswith("(rescaled)"), plan.stdout)
        result = run("revert", self.path("in"), "-o", self.path("out"), "--merge-scales", "max")
        self.assert_done(result)
        self.assertIn(f"note: {HUB}.weight is under a common weight_scale: ", result.stderr)

    def test_equal_scales_change_nothing(self):
        tensors = [t for p in PARTS for t in nvfp4(f"{ATTENTION}.{p}", 16, 32, "qkv")]
        tensors = [(*t[:3], f32(0.25)) if t[0].endswith(("weight_scale_2", "input_scale")) else t for t in tensors]
        write_checkpoint(self.path("in"), radio_config(), tensors)
        got, report = self.merge()
        self.assert_done(run("revert", self.path("in"), "-o", self.path("plain")))
        self.assertEqual(got, read_checkpoint(self.path("plain")))
        self.assertEqual([r["changed"] for r in report], [0])

    def test_a_scale_of_zero_is_refused_by_its_name(self):
        tensors = self.with_scalars([t for p in PARTS for t in fp8(f"{ATTENTION}.{p}", 16, 32)], "weight_scale")
        tensors = [(*t[:3], f32(0)) if t[0].endswith("key.weight_scale") else t for t in tensors]
        write_checkpoint(self.path("in"), radio_config(algorithm="FP8"), tensors)
        result = run("revert", self.path("in"), "-o", self.path("out"), "--merge-scales", "max")
        self.assert_fails(result, f"{ATTENTION}.key.weight_scale: weight_scale is no positive number")
        self.assertEqual([f for f in os.listdir(self.folder) if f != "in"], [])


if __name__ == "__main__":
    unittest.main()
