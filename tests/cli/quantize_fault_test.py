"""Quantizing that is killed, interrupted or meets a full disk: a complete result or nothing that looks like one."""
import os
import signal
import subprocess
import unittest

import faults
from faults import CAUSES, REASONS, at_each, calls_of, kill_points, run_faulty
from program import PROGRAM, read_checkpoint
from quantize_case import WEIGHT_ONLY, QuantizeTest, checksum, decoder


class QuantizeFaultTest(QuantizeTest):
    def setUp(self):
        super().setUp()
        self.hub(decoder(2), shards=2)

    def arguments(self, out):
        return ("quantize", self.path("hub"), "-o", self.path(out), "--recipe", WEIGHT_ONLY, "--threads", "2")

    @faults.needs_shim
    def test_killed_at_any_call_it_leaves_no_output_or_a_complete_one(self):
        calls = calls_of(*self.arguments("counted"))
        want = checksum(read_checkpoint(self.path("counted")))
        points = kill_points(calls)

        def check(point):
            out = f"out-{point.replace(':', '-')}"
            result = run_faulty(point, *self.arguments(out))
            if result.returncode != 0:
                self.assertEqual(result.returncode, -signal.SIGKILL, result.stderr)
            if os.path.exists(self.path(out)):
                self.assertEqual(checksum(read_checkpoint(self.path(out))), want, point)
                self.assertTrue(os.path.exists(f"{self.path(out)}/hf_quant_config.json"))

        # Two threads make their calls in no fixed order, so that neighbours are alike.
        at_each(points[::12] + points[-4:], check)

    @faults.needs_shim
    def test_a_disk_that_fills_or_fails_is_an_error_and_nothing_stays(self):
        calls = [call.name for call in calls_of(*self.arguments("counted")) if call.number > 0 and call.name in CAUSES]
        want = checksum(read_checkpoint(self.path("counted")))
        points = [(name, number) for name in sorted(set(calls))
                  for number in sorted({1, calls.count(name) // 3 + 1, calls.count(name) // 2 + 1, calls.count(name)})]

        def check(point):
            name, number = point
            out = f"out-{name}-{number}"
            result = run_faulty(f"error:{name}:{number}:{CAUSES[name]}", *self.arguments(out))
            self.assertEqual(result.returncode, 1, result.stderr)
            self.assertIn(REASONS[CAUSES[name]], result.stderr)
            self.assertFalse([f for f in os.listdir(self.folder) if f.startswith(f".{out}.")])
            if os.path.exists(self.path(out)):  # the rename was done, and the disk did not say so
                self.assertEqual(checksum(read_checkpoint(self.path(out))), want)

        at_each(points, check)

    def test_an_interrupt_leaves_nothing(self):
        self.hub(decoder(8, 1024, 4096), name="large")
        process = subprocess.Popen([PROGRAM, "quantize", self.path("large"), "-o", self.path("out"), "--recipe", WEIGHT_ONLY,
                                    "--threads", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   env={**os.environ})
        while process.poll() is None and not any(f.startswith(".out.") for f in os.listdir(self.folder)):
            pass
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=120)
        self.assertIn(process.returncode, (130, -signal.SIGINT), stderr)
        self.assertIn("nothing was left at the output", stderr)
        self.assert_nothing_left()


if __name__ == "__main__":
    unittest.main()
