"""What quantize writes, held to what ModelOpt's own mtq.quantize and export wrote (tests/golden/quantize)."""
import glob
import json
import os
import struct
import unittest
import zlib

from hub_models import GOLDENS, MODELS, load, write_hub
from modules import all_matched
from program import ProgramTest, read_checkpoint, run, safetensors, write

CALIBRATION = "calibration.safetensors"


def recipes(model):
    names = sorted(os.path.basename(path)[:-5] for path in glob.glob(f"{GOLDENS}/{model}/*.json"))
    return [name for name in names if name != "checkpoint" and "error" not in load(model, f"{name}.json")]


# ModelOpt keeps names as they are in memory, because it takes the four dimensions of tiles' scales for experts; and it
# gives an expert's down_proj a scalar where its gate and up have [1, 1, 1, 1] (docs/quantization.md).
TILED_EXPERTS = {(model, "fp8_2d_blockwise_weight_only") for model in ("mixtral", "qwen3_moe", "minimax_m3")}
# ModelOpt gives each expert one scale for all of its outputs, or tiles in an order that its own reader does not undo.
BATCHED_REFUSED = {(model, recipe) for model in ("llama4", "gpt_oss")
                   for recipe in ("fp8_per_channel_per_token", "fp8_2d_blockwise_weight_only")}
# Written in the one form that engines load it in: gpt_oss_test.py.
OWN_FORM = {("gpt_oss", recipe) for recipe in ("mxfp4", "mxfp4_mlp_weight_only")}
# Kept in F32 in memory, and so exported: here what is left alone keeps its bytes.
WIDENED = "e_score_correction_bias"


def excluded(config):
    return config["quantization"].get("exclude_modules")


