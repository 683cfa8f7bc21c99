"""What can't be reverted is refused, with the tensor and the reason, and nothing is written; or it is kept whole
on request.
"""
import json
import os
import unittest

from exports import (as_dict, bf16, fp8, hf_quant_config, minimax_config, mixtral_config, nvfp4, radio_config, tensor)
from program import ProgramTest, read_checkpoint, run, write_checkpoint

EXPERTS = "model.layers.0.mlp.experts"
FUSED = "model.language_model.layers.0.mlp.gate_up_proj"
HUB_MLP = "language_model.model.layers.0.mlp"
ATTENTION = "encoder.layer.0.attention.attention"
KEPT = "warning: the names could not be reverted: tensors and configs keep their in-memory names"


class GuardsTest(ProgramTest):
    def refuse(self, config, tensors, *errors, exclude=()):
        """Fails with exactly these lines on standard error, and keeps all names where asked to."""
        config["quantization_config"]["ignore"] = list(exclude)
        algorithm = config["quantization_config"]["quant_algo"]
        extra = {"hf_quant_config.json": hf_quant_config(exclude, algorithm), "tokenizer.json": {}}
        write_checkpoint(self.path("in"), config, tensors, extra=extra)

        result = run("revert", self.path("in"), "-o", self.path("out"))
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertEqual(result.stderr.splitlines(), [f"error: {error}" for error in errors])
        self.assertEqual(result.stdout, "")
        self.assert_nothing_left()

        planned = run("revert", self.path("in"), "--plan")
        self.assertEqual(planned.returncode, 1)
        self.assertEqual(planned.stderr, result.stderr)

        kept = run("revert", self.path("in"), "-o", self.path("kept"), "--on-unsupported", "keep-names")
        self.assert_fails(kept, KEPT, *errors, status=3)
        self.assertEqual(read_checkpoint(self.path("kept")), as_dict(tensors))
        for name in ("config.json", *extra):
            with open(self.path(f"in/{name}"), "rb") as a, open(self.path(f"kept/{name}"), "rb") as b:
                self.assertEqual(a.read(), b.read(), name)
        self.assertEqual(sorted(os.listdir(self.path("kept"))), sorted(os.listdir(self.path("in"))))

    def test_two_tensors_renamed_to_one_name(self):
        names = ("model.layers.0.mlp.gate.weight", "model.layers.0.block_sparse_moe.gate.weight")
        self.refuse(mixtral_config(), [bf16(name, 4, 8) for name in names] + [bf16(f"{EXPERTS}.down_proj", 2, 4, 8)],
                    f"NameCollisionError: {names[1]}: both {names[0]} and {names[1]} would get this name",
                    exclude=["model.layers.0.mlp.gate"])

    def test_a_part_of_a_split_whose_name_is_taken(self):
        taken = "model.language_model.layers.0.mlp.up_proj.weight"
        self.refuse(minimax_config(), [bf16(f"{FUSED}.weight", 8, 16), bf16(taken, 4, 16)],
                    f"NameCollisionError: {HUB_MLP}.up_proj.weight: both {FUSED}.weight and {taken} would get this "
                    "name",
                    exclude=["model.language_model.layers.0.mlp*"])

    def test_seven_rows_of_a_quantized_weight_are_not_two_parts(self):
        self.refuse(minimax_config(), nvfp4(FUSED, 7, 32),
                    f"QuantConversionUnsupportedError: model.safetensors: {FUSED}.weight: Chunk: a dimension of 7 can't be split into 2 "
                    "equal parts")

    def test_seven_rows_of_a_float_linear_are_not_two_parts(self):
        self.refuse(minimax_config(), [bf16(f"{FUSED}.weight", 7, 32)],
                    f"QuantConversionUnsupportedError: model.safetensors: {FUSED}.weight: Chunk: a dimension of 7 can't be split into 2 "
                    "equal parts", exclude=["model.language_model.layers.0.mlp.gate_up_proj"])

    def test_a_cut_inside_a_block(self):
        for shape, leaf in (([2, 1], "weight_scale_inv"), ([2, 1, 1, 1], "weight_scale")):
            with self.subTest(leaf):
                self.setUp()
                self.refuse(minimax_config(algorithm="FP8_PB_WO"),
                            fp8(FUSED, 192, 128, shape, leaf, input_scale=False),
                            f"QuantConversionUnsupportedError: model.safetensors: {FUSED}.weight: Chunk: the cut at 96 falls inside a "
                            f"block of 128 that shares one element of {leaf}")

    def test_stacked_and_expanded_experts_in_one_container(self):
        stacked, expanded = bf16(f"{EXPERTS}.down_proj", 2, 32, 64), nvfp4(f"{EXPERTS}.2.down_proj", 32, 64)
        error = (f"QuantConversionUnsupportedError: model.safetensors: %s: {EXPERTS}.down_proj is stacked and "
                 f"{EXPERTS}.2.down_proj.weight expanded: one container holds its experts both ways")
        for tensors, named in (([stacked, *expanded], f"{EXPERTS}.down_proj"),
                               ([*expanded, stacked], f"{EXPERTS}.2.down_proj.weight")):
            with self.subTest(named):
                self.setUp()
                self.refuse(mixtral_config(), tensors, error % named, exclude=["lm_head"])

    def test_every_missing_companion_is_listed(self):
        whole = nvfp4(f"{EXPERTS}.0.down_proj", 32, 64)
        no_scale = [t for t in nvfp4(f"{EXPERTS}.1.down_proj", 32, 64) if not t[0].endswith("weight_scale")]
        no_scale_2 = [t for t in nvfp4(f"{EXPERTS}.2.down_proj", 32, 64) if not t[0].endswith("weight_scale_2")]
        bare = [tensor(f"{EXPERTS}.3.down_proj.weight", "U8", [32, 32])]
        orphan = [t for t in nvfp4(f"{EXPERTS}.4.down_proj", 32, 64) if not t[0].endswith(".weight")]
        hint = "(the export is incomplete; a server would load it and compute nonsense)"
        said = ("weight_scale is missing beside weight_scale_2",
                "weight_scale_2 is missing: NVFP4 block scales are relative to it",
                "weight_scale is missing: the weight is quantized", "weight_scale is stored without its weight")
        self.refuse(mixtral_config(), whole + no_scale + no_scale_2 + bare + orphan,
                    *(f"MissingCompanionError: {EXPERTS}.{i + 1}.down_proj.weight: {text} {hint}"
                      for i, text in enumerate(said)))

    def test_fp8_weight_without_its_scale(self):
        tensors = [t for t in fp8(f"{EXPERTS}.0.down_proj", 32, 64) if not t[0].endswith("weight_scale")]
        self.refuse(mixtral_config(algorithm="FP8"), tensors,
                    f"MissingCompanionError: {EXPERTS}.0.down_proj.weight: weight_scale is missing: the weight is "
                    "quantized (the export is incomplete; a server would load it and compute nonsense)")

    def test_unequal_scalars_of_weights_that_become_one(self):
        tensors = [t for part in ("query", "key", "value") for t in nvfp4(f"{ATTENTION}.{part}", 8, 32)]
        tensors = [t if not t[0].endswith(("query.input_scale", "value.input_scale")) else (*t[:3], b"same")
                   for t in tensors]
        key, value = f"{ATTENTION}.key", f"{ATTENTION}.value"

        def differs(leaf, module):
            return (f"QuantConversionUnsupportedError: {module}.{leaf}: its {leaf} differs from that of "
                    f"{ATTENTION}.query.{leaf}, and both weights become one (unify the "
                    "scales when quantizing, or pass --merge-scales max to re-express both under the larger one)")
        self.refuse(radio_config(), tensors, differs("weight_scale_2", key), differs("weight_scale_2", value),
                    differs("input_scale", key))

    def test_parts_of_one_fusion_in_different_formats(self):
        tensors = [*nvfp4(f"{ATTENTION}.query", 8, 32, "qkv"), *nvfp4(f"{ATTENTION}.key", 8, 32, "qkv"),
                   bf16(f"{ATTENTION}.value.weight", 8, 32)]
        self.refuse(radio_config(), tensors,
                    f"QuantConversionUnsupportedError: model.safetensors: {ATTENTION}.query.weight: Concatenate: Concatenate of weights "
                    "in different formats, NVFP4 and plain", exclude=[f"{ATTENTION}.value"])

    def test_a_missing_part_of_a_fusion(self):
        tensors = [t for part in ("query", "key") for t in nvfp4(f"{ATTENTION}.{part}", 8, 32, "qkv")]
        self.refuse(radio_config(), tensors,
                    f"QuantConversionUnsupportedError: model.safetensors: {ATTENTION}.query.weight: a part of the fused tensor is "
                    "missing")

    def test_all_problems_of_a_run_are_listed(self):
        tensors = [t for i in range(3) for t in nvfp4(FUSED.replace("layers.0", f"layers.{i}"), 7, 32)]
        self.refuse(minimax_config(), tensors,
                    *(f"QuantConversionUnsupportedError: model.safetensors: {FUSED.replace('layers.0', f'layers.{i}')}.weight: Chunk: a "
                      "dimension of 7 can't be split into 2 equal parts" for i in range(3)))


