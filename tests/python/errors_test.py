"""Errors as exceptions: which class, what it holds, and how it reads."""
import json
import os
import pickle
import re
import shutil
import unittest

import quantport
from package import EXPORT, HUB, RECIPE, ROOT, PackageTest
from quantport import errors


def raised(kind, call, *arguments, **options):
    """The exception of exactly this class that the call raises."""
    try:
        call(*arguments, **options)
    except Exception as error:
        if type(error) is not kind:
            raise
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


class ErrorsTest(PackageTest):
    def test_every_kind_of_the_library_has_its_class(self):
        with open(f"{ROOT}/src/base/error.cc", encoding="utf-8") as f:
            kinds = set(re.findall(r'return "(\w+Error)";', f.read()))
        kinds.discard("Error")
        classes = {kind.__name__ for kind in quantport.QuantportError.__subclasses__()}
        self.assertLessEqual(kinds, classes)
        for name in kinds:
            self.assertIs(getattr(quantport, name), getattr(errors, name))
            self.assertIn(name, quantport.__all__)

    def test_a_missing_folder_is_an_os_error_with_the_path(self):
        error = raised(quantport.IoError, quantport.inspect, self.path("missing"))
        self.assertIsInstance(error, OSError)
        self.assertEqual([(p.kind, p.file) for p in error.errors], [("IoError", self.path("missing"))])
        self.assertTrue(error.errors[0].hint)
        printed = self.program("inspect", self.path("missing")).stderr
        self.assertEqual(printed, f"error: IoError: {error}\n")
        as_json = self.program_json("inspect", self.path("missing"))
        self.assertEqual([vars(problem) for problem in error.errors], as_json["errors"])

    def test_a_file_that_is_no_checkpoint(self):
        os.makedirs(self.path("broken"))
        shutil.copy(f"{EXPORT}/config.json", self.path("broken"))
        with open(self.path("broken", "model.safetensors"), "wb") as f:
            f.write(b"\xff" * 100)
        error = raised(quantport.InvalidHeaderError, quantport.inspect, self.path("broken"))
        self.assertIn("model.safetensors", error.errors[0].file)

    def test_an_output_without_a_name(self):
        with self.assertRaisesRegex(quantport.IoError, "no output folder is named"):
            quantport.revert(EXPORT, "")

    def test_an_output_that_exists_is_a_file_exists_error(self):
        os.makedirs(self.path("out", "something"))
        error = raised(quantport.OutputExistsError, quantport.revert, EXPORT, self.path("out"))
        self.assertIsInstance(error, FileExistsError)

    def test_all_problems_are_in_the_exception_and_its_text(self):
        shutil.copytree(EXPORT, self.path("export"))
        for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
            with open(self.path("export", name), "r+b") as f:
                f.truncate(20)
        error = raised(quantport.InvalidHeaderError, quantport.inspect, self.path("export"))
        self.assertGreaterEqual(len(error.errors), 2)
        self.assertEqual(str(error).split("\n"), [str(problem) for problem in error.errors])

    def test_an_unknown_class_version_and_recipe(self):
        raised(quantport.UnknownArchitectureError, quantport.rules, EXPORT, architecture="NoSuchClass")
        raised(quantport.UnknownVersionError, quantport.rules, EXPORT, transformers_version="1.0.0")
        raised(quantport.InvalidRecipeError, quantport.plan_quantize, HUB, "no-such-recipe")

    def test_values_that_no_option_has_are_value_errors_that_name_those_it_has(self):
        out = self.path("out")
        for call, options, message in (
                (quantport.revert, {"on_unsupported": "ignore"}, "on_unsupported is one of 'fail', 'keep-names', not 'ignore'"),
                (quantport.revert, {"experts": ""}, "experts is one of"),
                (quantport.revert, {"merge_scales": "mean"}, "merge_scales is one of 'refuse', 'max'"),
                (quantport.apply, {"reflink": True}, "reflink can't be True"),
                (quantport.apply, {"threads": 257}, "threads is a number from 1 to 256"),
                (quantport.apply, {"threads": -1}, "threads is a number from 1 to 256"),
                (quantport.apply, {"max_shard_bytes": 0}, "max_shard_bytes is a number of bytes"),
                (quantport.apply, {"max_shard_bytes": -1}, "max_shard_bytes can't be -1"),
                (quantport.dequantize, {"repair_index": "yes"}, "repair_index can't be 'yes'"),
        ):
            with self.subTest(str(options)), self.assertRaisesRegex((ValueError, TypeError), re.escape(message)):
                call(EXPORT, out, **options)
        with self.assertRaisesRegex(ValueError, "arithmetic is one of 'cpu', 'cuda'"):
            quantport.quantize(HUB, out, RECIPE, arithmetic="gpu")
        self.assertFalse(os.path.exists(out))

    def test_options_that_contradict_each_other_are_value_errors(self):
        with self.assertRaisesRegex(ValueError, "output, or in_place"):
            quantport.revert(EXPORT)
        with self.assertRaisesRegex(ValueError, "in_place keeps the folder"):
            quantport.revert(EXPORT, self.path("out"), in_place=True)
        with self.assertRaisesRegex(ValueError, "detach_links goes with in_place"):
            quantport.revert(EXPORT, self.path("out"), detach_links=True)
        with self.assertRaisesRegex(ValueError, "carry_missing needs a reference"):
            quantport.revert(EXPORT, self.path("out"), carry_missing=True)
        with self.assertRaisesRegex(ValueError, "give one of them"):
            quantport.rules(EXPORT, mapping_file="m.json", transformers_version="5.17.0")

    def test_paths_of_a_wrong_type_or_with_a_zero(self):
        with self.assertRaisesRegex(TypeError, "input can't be 5, of type int"):
            quantport.revert(5, self.path("out"))
        with self.assertRaises((TypeError, ValueError)):
            quantport.inspect("a\0b")

    def test_a_name_that_is_no_utf_8_and_control_characters_are_escaped(self):
        folder = os.fsdecode(os.fsencode(self.folder) + b"/\xff\x1b")
        error = raised(quantport.IoError, quantport.inspect, folder)
        self.assertNotIn("\x1b", str(error))
        self.assertIn("\\xff", str(error))

    def test_exceptions_can_be_pickled(self):
        error = raised(quantport.IoError, quantport.inspect, self.path("missing"))
        again = pickle.loads(pickle.dumps(error))
        self.assertEqual((type(again), again.errors, str(again)), (type(error), error.errors, str(error)))