class GoldenTest(ProgramTest):
    def setUp(self):
        super().setUp()
        self.hubs = {}

    def quantize(self, model, recipe, *args, calibration=None):
        if model not in self.hubs:
            self.hubs[model] = write_hub(model, self.path(model))
        out = self.path(f"{model}-{recipe}")
        result = run("quantize", self.path(model), "-o", out, "--recipe", recipe, "--recipe-path", GOLDENS,
                     "--calibration", calibration or f"{GOLDENS}/{model}/{CALIBRATION}", *args)
        self.assert_done(result)
        return out

    def cases(self):
        for model in MODELS:
            for recipe in recipes(model):
                if (model, recipe) not in TILED_EXPERTS | BATCHED_REFUSED | OWN_FORM:
                    yield model, recipe

    def test_no_golden_is_lost(self):
        """The tests below go through the files that are there."""
        files = {model: {os.path.basename(path) for path in glob.glob(f"{GOLDENS}/{model}/*")} for model in MODELS}
        self.assertEqual({model: len(names) for model, names in files.items()}, dict.fromkeys(
            ("deepseek_v3", "gpt_oss", "llama", "llama4", "minimax_m3", "mixtral", "qwen3_moe"), 31))
        self.assertEqual({model: names ^ files["llama"] for model, names in files.items()}, dict.fromkeys(files, set()))
        self.assertEqual({model: len(golden["exports"]) for model, golden in load("cuda-exports.json").items()},
                         {"llama": 12, "qwen3_moe": 10})

    def test_names_types_shapes_and_bytes_are_modelopts(self):
        for model, recipe in self.cases():
            with self.subTest(model=model, recipe=recipe):
                golden = {name: rest for name, *rest in load(model, f"{recipe}.json")["tensors"]}
                got = read_checkpoint(self.quantize(model, recipe))
                self.assertEqual(sorted(got), sorted(golden))
                for name, (dtype, shape, data) in got.items():
                    if name.endswith(WIDENED):
                        self.assertEqual(data, self.hubs[model][name])
                    else:
                        self.assertEqual([dtype, shape, zlib.crc32(data)], golden[name], name)

    def test_with_the_arithmetic_of_cuda_bytes_are_those_that_modelopt_wrote_on_a_gpu(self):
        for model, golden in load("cuda-exports.json").items():
            calibration = self.path(f"{model}.safetensors")
            write(calibration, safetensors([(name, "F32", [], struct.pack("<f", amax))
                                            for name, amax in golden["calibration"].items()]))
            for recipe, tensors in golden["exports"].items():
                with self.subTest(model=model, recipe=recipe):
                    got = read_checkpoint(self.quantize(model, recipe, "--arithmetic", "cuda", calibration=calibration))
                    self.assertEqual({name: zlib.crc32(data) for name, (_, _, data) in got.items()}, tensors)

    def test_tiles_of_experts_have_modelopts_bytes_under_the_hubs_names(self):
        for model, recipe in sorted(TILED_EXPERTS):
            if model == "minimax_m3":
                continue  # its dense gate_up_proj is kept in one as well
            with self.subTest(model=model):
                golden = sorted(rest[0:1] + rest[2:] for name, *rest in load(model, f"{recipe}.json")["tensors"]
                                if not name.endswith(WIDENED))
                got = sorted([dtype, zlib.crc32(data)] for name, (dtype, _, data)
                             in read_checkpoint(self.quantize(model, recipe)).items() if not name.endswith(WIDENED))
                self.assertEqual(got, golden)

    def test_formats_that_are_not_written_for_batched_experts_are_refused_by_name(self):
        for model, recipe in sorted(BATCHED_REFUSED):
            write_hub(model, self.path(model))
            result = run("quantize", self.path(model), "-o", self.path("out"), "--recipe", recipe)
            self.assert_fails(result, "layers.1", "experts.down_proj", "inputs before outputs can't be written")
            self.assert_nothing_left("out")

    def test_both_config_files_are_modelopts(self):
        for model, recipe in self.cases():
            if model == "minimax_m3":
                continue  # below
            with self.subTest(model=model, recipe=recipe):
                golden = load(model, f"{recipe}.json")
                out = self.quantize(model, recipe)
                for name in ("hf_quant_config.json", "config.json"):
                    with open(f"{out}/{name}", encoding="utf-8") as f:
                        self.assertEqual(f.read(), golden[name], name)

    def test_configs_of_minimax_m3_name_the_hubs_modules_where_modelopts_name_those_in_memory(self):
        hub_only = {"model.vision_tower*", "model.multi_modal_projector*"}
        for recipe in recipes("minimax_m3"):
            if ("minimax_m3", recipe) in TILED_EXPERTS:
                continue
            with self.subTest(recipe=recipe):
                golden = json.loads(load("minimax_m3", f"{recipe}.json")["hf_quant_config.json"])
                out = self.quantize("minimax_m3", recipe)
                with open(f"{out}/hf_quant_config.json", encoding="utf-8") as f:
                    got = json.load(f)
                for field in ("quant_algo", "kv_cache_quant_algo", "group_size"):
                    self.assertEqual(got["quantization"].get(field), golden["quantization"].get(field), field)
                if excluded(golden) is None:
                    continue
                self.assertEqual([entry for entry in excluded(got) if not self.is_vision(entry)],
                                 [entry for entry in excluded(golden) if entry not in hub_only])
                self.assert_excludes_what_is_plain(out, excluded(got))

    @staticmethod
    def is_vision(entry):
        return entry.startswith(("vision_tower", "multi_modal_projector", "patch_merge_mlp"))

    def assert_excludes_what_is_plain(self, out, entries):
        tensors = read_checkpoint(out)
        matrices = {name[:-7] for name, (dtype, shape, _) in tensors.items()
                    if name.endswith(".weight") and dtype == "BF16" and len(shape) > 1}
        quantized = {name[:-7] for name in tensors if name.endswith(".weight")} - matrices
        self.assertEqual(all_matched(entries, matrices), matrices)
        self.assertFalse(all_matched(entries, {name for name in quantized if f"{name}.weight_scale" in tensors}))


if __name__ == "__main__":
    unittest.main()