class UnsupportedAsJsonTest(ProgramTest):
    def test_error_has_kind_tensor_and_message(self):
        write_checkpoint(self.path("in"), minimax_config(), nvfp4(FUSED, 7, 32))
        result = run("revert", self.path("in"), "-o", self.path("out"), "--json")
        self.assertEqual(result.returncode, 1)
        errors = json.loads(result.stdout)["errors"]
        self.assertEqual([(e["kind"], e["tensor"]) for e in errors],
                         [("QuantConversionUnsupportedError", f"{FUSED}.weight")])
        self.assertIn("can't be split", errors[0]["message"])

    def test_kept_names_are_reported_with_their_reason(self):
        write_checkpoint(self.path("in"), minimax_config(), nvfp4(FUSED, 7, 32))
        result = run("revert", self.path("in"), "-o", self.path("out"), "--json", "--on-unsupported", "keep-names")
        self.assertEqual(result.returncode, 3)
        report = json.loads(result.stdout)
        self.assertEqual(report["outcome"], "kept_names")
        self.assertEqual(report["renamed"], 0)
        self.assertEqual([e["tensor"] for e in report["unsupported"]], [f"{FUSED}.weight"])
        self.assertEqual(len(report["warnings"]), 1)

    def test_keep_names_changes_nothing_where_all_is_supported(self):
        tensors = nvfp4(FUSED, 8, 32)
        write_checkpoint(self.path("in"), minimax_config(), tensors)
        result = run("revert", self.path("in"), "-o", self.path("out"), "--on-unsupported", "keep-names")
        self.assert_done(result)
        self.assertIn(f"{HUB_MLP}.gate_proj.weight", read_checkpoint(self.path("out")))

    def test_keep_names_does_not_excuse_a_broken_export(self):
        write_checkpoint(self.path("in"), minimax_config(), nvfp4(FUSED, 8, 32))
        with open(self.path("in/model.safetensors"), "r+b") as f:
            f.truncate(os.path.getsize(self.path("in/model.safetensors")) - 1)
        result = run("revert", self.path("in"), "-o", self.path("out"), "--on-unsupported", "keep-names")
        self.assert_fails(result, "InvalidHeaderError", status=1)
        self.assert_nothing_left()


if __name__ == "__main__":
    unittest.main()
