"""The names and bytes that transformers' own reversal gives, recorded by tools/record_conformance.py."""
import json
import lzma
import os
import unittest
import zlib

from program import ProgramTest, read_checkpoint, run, write_checkpoint

DATA = f"{os.path.dirname(os.path.abspath(__file__))}/data/conformance_cases.json.xz"


class ConformanceTest(ProgramTest):
    @classmethod
    def setUpClass(cls):
        with lzma.open(DATA, "rt") as f:
            cls.cases = json.load(f)["cases"]

    def check_all(self, shards, reference, in_place=False):
        for label, case in self.cases.items():
            with self.subTest(label):
                self.setUp()
                write_checkpoint(self.path("in"), case["config"], case["inputs"], shards)
                args = ["revert", self.path("in"), *(["--in-place"] if in_place else ["-o", self.path("out")])]
                if not reference:
                    args.append("--by-rules")  # the recorded names are the rules'
                else:
                    write_checkpoint(self.path("hub"), case["config"], [output[:3] for output in case["outputs"]])
                    args += ["--reference", self.path("hub"), "--strict"]
                self.assert_done(run(*args))
                got = {n: [d, s, zlib.crc32(b)] for n, (d, s, b) in read_checkpoint(self.path("in" if in_place else "out")).items()}
                want = {name: rest for name, *rest in case["outputs"]}
                self.assertEqual(sorted(got), sorted(want))
                self.assertEqual({n: v for n, v in got.items() if v != want[n]}, {})

    def test_by_rules(self):
        self.check_all(1, False)

    def test_by_rules_over_several_shards(self):
        self.check_all(3, False)

    def test_by_reference(self):
        self.check_all(1, True)

    def test_in_place(self):
        self.check_all(1, False, in_place=True)

    def test_in_place_over_several_shards(self):
        self.check_all(3, False, in_place=True)

    def test_cases_change_names_and_numbers_of_tensors(self):
        """The data are not empty promises: every case renames, and several cut, stack and join."""
        unchanged = [label for label, case in self.cases.items()
                     if {i[0] for i in case["inputs"]} == {o[0] for o in case["outputs"]}]
        self.assertEqual(unchanged, [])
        counts = [len(case["outputs"]) - len(case["inputs"]) for case in self.cases.values()]
        self.assertGreater(sum(c > 0 for c in counts), 5)
        self.assertGreater(sum(c < 0 for c in counts), 2)


if __name__ == "__main__":
    unittest.main()
