"""verify lists everything that does not agree with the hub; inspect counts; revert --plan says what would happen."""
import json
import os
import unittest

from exports import bf16, fp8, hf_quant_config, minimax_config, mixtral_config, nvfp4, tensor
from program import ProgramTest, byte_count, read_checkpoint, run, write, write_checkpoint

EXPERTS = "model.layers.0.block_sparse_moe.experts"
HUB = [bf16(f"{EXPERTS}.{i}.w{k}.weight", 32, 64) for i in range(3) for k in (1, 2, 3)]
HUB += [bf16("model.layers.0.block_sparse_moe.gate.weight", 4, 8), bf16("model.embed_tokens.weight", 8, 8),
        bf16("lm_head.weight", 8, 8), bf16("model.norm.weight", 8)]
GOOD = [t for i in range(3) for k in (1, 2, 3) for t in nvfp4(f"{EXPERTS}.{i}.w{k}", 32, 64, f"{EXPERTS}.{i}")] + HUB[9:]
EXCLUDE = ["lm_head", "model.layers.0.block_sparse_moe.gate"]


class VerifyTest(ProgramTest):
    def verify(self, tensors=GOOD, config_exclude=EXCLUDE, hf_exclude=EXCLUDE, *args, hub=HUB):
        extra = {"hf_quant_config.json": hf_quant_config(hf_exclude)}
        write_checkpoint(self.path("ckpt"), mixtral_config(exclude=config_exclude), tensors, extra=extra)
        write_checkpoint(self.path("hub"), {}, hub)
        return run("verify", self.path("ckpt"), "--reference", self.path("hub"), *args)

    def assert_problems(self, result, *problems):
        self.assert_fails(result, *problems)
        lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        self.assertEqual(len(lines), len(problems), result.stderr)
        self.assertIn(f"not verified: {len(problems)} problems", result.stderr)

    def test_good_checkpoint_passes(self):
        result = self.verify()
        self.assert_done(result)
        self.assertIn(f"verified: {len(GOOD)} tensors, {len(HUB)} weights with the names and shapes", result.stdout)

    def test_index_is_reference_enough_for_names(self):
        self.verify()
        write(self.path("index.json"), {"weight_map": {t[0]: "a.safetensors" for t in HUB}})
        result = run("verify", self.path("ckpt"), "--reference", self.path("index.json"))
        self.assert_done(result)
        self.assertNotIn("shapes", result.stdout)

    def test_reverted_export_passes(self):
        export = [t for i in range(2) for p in ("gate", "up", "down")
                  for t in nvfp4(f"model.layers.0.mlp.experts.{i}.{p}_proj", 32, 64, f"experts.{i}")]
        write_checkpoint(self.path("in"), mixtral_config(exclude=["lm_head"]), export + [bf16("lm_head.weight", 8, 8)])
        hub = [t for t in HUB if ".2." not in t[0] and t[0].startswith((EXPERTS, "lm"))]
        write_checkpoint(self.path("hub"), {}, hub)
        self.assert_done(run("revert", self.path("in"), "-o", self.path("out")))
        self.assert_done(run("verify", self.path("out"), "--reference", self.path("hub"), "--quiet"))
        not_reverted = run("verify", self.path("in"), "--reference", self.path("hub"))
        self.assert_fails(not_reverted, "model.layers.0.mlp.experts.0.gate_proj.weight: the reference has no tensor")

    def test_all_kinds_of_tensor_problems_are_listed(self):
        dropped, renamed_, shaped = "model.norm.weight", "model.embed_tokens.weight", "lm_head.weight"
        tensors = [t for t in GOOD if t[0] not in (dropped, renamed_, shaped)]
        tensors += [bf16("model.embeddings.weight", 8, 8), bf16(shaped, 8, 9)]
        lost = "the reference has this tensor, the checkpoint does not"
        self.assert_problems(self.verify(tensors),
                             f"ReferenceMismatchError: {dropped}: {lost}",
                             f"ReferenceMismatchError: {renamed_}: {lost}",
                             "ReferenceMismatchError: model.embeddings.weight: the reference has no tensor of this",
                             f"ReferenceMismatchError: {shaped}: the logical shape is [8, 9], the reference's [8, 8]")

    def test_dropped_quantized_weight_is_missed(self):
        tensors = [t for t in GOOD if not t[0].startswith(f"{EXPERTS}.1.w2.")]
        self.assert_problems(self.verify(tensors), f"{EXPERTS}.1.w2.weight: the reference has this tensor")

    def test_every_missing_scale_is_listed(self):
        tensors = [t for t in GOOD if t[0] not in (f"{EXPERTS}.0.w1.weight_scale", f"{EXPERTS}.1.w1.weight_scale_2")]
        self.assert_problems(self.verify(tensors),
                             f"MissingCompanionError: {EXPERTS}.0.w1.weight: weight_scale is missing",
                             f"MissingCompanionError: {EXPERTS}.1.w1.weight: weight_scale_2 is missing")

    def test_input_scale_that_one_expert_lacks(self):
        tensors = [t for t in GOOD if t[0] != f"{EXPERTS}.1.w2.input_scale"]
        self.assert_problems(self.verify(tensors),
                             f"MissingCompanionError: {EXPERTS}.1.w2.weight: input_scale is missing, "
                             "while 2 sibling experts have one")

    def test_input_scale_that_no_expert_has_is_a_format(self):
        self.assert_done(self.verify([t for t in GOOD if not t[0].endswith("input_scale")]))

    def test_exclude_list_that_names_a_quantized_module(self):
        wrong = [*EXCLUDE, f"{EXPERTS}.1.w2"]
        self.assert_problems(self.verify(GOOD, wrong, wrong), *(
            f"InvalidConfigError: {file}: {EXPERTS}.1.w2: the exclude entry \"{EXPERTS}.1.w2\" covers this module, "
            "whose tensors are quantized" for file in ("config.json", "hf_quant_config.json")))

    def test_exclude_list_in_another_namespace(self):
        wrong = ["model.language_model.layers.0.mlp.gate", "model.vision_tower*"]
        self.assert_problems(self.verify(GOOD, wrong, wrong), *(
            f"InvalidConfigError: {file}: none of the 2 exclude entries matches any module: they are in another "
            "namespace"
            for file in ("config.json", "hf_quant_config.json")))

    def test_configs_that_disagree(self):
        result = self.verify(GOOD, EXCLUDE, EXCLUDE[:1])
        self.assert_problems(result, "config.json and hf_quant_config.json exclude different modules, 1 of them")

    def test_lists_that_mean_the_same_agree(self):
        self.assert_done(self.verify(GOOD, EXCLUDE, ["lm_head*", "*.gate"]))

    def test_layers_listed_as_quantized_that_are_not(self):
        config = mixtral_config(algorithm="MIXED_PRECISION")
        config["quantization_config"]["quantized_layers"] = {"lm_head": {"quant_algo": "FP8"}, EXPERTS: {"quant_algo": "NVFP4"}}
        write_checkpoint(self.path("ckpt"), config, GOOD)
        write_checkpoint(self.path("hub"), {}, HUB)
        self.assert_problems(run("verify", self.path("ckpt"), "--reference", self.path("hub")),
                             'lm_head: "lm_head" of the config says that this module is quantized, but its tensors are not')

    def test_index_that_lies(self):
        write_checkpoint(self.path("ckpt"), mixtral_config(), GOOD, shards=2)
        os.remove(self.path("ckpt/model-00001-of-00002.safetensors"))
        write_checkpoint(self.path("hub"), {}, HUB)
        result = run("verify", self.path("ckpt"), "--reference", self.path("hub"))
        self.assert_fails(result, "InvalidIndexError", "the index names this shard, but it is missing")

    def test_weight_that_the_model_ties_may_be_stored_where_the_hub_does_not(self):
        self.assert_done(self.verify(GOOD, hub=[t for t in HUB if t[0] != "lm_head.weight"]))

    def test_json_report(self):
        good = self.verify(GOOD, EXCLUDE, EXCLUDE, "--json")
        self.assert_done(good)
        report = json.loads(good.stdout)
        self.assertEqual({k: report[k] for k in ("verified", "tensors", "compared", "shapes", "problems", "notes")},
                         {"verified": True, "tensors": len(GOOD), "compared": len(HUB), "shapes": True, "problems": [],
                          "notes": []})
        self.setUp()
        bad = self.verify(GOOD[:-1], EXCLUDE, EXCLUDE, "--json")
        self.assertEqual(bad.returncode, 1)
        report = json.loads(bad.stdout)
        self.assertFalse(report["verified"])
        self.assertEqual([(p["kind"], p["tensor"]) for p in report["problems"]],
                         [("ReferenceMismatchError", "model.norm.weight")])
        self.assertEqual(set(report["problems"][0]), {"kind", "file", "tensor", "message", "hint"})


