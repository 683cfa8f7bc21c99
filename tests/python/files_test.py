"""Each operation on files, on the sample: it does what the command line does, and says what that says."""
import dataclasses
import filecmp
import os
import pathlib
import pickle
import shutil
import typing
import unittest

import quantport
from package import EXPORT, HUB, RECIPE, PackageTest, write_large_checkpoint
from quantport.reports import Report


class FilesTest(PackageTest):
    def assert_like_the_program(self, report, *arguments):
        """The program's JSON and last line of text are the report's."""
        self.assertEqual(report.to_dict(), self.program_json(*arguments))
        self.assert_attributes_are_json(report, report.to_dict())

    def assert_attributes_are_json(self, value, values):
        """Every key of the JSON is an attribute with the value, all the way down."""
        names = {field.metadata.get("json", field.name): field.name for field in dataclasses.fields(value)}
        self.assertLessEqual(values.keys(), names.keys())
        for key, stored in values.items():
            attribute = getattr(value, names[key])
            if isinstance(stored, list) and stored and dataclasses.is_dataclass(attribute[0]):
                self.assertEqual(len(attribute), len(stored))
                for item, item_values in zip(attribute, stored):
                    self.assert_attributes_are_json(item, item_values)
            elif dataclasses.is_dataclass(attribute):
                self.assert_attributes_are_json(attribute, stored)
            else:
                self.assertEqual(attribute, stored, key)

    def assert_same_files(self, a, b):
        self.assertEqual(sorted(os.listdir(a)), sorted(os.listdir(b)))
        _, different, unreadable = filecmp.cmpfiles(a, b, os.listdir(a), shallow=False)
        self.assertEqual((different, unreadable), ([], []))

    def test_inspect(self):
        report = quantport.inspect(EXPORT)
        self.assert_like_the_program(report, "inspect", EXPORT)
        self.assertEqual((report.tensors, report.quantization), (174, "NVFP4"))
        printed = self.program("inspect", EXPORT).stdout
        self.assertEqual(report.text(width=100), printed)
        self.assertTrue(printed.endswith(f"\n\n{report!r}\n"), "repr is the totals")
        self.assertEqual(report.text(modules=True), self.program("inspect", EXPORT, "--modules").stdout)
        self.assertEqual(report.text(depth=1, width=100), self.program("inspect", EXPORT, "--depth", "1").stdout)

    def test_revert_writes_and_reports_what_the_program_does(self):
        report = quantport.revert(EXPORT, self.path("ours"), reference=HUB)
        self.assert_like_the_program(report, "revert", EXPORT, "-o", self.path("theirs"), "--reference", HUB)
        self.assert_same_files(self.path("ours"), self.path("theirs"))
        printed = self.program("revert", EXPORT, "-o", self.path("printed"), "--reference", HUB).stdout
        self.assertEqual(f"{report!r}\n", printed)

    def test_revert_takes_the_options_of_the_command_line(self):
        options = {"experts": "stacked", "merge_scales": "max", "on_unsupported": "keep-names", "max_shard_bytes": 200000,
                   "reflink": "never", "repair_index": True, "threads": 2, "transformers_version": "5.17.0",
                   "carry_missing": True, "strict": True}
        report = quantport.revert(pathlib.Path(EXPORT), pathlib.Path(self.path("ours")), reference=pathlib.Path(HUB), **options)
        self.assert_like_the_program(
            report, "revert", EXPORT, "-o", self.path("theirs"), "--reference", HUB, "--experts", "stacked", "--merge-scales", "max",
            "--on-unsupported", "keep-names", "--max-shard-size", "200000", "--reflink", "never", "--repair-index", "--threads", "2",
            "--transformers", "5.17.0", "--carry-missing", "--strict")
        self.assertGreater(report.files, 2)
        self.assert_same_files(self.path("ours"), self.path("theirs"))

    def test_revert_in_place(self):
        for name in ("ours", "theirs"):
            shutil.copytree(EXPORT, self.path(name))
        report = quantport.revert(self.path("ours"), in_place=True, detach_links=True)
        self.assert_like_the_program(report, "revert", self.path("theirs"), "--in-place", "--force")
        self.assertTrue(report.changed_files)
        self.assert_same_files(self.path("ours"), self.path("theirs"))

    def test_plan_revert(self):
        plan = quantport.plan_revert(EXPORT, reference=HUB)
        self.assert_like_the_program(plan, "revert", EXPORT, "--reference", HUB, "--plan")
        self.assertEqual(plan.revert.to_dict(), plan.to_dict()["revert"])
        self.assertEqual(f"{plan}\n", self.program("revert", EXPORT, "--reference", HUB, "--plan").stdout)
        self.assertIn("would become 177", repr(plan))

    def test_apply(self):
        report = quantport.apply(HUB, self.path("ours"))
        self.assert_like_the_program(report, "apply", HUB, "-o", self.path("theirs"))
        self.assert_same_files(self.path("ours"), self.path("theirs"))
        self.assertEqual(report.outcome, "applied")

    def test_quantize_and_dequantize(self):
        report = quantport.quantize(HUB, self.path("ours"), RECIPE)
        self.assert_like_the_program(report, "quantize", HUB, "-o", self.path("theirs"), "--recipe", RECIPE)
        self.assert_same_files(self.path("ours"), self.path("theirs"))
        self.assertGreater(report.totals[0].sqnr_db, 15)
        self.assertEqual(f"{report}\n", self.program("quantize", HUB, "-o", self.path("printed"), "--recipe", RECIPE).stdout)
        back = quantport.dequantize(self.path("ours"), self.path("back"))
        self.assertEqual(back.to_dict(), self.program_json("dequantize", self.path("theirs"), "-o", self.path("back2")))
        self.assert_same_files(self.path("back"), self.path("back2"))
        self.assertTrue(repr(back).startswith("dequantized: "))

    def test_quantize_takes_the_options_of_the_command_line(self):
        options = {"kv_cache": "none", "arithmetic": "cuda", "allow_nonfinite": True, "bit_exact_zeros": True, "quantize_mtp": True,
                   "recipe_folders": [self.folder], "max_shard_bytes": 100000, "threads": 1}
        report = quantport.quantize(HUB, self.path("ours"), RECIPE, **options)
        self.assert_like_the_program(
            report, "quantize", HUB, "-o", self.path("theirs"), "--recipe", RECIPE, "--kv-cache", "none", "--arithmetic", "cuda",
            "--allow-nonfinite", "--bit-exact-zeros", "--quantize-mtp", "--recipe-path", self.folder, "--max-shard-size", "100000", "--threads", "1")
        self.assert_same_files(self.path("ours"), self.path("theirs"))
        self.assertIsNone(report.kv_cache)

    def test_plan_quantize(self):
        plan = quantport.plan_quantize(HUB, RECIPE)
        self.assertEqual(plan.to_dict(), self.program_json("quantize", HUB, "--recipe", RECIPE, "--plan"))
        self.assertTrue(self.program("quantize", HUB, "--recipe", RECIPE, "--plan").stdout.startswith(f"{plan}\n"))
        self.assertIn("would become", repr(plan))

    def test_list_recipes(self):
        recipes = quantport.list_recipes()
        self.assert_like_the_program(recipes, "quantize", "--list-recipes")
        self.assertEqual(f"{recipes}\n", self.program("quantize", "--list-recipes").stdout)
        self.assertIn(RECIPE, [recipe.name for recipe in recipes.recipes])

    def test_verify(self):
        quantport.revert(EXPORT, self.path("out"), reference=HUB)
        report = quantport.verify(self.path("out"), HUB)
        self.assert_like_the_program(report, "verify", self.path("out"), "--reference", HUB)
        self.assertTrue(report.verified)
        self.assertEqual(f"{report!r}\n", self.program("verify", self.path("out"), "--reference", HUB).stdout)

    def test_what_does_not_verify_is_in_the_report(self):
        report = quantport.verify(EXPORT, f"{HUB}/model.safetensors.index.json")
        self.assert_like_the_program(report, "verify", EXPORT, "--reference", f"{HUB}/model.safetensors.index.json")
        self.assertFalse(report.verified)
        self.assertEqual(report.problems[0].kind, "ReferenceMismatchError")
        self.assertIn(f"not verified: {len(report.problems)} problems", repr(report))

    def test_diff(self):
        report = quantport.diff(EXPORT, HUB, map=True)
        self.assert_like_the_program(report, "diff", EXPORT, HUB, "--map")
        self.assertFalse(report.same)
        self.assertEqual(f"{report}\n", self.program("diff", EXPORT, HUB, "--map").stdout)
        self.assertEqual(report.text(all=True), self.program("diff", EXPORT, HUB, "--map", "--all").stdout)
        self.assertTrue(repr(report).startswith("different: "))
        self.assertFalse(quantport.diff(EXPORT, EXPORT, data=False).data)

    def test_diff_of_one_element_that_differs(self):
        for name in ("a", "b"):
            write_large_checkpoint(self.path(name), 1 << 20)
        with open(self.path("b", "model.safetensors"), "r+b") as f:
            f.seek(-1, os.SEEK_END)
            f.write(b"x")
        report = quantport.diff(self.path("a"), self.path("b"))
        self.assert_like_the_program(report, "diff", self.path("a"), self.path("b"))
        self.assertEqual((report.tensors[0].kind, report.tensors[0].differing_bytes, report.tensors[0].first),
                         ("content", 1, [511, 1023]))

    def test_rules(self):
        name = "model.language_model.layers.1.mlp.experts.0.gate_proj.weight"
        report = quantport.rules(EXPORT, names=[name], reference=HUB)
        self.assert_like_the_program(report, "rules", EXPORT, "--name", name, "--reference", HUB)
        self.assertEqual(f"{report}\n", self.program("rules", EXPORT, "--name", name, "--reference", HUB).stdout)
        self.assertEqual(report.submodels[1].class_name, "MiniMaxM3VLModel")
        self.assertIn("5.24.0", quantport.transformers_versions())

    def test_repair(self):
        report = quantport.repair(EXPORT, self.path("mended"))
        self.assert_like_the_program(report, "repair", EXPORT, "-o", self.path("again"))
        self.assertEqual((report.rescaled, report.mended), ([], []))
        self.assertIn("nothing to mend", str(report))
        placed = quantport.repair(self.path("mended"), in_place=True)
        self.assertEqual({change.method for change in placed.changed_files}, {"untouched"})
        for arguments in ({}, {"output": self.path("x"), "in_place": True}, {"output": self.path("x"), "detach_links": True}):
            with self.assertRaises(ValueError):
                quantport.repair(EXPORT, **arguments)

    def test_recover_of_a_folder_that_nothing_interrupted(self):
        report = quantport.recover(EXPORT)
        self.assert_like_the_program(report, "recover", EXPORT)
        self.assertEqual(f"{report!r}\n", self.program("recover", EXPORT).stdout)

    def test_to_dict_is_a_copy(self):
        report = quantport.inspect(EXPORT)
        report.to_dict()["modules"].clear()
        self.assertEqual(len(report.to_dict()["modules"]), len(report.modules))

    def test_reports_can_be_pickled_and_keep_their_texts(self):
        reports = [quantport.inspect(EXPORT), quantport.verify(HUB, HUB), quantport.diff(HUB, HUB), quantport.rules(EXPORT),
                   quantport.plan_revert(EXPORT), quantport.plan_quantize(HUB, RECIPE), quantport.list_recipes(),
                   quantport.quantize(HUB, self.path("out"), RECIPE), quantport.recover(self.path("out"))]
        for report in reports:
            copy = pickle.loads(pickle.dumps(report))
            self.assertIs(type(copy), type(report))
            self.assertEqual((repr(copy), str(copy), copy.to_dict()), (repr(report), str(report), report.to_dict()))

    def test_a_string_is_no_list(self):
        with self.assertRaisesRegex(TypeError, "names can't be 'lm_head.weight': it is a list, put it in brackets"):
            quantport.rules(EXPORT, names="lm_head.weight")
        with self.assertRaisesRegex(TypeError, "recipe_folders"):
            quantport.plan_quantize(HUB, RECIPE, recipe_folders=self.folder)

    def test_every_function_is_documented_and_typed(self):
        for name in quantport.__all__:
            value = getattr(quantport, name)
            if not callable(value) or isinstance(value, type):
                continue
            with self.subTest(name):
                self.assertTrue(value.__doc__)
                self.assertIn("return", value.__annotations__)

    def test_every_report_is_documented_and_typed(self):
        reports = Report.__subclasses__()
        self.assertGreater(len(reports), 8)
        for report in reports:
            with self.subTest(report.__name__):
                self.assertTrue(report.__doc__)
                self.assertTrue(typing.get_type_hints(report))


if __name__ == "__main__":
    unittest.main()