class MixedKindsTest(unittest.TestCase):
    def kind_of(self, *kinds):
        return type(errors.exception_of([errors.Problem(kind, "message") for kind in kinds]))

    def test_unsupported_conversions_give_way_to_everything_else(self):
        self.assertIs(self.kind_of("QuantConversionUnsupportedError", "IoError"), quantport.IoError)
        self.assertIs(self.kind_of("NameCollisionError", "MissingCompanionError", "InvalidConfigError", "IoError"),
                      quantport.InvalidConfigError)

    def test_among_equals_the_first_decides(self):
        self.assertIs(self.kind_of("InvalidHeaderError", "IoError"), quantport.InvalidHeaderError)
        self.assertIs(self.kind_of("MissingCompanionError", "QuantConversionUnsupportedError"), quantport.MissingCompanionError)

    def test_a_kind_without_a_class_is_the_base(self):
        self.assertIs(self.kind_of("SomethingNewError"), quantport.QuantportError)

    def test_the_text_without_details_is_the_message(self):
        self.assertEqual(str(errors.QuantConversionUnsupportedError("just this")), "just this")
        self.assertEqual(errors.QuantConversionUnsupportedError("just this").errors[0].kind, "QuantConversionUnsupportedError")
        self.assertEqual(json.dumps(vars(errors.Problem("K", "m", "f", "t", "h"))),
                         '{"kind": "K", "message": "m", "file": "f", "tensor": "t", "hint": "h"}')


if __name__ == "__main__":
    unittest.main()
