"""What apply does, revert with the hub checkpoint as reference undoes, over the classes of conformance_test.py."""
import json
import lzma
import unittest

from conformance_test import DATA
from program import ProgramTest, read_checkpoint, run, write_checkpoint


class RoundTripTest(ProgramTest):
    def test_hub_checkpoints_come_back(self):
        with lzma.open(DATA, "rt") as f:
            cases = json.load(f)["cases"]
        for label, case in cases.items():
            with self.subTest(label):
                self.setUp()
                hub, applied, back = self.path("hub"), self.path("applied"), self.path("back")
                write_checkpoint(hub, case["config"], [output[:3] for output in case["outputs"]])
                self.assert_done(run("apply", hub, "-o", applied))
                self.assertNotEqual(sorted(read_checkpoint(applied)), sorted(read_checkpoint(hub)))
                self.assert_done(run("revert", applied, "-o", back, "--reference", hub, "--strict"))
                got, want = read_checkpoint(back), read_checkpoint(hub)
                self.assertEqual(sorted(got), sorted(want))
                self.assertEqual([name for name in want if got[name] != want[name]], [])

    def test_a_head_that_the_hub_keeps_inside_the_backbone(self):
        """Only the backbone's own names have its prefix in memory."""
        config = {"architectures": ["Tipsv2DptForDepthEstimation"], "model_type": "tipsv2_dpt"}
        write_checkpoint(self.path("hub"), config, [("vision_encoder.norm.weight", "BF16", [4]),
                                                    ("vision_encoder.depth_head.convs.0.weight", "BF16", [4, 2, 1, 1])])
        self.assert_done(run("apply", self.path("hub"), "-o", self.path("applied")))
        self.assertIn("neck.convs.0.weight", read_checkpoint(self.path("applied")))
        self.assert_done(run("revert", self.path("applied"), "-o", self.path("back")))
        self.assertEqual(read_checkpoint(self.path("back")), read_checkpoint(self.path("hub")))


if __name__ == "__main__":
    unittest.main()
