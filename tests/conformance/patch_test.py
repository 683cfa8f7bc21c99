"""`patch` on real exports: the hub's names and configs, `quantize`'s bytes, and everything put back."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
import warnings
from unittest import mock

import accelerate
import modelopt.torch.export.quant_aware_conversion as conversion
import modelopt.torch.export.unified_export_hf as unified
import modelopt.torch.export.unified_export_hf_streaming as streaming
import torch
import transformers
import transformers.core_model_loading as loading
import transformers.modeling_utils as modeling
from modelopt.torch.export import export_hf_checkpoint
from safetensors.torch import load_file, save_file

import quantport
from live_models import BATCHES, MIXTURES, LiveTest
from modules import all_matched
from program import read_checkpoint, run

RECIPES = ("fp8_default-kv_fp8", "nvfp4_default-kv_fp8")
TILES = "fp8_2d_blockwise_weight_only"
# In F32 in memory, and so in ModelOpt's export; quantize leaves the file's bytes alone.
WIDENED = "e_score_correction_bias"
PLACES = ((conversion, "revert_weight_conversion_quant_aware"), (conversion, "build_reverse_name_mapper"),
          (conversion, "revert_quant_config_names"), (unified, "revert_weight_conversion_quant_aware"),
          (unified, "build_reverse_name_mapper"), (unified, "revert_quant_config_names"),
          (unified, "_write_hf_export_config"), (streaming, "build_reverse_name_mapper"),
          (streaming, "_assert_no_split_rules"), (streaming, "_export_transformers_checkpoint_streaming"), (loading, "revert_weight_conversion"),
          (modeling, "revert_weight_conversion"))


def functions():
    return [getattr(module, name) for module, name in PLACES]


def read_json(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def skipped(caught):
    return [str(w.message) for w in caught if "skipped" in str(w.message) or "names" in str(w.message)]


def spread(model, on_disk, name=""):
    """A device map with one module on disk and all others on the CPU."""
    if name == on_disk:
        return {name: "disk"}
    if name and not on_disk.startswith(f"{name}."):
        return {name: "cpu"}
    inside = [f"{name}.{child}" if name else child for child, _ in model.get_submodule(name).named_children()]
    return {key: place for child in inside for key, place in spread(model, on_disk, child).items()}


class ExportTest(LiveTest):
    def patched_export(self, name, recipe):
        """The folder, and the warnings that names were kept."""
        out = self.path(f"{name}-{recipe}-patched")
        model = self.quantized_model(name, recipe)
        with warnings.catch_warnings(record=True) as caught, quantport.patch():
            warnings.simplefilter("always")
            export_hf_checkpoint(model, export_dir=out)
        return out, skipped(caught)

    def offload(self, model, on_disk):
        accelerate.dispatch_model(model, spread(model, on_disk), main_device="cpu", offload_dir=tempfile.mkdtemp(dir=self.folder))

    def calibrated_and_quantized(self, name, recipe):
        amax, out = self.path(f"{name}-amax.safetensors"), self.path(f"{name}-{recipe}-ours")
        if not os.path.exists(amax):
            quantport.calibrate(self.model(name), BATCHES, amax)
        self.program("quantize", self.hub(name), "-o", out, "--recipe", recipe, "--calibration", amax)
        return out

    def assert_the_same_tensors(self, got, expected):
        self.assertEqual(sorted(got), sorted(expected))
        differ = [name for name in got if got[name] != expected[name] and not name.endswith(WIDENED)]
        self.assertEqual(differ, [])

    def test_exports_have_the_hubs_names_and_the_bytes_of_calibrate_and_quantize(self):
        for name in MIXTURES:
            for recipe in RECIPES:
                with self.subTest(model=name, recipe=recipe):
                    out, kept = self.patched_export(name, recipe)
                    self.assertEqual(kept, [])
                    self.program("verify", out, "--reference", self.hub(name))
                    ours = self.calibrated_and_quantized(name, recipe)
                    got = read_checkpoint(out)
                    self.assertTrue(any(key.endswith("input_scale") for key in got))
                    self.assertTrue(any(key.endswith("k_scale") for key in got))
                    self.assert_the_same_tensors(got, read_checkpoint(ours))
                    self.assert_the_same_configs(out, ours)

    def assert_the_same_configs(self, out, ours):
        """All but the lists of modules left alone, which must exclude the same tensors."""
        matrices = {key[:-7] for key, (dtype, shape, _) in read_checkpoint(out).items()
                    if key.endswith(".weight") and dtype == "BF16" and len(shape) > 1}
        for file in ("hf_quant_config.json", "config.json"):
            theirs, expected = read_json(f"{out}/{file}"), read_json(f"{ours}/{file}")
            lists = []
            for config in (theirs, expected):
                part = config["quantization" if file.startswith("hf") else "quantization_config"]
                lists.append(part.pop("exclude_modules" if file.startswith("hf") else "ignore"))
            self.assertEqual(theirs, expected, file)
            for entries in lists:
                self.assertEqual(all_matched(entries, matrices), matrices, file)

    def test_formats_that_modelopt_cannot_revert_get_the_hubs_names(self):
        for name in ("mixtral", "minimax_m3"):
            with self.subTest(model=name):
                plain = self.exported(name, TILES)
                self.assertEqual(run("verify", plain, "--reference", self.hub(name)).returncode, 1)
                out, kept = self.patched_export(name, TILES)
                self.assertEqual(kept, [])
                self.program("verify", out, "--reference", self.hub(name))
                reverted = self.path(f"{name}-reverted")
                self.program("revert", plain, "-o", reverted)
                self.assert_the_same_tensors(read_checkpoint(out), read_checkpoint(reverted))

    def test_a_recipe_of_several_formats_names_the_hubs_modules(self):
        out, kept = self.patched_export("minimax_m3", "mixed")
        self.assertEqual(kept, [])
        self.program("verify", out, "--reference", self.hub("minimax_m3"))
        layers = read_json(f"{out}/hf_quant_config.json")["quantization"]["quantized_layers"]
        tensors = read_checkpoint(out)
        for module in layers:
            self.assertTrue(any(key.startswith(f"{module}.") for key in tensors), module)

    def test_a_model_that_accelerate_offloads_is_exported_with_the_hubs_names(self):
        recipe = RECIPES[1]
        for name, inner in (("mixtral", "model"), ("minimax_m3", "model.language_model")):
            with self.subTest(model=name):
                expected, _ = self.patched_export(name, recipe)
                model = self.quantized_model(name, recipe)
                self.offload(model, f"{inner}.layers.1")
                out = self.path(f"{name}-offloaded")
                with warnings.catch_warnings(record=True) as caught, quantport.patch():
                    warnings.simplefilter("always")
                    export_hf_checkpoint(model, export_dir=out)
                self.assertEqual(skipped(caught), [])
                self.program("verify", out, "--reference", self.hub(name))
                self.assert_the_same_tensors(read_checkpoint(out), read_checkpoint(expected))
                self.assertEqual(read_json(f"{out}/hf_quant_config.json"), read_json(f"{expected}/hf_quant_config.json"))

    def published_hub(self):
        """MiniMax-M3 with the names that its authors published: the rules alone give the dense layers others."""
        tensors = load_file(f"{self.hub('minimax_m3')}/model.safetensors")
        published = self.path("published")
        shutil.copytree(self.hub("minimax_m3"), published)
        save_file({key.replace("layers.0.block_sparse_moe.", "layers.0.mlp."): t for key, t in tensors.items()},
                  f"{published}/model.safetensors", {"format": "pt"})
        self.assertTrue(any(key.startswith("language_model.model.layers.0.block_sparse_moe.") for key in tensors))
        return published

    def test_with_a_reference_its_names_decide(self):
        hub = self.published_hub()
        for offloaded in (False, True):
            with self.subTest(offloaded=offloaded):
                model = self.quantized_model("minimax_m3", RECIPES[1])
                if offloaded:
                    self.offload(model, "model.language_model.layers.1")
                out = self.path(f"referenced-{offloaded}")
                with quantport.patch(reference=hub):
                    export_hf_checkpoint(model, export_dir=out)
                self.program("verify", out, "--reference", hub)
        with quantport.patch():
            export_hf_checkpoint(self.quantized_model("minimax_m3", RECIPES[1]), export_dir=self.path("by-rule"))
        self.assertEqual(run("verify", self.path("by-rule"), "--reference", hub).returncode, 1)

    def test_what_cannot_be_reverted_keeps_its_names_in_tensors_and_configs(self):
        def refuse(*args, **options):
            raise quantport.QuantConversionUnsupportedError("no such layout")

        model = self.quantized_model("mixtral", RECIPES[0])
        out = self.path("kept")
        with mock.patch("quantport.modelopt.revert_weight_conversion_quant_aware", refuse), \
                warnings.catch_warnings(record=True) as caught, quantport.patch():
            warnings.simplefilter("always")
            export_hf_checkpoint(model, export_dir=out)
        self.assertTrue(skipped(caught))
        self.assertIn("no such layout", " ".join(skipped(caught)))
        self.assertIn("model.layers.0.mlp.experts.0.gate_proj.weight", read_checkpoint(out))
        excluded = read_json(f"{out}/hf_quant_config.json")["quantization"]["exclude_modules"]
        self.assertFalse([entry for entry in excluded if "block_sparse_moe" in entry])


class SaveTest(LiveTest):
    def in_memory_state(self, name="minimax_m3"):
        model = self.quantized_model(name, "nvfp4_default-kv_fp8")
        state, _ = unified._export_transformers_checkpoint(model)
        model.hf_quantizer = None
        return model, state

    def test_a_quantized_state_dict_is_saved_with_the_hubs_names(self):
        model, state = self.in_memory_state()
        if transformers.__version__ == "5.17.0":
            with self.assertRaisesRegex(RuntimeError, "dimension"):  # it can't cut a scalar
                model.save_pretrained(self.path("plain"), state_dict=dict(state))
        with quantport.patch():
            model.save_pretrained(self.path("saved"), state_dict=dict(state))
        self.assert_hub_names(self.path("saved"))

    def test_in_several_shards_as_well(self):
        model, state = self.in_memory_state()
        with quantport.patch():
            model.save_pretrained(self.path("saved"), state_dict=dict(state), max_shard_size="200KB")
        self.assertTrue(os.path.exists(self.path("saved/model.safetensors.index.json")))
        self.assert_hub_names(self.path("saved"))

    def assert_hub_names(self, folder):
        hub = set(load_file(f"{self.hub('minimax_m3')}/model.safetensors"))
        saved = {key for key in read_checkpoint(folder) if key.endswith((".weight", ".bias"))}
        self.assertEqual(saved, {key for key in hub if key.endswith((".weight", ".bias"))})

    def test_any_other_state_dict_is_saved_as_always(self):
        model = self.model("minimax_m3")
        model.save_pretrained(self.path("plain"))
        with quantport.patch():
            model.save_pretrained(self.path("saved"))
        self.assertEqual(read_checkpoint(self.path("saved")), read_checkpoint(self.path("plain")))

    def test_what_cannot_be_reverted_is_saved_under_its_own_names_with_a_warning(self):
        model, state = self.in_memory_state()

        def refuse(*args, **options):
            raise quantport.QuantConversionUnsupportedError("no such layout")

        with mock.patch("quantport.modelopt.revert_weight_conversion_quant_aware", refuse), \
                warnings.catch_warnings(record=True) as caught, quantport.patch():
            warnings.simplefilter("always")
            model.save_pretrained(self.path("saved"), state_dict=dict(state))
        self.assertIn("no such layout", " ".join(skipped(caught)))
        self.assertEqual(set(read_checkpoint(self.path("saved"))), set(state))


    def test_what_cannot_be_reverted_is_left_to_a_quantizer_of_transformers_own_or_refused_in_parts(self):
        def refuse(*args, **options):
            raise quantport.QuantConversionUnsupportedError("no such layout")

        model = mock.Mock(_weight_conversions=[], hf_quantizer=mock.Mock(), hf_device_map={"": "cpu"})
        state = {"a.weight_scale": torch.ones(1)}
        with mock.patch("quantport.modelopt.revert_weight_conversion_quant_aware", refuse), quantport.patch():
            with mock.patch.object(quantport.patching.warnings, "warn") as warned:
                self.assertEqual(list(modeling.revert_weight_conversion(model, state)), list(state))
            warned.assert_not_called()
            model.hf_quantizer = None
            with self.assertRaisesRegex(quantport.QuantConversionUnsupportedError, "no such layout"):
                modeling.revert_weight_conversion(model, state)

    def test_an_offloaded_export_that_failed_does_not_mark_the_model(self):
        with quantport.patch():
            with self.assertRaises(AttributeError):
                streaming._export_transformers_checkpoint_streaming(None)
        self.assertEqual(quantport.patching._streamed, set())


class ScopeTest(unittest.TestCase):
    def setUp(self):
        self.before = functions()

    def assert_replaced(self):
        self.assertTrue(all(now is not before for now, before in zip(functions(), self.before)))

    def assert_put_back(self):
        self.assertEqual(functions(), self.before)

    def test_everything_is_put_back_afterwards_and_after_exceptions(self):
        with quantport.patch():
            self.assert_replaced()
        self.assert_put_back()
        for error in (ValueError, KeyboardInterrupt):
            with self.assertRaises(error):
                with quantport.patch():
                    raise error
            self.assert_put_back()

    def test_it_may_be_nested_used_again_and_decorate(self):
        again = quantport.patch()
        with again:
            with quantport.patch(), again:
                self.assert_replaced()
            self.assert_replaced()
        self.assert_put_back()
        decorated = quantport.patch()(self.assert_replaced)
        for _ in range(2):
            decorated()
            self.assert_put_back()

    def test_a_replacement_of_others_is_left_and_ours_then_does_as_the_original(self):
        def theirs(model, state_dict):
            return inner(model, state_dict)

        with quantport.patch():
            inner = modeling.revert_weight_conversion
            modeling.revert_weight_conversion = theirs
        try:
            self.assertIs(modeling.revert_weight_conversion, theirs)
            with mock.patch("quantport.modelopt.revert_weight_conversion_quant_aware") as ours:
                model = mock.Mock(_weight_conversions=None)
                with mock.patch("transformers.conversion_mapping.get_model_conversion_mapping", return_value=[]):
                    state = {"a.weight_scale": torch.ones(())}
                    self.assertIs(theirs(model, state), state)
            ours.assert_not_called()
        finally:
            modeling.revert_weight_conversion = self.before[-1]

    def test_versions_that_it_does_not_know_are_refused_and_nothing_is_replaced(self):
        import importlib.metadata
        real = importlib.metadata.version
        for package, version in (("transformers", "6.0.0"), ("nvidia-modelopt", "0.48.0")):
            with self.subTest(package=package), mock.patch(
                    "importlib.metadata.version", lambda name: version if name == package else real(name)):
                with self.assertRaisesRegex(quantport.UnknownVersionError, f"{package} {version}.*knows"):
                    with quantport.patch():
                        self.fail("entered")
            self.assert_put_back()

    def test_a_function_that_is_not_where_it_should_be_is_refused(self):
        found = unified.revert_quant_config_names
        del unified.revert_quant_config_names
        try:
            with self.assertRaisesRegex(quantport.UnknownVersionError, "unified_export_hf.revert_quant_config_names"):
                quantport.patch().__enter__()
        finally:
            unified.revert_quant_config_names = found
        self.assert_put_back()

    def test_without_modelopt_transformers_alone_is_patched(self):
        code = ("import sys, importlib.metadata as m\n"
                "real = m.version\n"
                "def version(name):\n"
                "    if name == 'nvidia-modelopt': raise m.PackageNotFoundError(name)\n"
                "    return real(name)\n"
                "m.version = version\n"
                "import quantport, transformers.modeling_utils as t\n"
                "before = t.revert_weight_conversion\n"
                "with quantport.patch(): print(t.revert_weight_conversion is not before, 'modelopt' in sys.modules)\n"
                "print(t.revert_weight_conversion is before)\n")
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        self.assertEqual(done.stdout, "True False\nTrue\n", done.stderr)


if __name__ == "__main__":
    unittest.main()