class InspectTest(ProgramTest):
    TENSORS = [*nvfp4("model.layers.0.mlp.down_proj", 32, 64), *nvfp4("model.layers.1.mlp.down_proj", 32, 64),
               *nvfp4("model.layers.2.mlp.down_proj", 32, 64, input_scale=False),
               *fp8("model.layers.10.mlp.down_proj", 16, 32), *fp8("model.layers.9.mlp.down_proj", 16, 32, [16]),
               *fp8("model.layers.11.mlp.down_proj", 256, 128, [2, 1], "weight_scale_inv", input_scale=False),
               bf16("model.norm.weight", 64), tensor("model.layers.0.self_attn.k_proj.k_scale", "F32", [])]

    def setUp(self):
        super().setUp()
        write_checkpoint(self.path("ckpt"), mixtral_config(), self.TENSORS, shards=2)

    def test_json_totals(self):
        result = run("inspect", self.path("ckpt"), "--json")
        self.assert_done(result)
        report = json.loads(result.stdout)
        total = sum(byte_count(t[1], t[2]) for t in self.TENSORS)
        self.assertEqual((report["tensors"], report["files"], report["bytes"]), (len(self.TENSORS), 2, total))
        self.assertEqual(report["architecture"], "MixtralForCausalLM")
        self.assertEqual(report["quantization"], "NVFP4")
        for dtype, count in report["bytes_by_dtype"].items():
            self.assertEqual(count, sum(byte_count(t[1], t[2]) for t in self.TENSORS if t[1] == dtype), dtype)
        totals = {t["layout"]: t for t in report["totals"]}
        self.assertEqual({k: (t["weights"], t["elements"]) for k, t in totals.items() if k != "plain"},
                         {"NVFP4": (2, 2 * 32 * 64), "W4A16_NVFP4": (1, 32 * 64), "FP8": (1, 16 * 32),
                          "FP8_PER_CHANNEL_PER_TOKEN": (1, 16 * 32), "FP8_BLOCK": (1, 256 * 128)})
        self.assertEqual(sum(t["bytes"] for t in report["totals"]), total)
        self.assertEqual(sum(m["bytes"] for m in report["modules"]), total)
        module = next(m for m in report["modules"] if m["name"] == "model.layers.0.mlp.down_proj")
        self.assertEqual((module["layout"], module["shape"]), ("NVFP4", [32, 64]))
        self.assertEqual(module["tensors"], ["weight U8 [32, 32]", "weight_scale F8_E4M3 [32, 4]",
                                             "weight_scale_2 F32 []", "input_scale F32 []"])

    def test_text_lists_modules_in_natural_order(self):
        result = run("inspect", self.path("ckpt"), "--modules")
        self.assert_done(result)
        order = [line.split("layers.")[1].split(".")[0] for line in result.stdout.splitlines() if "down_proj" in line]
        self.assertEqual(order, ["0", "1", "2", "9", "10", "11"])
        self.assertIn("MixtralForCausalLM, NVFP4", result.stdout)
        self.assertIn(f"{len(self.TENSORS)} tensors in 2 files", result.stdout)

    def test_tree_folds_layers_that_are_alike(self):
        lines = run("inspect", self.path("ckpt")).stdout.splitlines()
        layers = [line.split() for line in lines if line.split()[:1] and line.split()[0].startswith("layers.")]
        self.assertEqual([line[0] for line in layers], ["layers.0", "layers.1.mlp.down_proj", "layers.2.mlp.down_proj",
                                                        "layers.9.mlp.down_proj", "layers.10.mlp.down_proj",
                                                        "layers.11.mlp.down_proj"])
        self.assertEqual(layers[2][1], "W4A16_NVFP4")
        alike = [t for i in range(12) for t in nvfp4(f"model.layers.{i}.mlp.down_proj", 32, 64)]
        write_checkpoint(self.path("alike"), mixtral_config(), alike)
        first = run("inspect", self.path("alike")).stdout.splitlines()[0]
        self.assertRegex(first, r"^model\.layers\.0-11\.mlp\.down_proj +NVFP4 +13\.92 kB  12 x \[32, 64\]$")

    def test_tree_fits_the_columns_and_depth(self):
        narrow = run("inspect", self.path("ckpt"), env={"COLUMNS": "60"}).stdout.split("\n\n")[0].splitlines()
        self.assertLessEqual(max(map(len, narrow)), 60)
        self.assertTrue(any("..." in line for line in narrow))
        shallow = run("inspect", self.path("ckpt"), "--depth", "1").stdout.splitlines()
        self.assertTrue(shallow[0].startswith("model "))
        self.assertIn("lines more (--depth N", shallow[1])
        self.assertEqual(run("inspect", self.path("ckpt"), "--depth", "0").returncode, 2)

    def test_folder_without_config_can_be_looked_at(self):
        os.remove(self.path("ckpt/config.json"))
        result = run("inspect", self.path("ckpt"))
        self.assert_done(result)
        self.assertIn("unknown architecture", result.stdout)

    def test_missing_scale_is_a_problem(self):
        tensors = [t for t in self.TENSORS if "0.mlp.down_proj.weight_scale" not in t[0]]
        write_checkpoint(self.path("bad"), mixtral_config(), tensors)
        result = run("inspect", self.path("bad"), "--json")
        self.assertEqual(result.returncode, 1)
        self.assertEqual({p["kind"] for p in json.loads(result.stdout)["problems"]}, {"MissingCompanionError"})


