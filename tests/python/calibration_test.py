"""The calibration file and the report on it, without torch."""
import errno
import json
import os
import struct
import tempfile
import unittest
from unittest import mock

import quantport
from quantport.calibration_file import write_calibration

AMAX = {"model.layers.1.mlp.experts.down_proj.input_amax": 0.1, "model.layers.0.self_attn.k_amax": 448.0}


def read(path):
    with open(path, "rb") as file:
        content = file.read()
    length, = struct.unpack("<Q", content[:8])
    header = json.loads(content[8:8 + length])
    data = content[8 + length:]
    header.pop("__metadata__")
    return {name: (entry["dtype"], entry["shape"], data[slice(*entry["data_offsets"])]) for name, entry in header.items()}


class CalibrationFileTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="quantport-test-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.path = f"{self.folder}/amax.safetensors"

    def test_it_holds_an_f32_scalar_for_each_entry(self):
        write_calibration(self.path, AMAX)
        self.assertEqual(read(self.path), {name: ("F32", [], struct.pack("<f", value)) for name, value in AMAX.items()})
        with open(self.path, "rb") as file:
            self.assertEqual(struct.unpack("<Q", file.read(8))[0] % 8, 0)

    def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(self):
        write_calibration(self.path, AMAX)
        for function in ("fsync", "replace"):
            with self.subTest(function), mock.patch(f"os.{function}", side_effect=OSError(errno.ENOSPC, "no space")):
                with self.assertRaisesRegex(OSError, "no space"):
                    write_calibration(self.path, {"other.input_amax": 1.0})
            self.assertEqual(set(read(self.path)), set(AMAX))
            self.assertEqual(os.listdir(self.folder), ["amax.safetensors"])

    def test_an_existing_file_is_replaced(self):
        write_calibration(self.path, {"other.input_amax": 1.0})
        write_calibration(self.path, AMAX)
        self.assertEqual(set(read(self.path)), set(AMAX))


class ReportTest(unittest.TestCase):
    def setUp(self):
        experts = [quantport.ExpertsReport("m.experts", "MixtralExperts", 4, [7, 0, 3, 0]),
                   quantport.ExpertsReport("n.experts", "OtherExperts", 2, None)]
        self.report = quantport.CalibrationReport("amax.safetensors", 1, 0.5, 12, 2, experts, ["vision.fc1", "vision.fc2"])

    def test_it_lists_experts_without_tokens_and_modules_that_nothing_reached(self):
        self.assertEqual(repr(self.report).splitlines(), [
            "calibration amax.safetensors: 1 batch, inputs of 12 linears, K and V of 2 attentions, 0.5 s",
            "  6 experts in 2 containers, 2 of them saw no token",
            "  m.experts (MixtralExperts, 4 experts): no token reached 1, 3",
            "  n.experts (OtherExperts): which expert saw tokens is unknown",
            "  nothing reached 2 modules: vision.fc1, vision.fc2"])

    def test_as_a_dict_it_can_be_stored(self):
        stored = json.loads(json.dumps(self.report.to_dict()))
        self.assertEqual(stored["containers"][0], {"name": "m.experts", "class": "MixtralExperts", "experts": 4,
                                                   "tokens": [7, 0, 3, 0], "unseen": [1, 3]})
        self.assertEqual((stored["unseen_experts"], stored["batches"], stored["linears"]), (2, 1, 12))

    def test_long_lists_are_cut(self):
        self.report.unseen_modules = [f"m.{i}" for i in range(20)]
        self.assertTrue(repr(self.report).endswith("m.7 and 12 more"))


if __name__ == "__main__":
    unittest.main()
