"""The benchmark's own parts that need no other packages: its export, what it counts, and the page it writes."""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

BENCH = Path(__file__).resolve().parent.parent.parent / "bench"
sys.path.insert(0, str(BENCH))

import make_checkpoint  # noqa: E402
import modes  # noqa: E402
import report  # noqa: E402
import quantize_kernels  # noqa: E402
import run  # noqa: E402

QUANTPORT = os.environ.get("QUANTPORT", str(BENCH.parent / "build" / "release" / "quantport"))
SIZE = 40_000_000


class BenchTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def test_an_export_of_holes_has_the_files_of_a_written_one_without_its_blocks(self):
        written, holes = self.folder / "written", self.folder / "holes"
        make_checkpoint.make(written, SIZE, 1, SIZE // 2)
        make_checkpoint.make(holes, SIZE, 1, SIZE // 2, "holes")
        self.assertEqual(modes.headers(written), modes.headers(holes))
        self.assertEqual({path.name: path.stat().st_size for path in written.iterdir()},
                         {path.name: path.stat().st_size for path in holes.iterdir()})
        stored = sum(path.stat().st_blocks * 512 for path in holes.glob("*.safetensors"))
        self.assertLess(stored, SIZE // 10)

    def test_the_program_reverts_an_export_of_holes(self):
        export, output = self.folder / "export", self.folder / "output"
        make_checkpoint.make(export, SIZE, 1, data="holes")
        subprocess.run([QUANTPORT, "revert", export, "-o", output, "--quiet"], check=True, stdout=subprocess.DEVNULL)
        self.assertIn("language_model.lm_head.weight", modes.headers(output))
        self.assertEqual(modes.data_bytes(output), modes.data_bytes(export))

    def test_what_a_grandchild_writes_is_counted(self):
        result = self.folder / "cost.json"
        command = ["sh", "-c", f"head -c 3000000 /dev/zero > '{self.folder}/zeros'; exit 3"]
        measure = [sys.executable, "-I", "-S", str(BENCH / "measure.py"), str(result), str(self.folder)]
        subprocess.run(measure + command, check=True)
        cost = json.loads(result.read_text(encoding="ascii"))
        self.assertGreaterEqual(cost["wchar"], 3_000_000)
        self.assertLess(cost["wchar"], 3_100_000)
        self.assertEqual(cost["status"], 3)

    def test_runs_are_a_number_for_all_modes_and_others_for_some(self):
        counts = run.RunCounts("3,copy=5")
        by_key = {mode.key: counts.of(mode) for mode in modes.all_modes("quantport", "python", None, None)}
        self.assertEqual(by_key, {key: 5 if key == "copy" else 3 for key in run.KEYS})
        for text in ("", "0", "copy=5", "3,copies=5", "3,copy=0", "three"):
            with self.subTest(text), self.assertRaises(argparse.ArgumentTypeError):
                run.RunCounts(text)

    def test_threads_are_timed_on_a_model_of_its_own_that_is_gone_afterwards(self):
        command = [sys.executable, str(BENCH / "threads.py"), QUANTPORT, str(self.folder), "--size", "40MB", "--threads",
                   "1,2", "--runs", "1", "--states", "warm", "--recipes", "", "--json", str(self.folder / "costs.json")]
        result = subprocess.run(command, check=True, capture_output=True, text=True)
        self.assertEqual(result.stdout.count("| revert, copied |"), 2)
        costs = json.loads((self.folder / "costs.json").read_text(encoding="utf-8"))
        self.assertEqual([cost["threads"] for cost in costs], [1, 2])
        self.assertEqual(os.listdir(self.folder), ["costs.json"])

    def test_the_table_of_kernels_leaves_empty_what_was_not_measured(self):
        text = quantize_kernels.table({"nvfp4/AVX3/cache": 9.5, "nvfp4/AVX3/memory": 9.0}, {"nvfp4/1/memory": 0.03})
        row = next(line for line in text.splitlines() if line.startswith("| NVFP4 |"))
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        self.assertEqual(cells[1:4], ["9.5", "9.0", ""])
        self.assertEqual(cells[-1], "300")

    def test_each_script_replaces_its_own_part_of_the_page(self):
        page = self.folder / "page.md"
        begin, end = report.markers(report.SCALING)
        page.write_text(f"before\n{begin}\nold\n{end}\nafter\n", encoding="utf-8")
        report.replace_generated(page, report.SCALING, "new")
        self.assertEqual(page.read_text(encoding="utf-8"), f"before\n{begin}\nnew\n{end}\nafter\n")
        with self.assertRaises(SystemExit):
            report.replace_generated(page, report.COMPARISON, "new")


if __name__ == "__main__":
    unittest.main()