class PlanTest(ProgramTest):
    FUSED = "model.language_model.layers.0.mlp.shared_experts.gate_up_proj"
    HUB = "language_model.model.layers.0.block_sparse_moe.shared_experts"

    def setUp(self):
        super().setUp()
        write_checkpoint(self.path("in"), minimax_config(exclude=["lm_head"]), nvfp4(self.FUSED, 32, 64) +
                         [bf16("lm_head.weight", 4, 4)], shards=2)

    def test_writes_nothing_and_is_stable(self):
        before = sorted(os.listdir(self.folder))
        for args in ([], ["--json"]):
            runs = [run("revert", self.path("in"), "--plan", *args) for _ in range(3)]
            for result in runs:
                self.assert_done(result)
            self.assertEqual({r.stdout for r in runs}, {runs[0].stdout})
        self.assertEqual(sorted(os.listdir(self.folder)), before)

    def test_plan_with_an_output_writes_nothing_either(self):
        self.assert_done(run("revert", self.path("in"), "-o", self.path("out"), "--plan"))
        self.assert_nothing_left()

    def test_text_has_a_line_for_every_tensor(self):
        lines = run("revert", self.path("in"), "--plan").stdout.splitlines()
        plan = [line for line in lines if " <- " in line]
        self.assertEqual(len(plan), 9)
        gate = next(line for line in plan if f" {self.HUB}.gate_proj.weight " in line)
        file = r"model-00001-of-00002\.safetensors"
        self.assertRegex(gate, rf"^{file} {self.HUB}\.gate_proj\.weight U8 \[16, 32\] 512 <- "
                               rf"{file} {self.FUSED}\.weight \d+\+512$")
        self.assertIn("config.json module references rewritten", lines)

    def test_json_says_where_every_byte_comes_from(self):
        plan = json.loads(run("revert", self.path("in"), "--plan", "--json").stdout)
        self.assertEqual(plan["revert"]["outcome"], "reverted")
        self.assertEqual(json.loads(plan["configs"]["config.json"])["quantization_config"]["ignore"],
                         ["language_model.lm_head"])
        self.assert_done(run("revert", self.path("in"), "-o", self.path("out")))
        got = read_checkpoint(self.path("out"))
        self.assertEqual({t["name"] for t in plan["tensors"]}, set(got))
        for row in plan["tensors"]:
            dtype, shape, body = got[row["name"]]
            self.assertEqual((row["dtype"], row["shape"], row["bytes"]), (dtype, shape, len(body)))
            pieces = b""
            for source in row["sources"]:
                with open(self.path(f"in/{source['file']}"), "rb") as f:
                    f.seek(source["offset"])
                    pieces += f.read(source["bytes"])
            self.assertEqual(pieces, body, row["name"])
            with open(self.path(f"out/{row['file']}"), "rb") as f:
                f.seek(row["offset"])
                self.assertEqual(f.read(row["bytes"]), body, row["name"])


if __name__ == "__main__":
    unittest.main()
