"""What only the hub checkpoint has: which kind it is, and `revert --carry-missing`, which brings it over."""
import json
import os
import subprocess
import unittest

import program
from exports import as_dict, bf16, entry, fp8, hf_quant_config, modelopt_config, nvfp4, radio_config, rows, tensor
from modules import all_matched
from program import ProgramTest, read_checkpoint, read_file, run, safetensors, write, write_checkpoint

INDEX = "model.safetensors.index.json"
E, H, I = 2, 64, 32  # experts, hidden size, intermediate size
EXPERTS = "model.layers.1.mlp.experts"
MTP = "model.layers.2"


def config(exclude=("lm_head",), **more):
    return modelopt_config("DeepseekV3ForCausalLM", "deepseek_v3", exclude=exclude, num_hidden_layers=2, **more)


def layer(number):
    return [bf16(f"model.layers.{number}.input_layernorm.weight", H),
            *nvfp4(f"model.layers.{number}.self_attn.o_proj", H, H)]


def stacked(name, out, inner):
    return [tensor(name, "U8", [E, out, inner // 2]), tensor(f"{name}_weight_scale", "F8_E4M3", [E, out, inner // 16]),
            tensor(f"{name}_weight_scale_2", "F32", [E]), tensor(f"{name}_input_scale", "F32", [E])]


EMBEDDINGS = [bf16("model.embed_tokens.weight", 8, H), bf16("model.norm.weight", H)]
IN_MEMORY = [*EMBEDDINGS, *layer(0), *layer(1), bf16("model.layers.1.mlp.gate.weight", E, H),
             *stacked(f"{EXPERTS}.gate_up_proj", 2 * I, H), *stacked(f"{EXPERTS}.down_proj", H, I)]


def hub_of_export():
    """name -> (dtype, shape, bytes) of the same tensors under the hub's names."""
    out = {}
    for name, value in as_dict(IN_MEMORY).items():
        if not name.startswith(f"{EXPERTS}."):
            out[name] = value
            continue
        parameter, _, leaf = name.removeprefix(f"{EXPERTS}.").partition("_proj")
        for i in range(E):
            one = entry(value, i)
            if parameter == "gate_up":
                for part, begin in (("gate", 0), ("up", I)):
                    out[f"{EXPERTS}.{i}.{part}_proj.{leaf[1:] or 'weight'}"] = rows(one, begin, begin + I)
            else:
                out[f"{EXPERTS}.{i}.down_proj.{leaf[1:] or 'weight'}"] = one
    return out


REVERTED = hub_of_export()
HUB_NAMED = [(name, *value) for name, value in REVERTED.items()]
# The same weights as the hub has them, not quantized.
SHARED = [bf16(n, *([s[0], s[1] * 2] if d == "U8" else s)) for n, d, s, _ in HUB_NAMED
          if not n.endswith(("_scale", "_scale_2"))]
MTP_PLAIN = [bf16(f"{MTP}.eh_proj.weight", H, 2 * H), bf16(f"{MTP}.enorm.weight", H), bf16(f"{MTP}.hnorm.weight", H),
             bf16(f"{MTP}.shared_head.norm.weight", H), bf16(f"{MTP}.self_attn.o_proj.weight", H, H),
             *(bf16(f"{MTP}.mlp.experts.{i}.{part}_proj.weight", *shape) for i in range(E)
               for part, shape in (("gate", (I, H)), ("up", (I, H)), ("down", (H, I))))]
HEAD = bf16("lm_head.weight", 8, H)
BUFFER = tensor("model.layers.0.self_attn.rotary_emb.inv_freq", "F32", [4])
OTHER = bf16("model.layers.1.mlp.shared_experts.down_proj.weight", H, I)
ONLY_HUB = [HEAD, BUFFER, OTHER, *MTP_PLAIN]
UNTIED, TIED = {"tie_word_embeddings": False}, {"tie_word_embeddings": True}
MODULES = {n.removesuffix(".weight") for n in [*REVERTED, *(t[0] for t in ONLY_HUB)] if n.endswith(".weight")}


class CarryTest(ProgramTest):
    def write_export(self, model, tensors=IN_MEMORY, exclude=("lm_head",), **options):
        write_checkpoint(self.path("in"), model, tensors, extra={"hf_quant_config.json": hf_quant_config(exclude)},
                         **options)

    def write_hub(self, tensors=(*SHARED, *ONLY_HUB), **options):
        write_checkpoint(self.path("hub"), {}, list(tensors), **options)

    def revert(self, *args):
        return run("revert", self.path("in"), "-o", self.path("out"), "--reference", self.path("hub"), *args)

    def carry(self, *args):
        result = self.revert("--carry-missing", *args)
        self.assert_done(result)
        return result

    def assert_verified(self):
        result = run("verify", self.path("out"), "--reference", self.path("hub"))
        self.assertEqual((result.returncode, result.stderr), (0, ""), result.stderr)

    def assert_tensors(self, want):
        got = read_checkpoint(self.path("out"))
        self.assertEqual(sorted(got), sorted(want))
        self.assertEqual(got, want)

    def exclude_lists(self):
        lists = []
        for file, section, key in (("config.json", "quantization_config", "ignore"),
                                   ("hf_quant_config.json", "quantization", "exclude_modules")):
            with open(self.path(f"out/{file}"), encoding="utf-8") as f:
                lists.append(json.load(f)[section][key])
        return lists


class KindTest(CarryTest):
    def kinds(self, model):
        self.write_export(model)
        self.write_hub()
        result = self.revert("--json")
        self.assert_done(result)
        report = json.loads(result.stdout)
        self.assertEqual(report["outcome"], "reverted")
        self.assertEqual([d["name"] for d in report["dropped"]], report["only_in_reference"])
        self.assertFalse(any(d["carried"] for d in report["dropped"]))
        return {d["name"]: d["kind"] for d in report["dropped"]}

    def test_every_missing_tensor_has_its_kind(self):
        want = {HEAD[0]: "other", BUFFER[0]: "buffer", OTHER[0]: "other", **{t[0]: "mtp" for t in MTP_PLAIN}}
        self.assertEqual(self.kinds(config(**UNTIED)), want)

    def test_a_tied_head_is_no_loss(self):
        self.assertEqual(self.kinds(config(**TIED))[HEAD[0]], "tied")

    def test_a_layer_that_the_model_counts_is_not_of_the_prediction_layers(self):
        kinds = self.kinds({**config(**UNTIED), "num_hidden_layers": 3})
        self.assertEqual({kinds[t[0]] for t in MTP_PLAIN}, {"other"})

    def test_notes_say_why(self):
        self.write_export(config(**TIED))
        self.write_hub()
        result = self.revert()
        self.assert_done(result)
        self.assertIn(f"note: {len(ONLY_HUB)} tensors are only in the reference:\n", result.stderr)
        for name, reason in ((HEAD[0], "tied: the same as another tensor"), (OTHER[0], "no reason is known"),
                             (BUFFER[0], "a buffer that the model computes"),
                             (f"{MTP_PLAIN[0][0]} and {len(MTP_PLAIN) - 1} others", "of the multi-token prediction layers")):
            self.assertIn(f"note:   only in the reference: {name} ({reason})\n", result.stderr)
        self.assertEqual(result.stderr.count(MTP), 1, "one line for all of the draft layer")
        self.assert_tensors(REVERTED)


class CarriedTest(CarryTest):
    def test_single_file_holds_export_and_carried_tensors(self):
        self.write_export(config(**UNTIED))
        self.write_hub()
        result = self.carry()
        self.assertEqual([f for f in os.listdir(self.path("out")) if "safetensors" in f], ["model.safetensors"])
        self.assert_tensors(REVERTED | as_dict(ONLY_HUB))
        self.assertIn(f"note: {len(ONLY_HUB)} weights were carried over from the reference as they are there",
                      result.stderr)
        self.assertIn(f"{BUFFER[0]} (a buffer that the model computes; carried over)", result.stderr)
        self.assert_verified()

    def test_tied_weights_stay_out(self):
        self.write_export(config(**TIED))
        self.write_hub()
        report = json.loads(self.carry("--json").stdout)
        self.assertEqual([d for d in report["dropped"] if not d["carried"]],
                         [{"name": HEAD[0], "kind": "tied", "carried": False}])
        self.assertEqual(report["only_in_reference"], [HEAD[0]])
        self.assertEqual(report["input_tensors"], len(IN_MEMORY))
        self.assertEqual(report["output_tensors"], len(REVERTED) + len(ONLY_HUB) - 1)
        self.assert_tensors(REVERTED | as_dict(ONLY_HUB[1:]))

    def test_shards_of_the_reference_become_shards_of_their_own(self):
        self.write_export(config(**UNTIED), shards=2)
        self.write_hub(shards=3)
        self.carry()
        files = {f for f in os.listdir(self.path("out")) if f.endswith(".safetensors")}
        self.assertEqual(files, {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
                                 *(f"carried-model-0000{i}-of-00003.safetensors" for i in (1, 2, 3))})
        for i in (1, 2, 3):
            shard = f"model-0000{i}-of-00003.safetensors"
            carried = read_file(self.path(f"out/carried-{shard}"))
            self.assertTrue(carried)
            self.assertEqual(carried, {n: t for n, t in read_file(self.path(f"hub/{shard}")).items()
                                       if n in as_dict(ONLY_HUB)})
        want = REVERTED | as_dict(ONLY_HUB)
        self.assert_tensors(want)
        with open(self.path(f"out/{INDEX}"), encoding="utf-8") as f:
            index = json.load(f)
        self.assertEqual(index["weight_map"], {n: f for f in files for n in read_file(self.path(f"out/{f}"))})
        self.assertEqual(index["metadata"]["total_size"], sum(len(t[2]) for t in want.values()))
        self.assert_verified()

    def test_shards_of_the_reference_without_anything_missing_are_not_written(self):
        self.write_export(config(**UNTIED), shards=2)
        files = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
        for file, tensors in zip(files, (SHARED, ONLY_HUB)):
            write(self.path(f"hub/{file}"), safetensors(tensors))
        write(self.path(f"hub/{INDEX}"), {"metadata": {"total_size": 0}, "weight_map": {
            t[0]: file for file, tensors in zip(files, (SHARED, ONLY_HUB)) for t in tensors}})
        self.carry()
        carried = [f for f in os.listdir(self.path("out")) if f.startswith("carried-")]
        self.assertEqual(carried, [f"carried-{files[1]}"])
        self.assertEqual(read_file(self.path(f"out/{carried[0]}")), as_dict(ONLY_HUB))

    def test_one_file_from_several_shards_of_the_reference(self):
        self.write_export(config(**UNTIED))
        self.write_hub(shards=3)
        self.carry()
        self.assertEqual([f for f in os.listdir(self.path("out")) if "safetensors" in f], ["model.safetensors"])
        self.assert_tensors(REVERTED | as_dict(ONLY_HUB))
        self.assert_verified()

    def test_new_shards_mix_both(self):
        self.write_export(config(**UNTIED))
        self.write_hub()
        self.carry("--max-shard-size", "16KB")
        files = [f for f in os.listdir(self.path("out")) if f.endswith(".safetensors")]
        self.assertGreater(len(files), 3)
        self.assertFalse([f for f in files if f.startswith("carried-")])
        self.assert_tensors(REVERTED | as_dict(ONLY_HUB))
        self.assert_verified()

    def test_export_in_hub_names(self):
        self.write_export(config(**UNTIED), HUB_NAMED)
        self.write_hub()
        result = self.carry()
        self.assertIn("the export has hub names already", result.stderr)
        self.assert_tensors(REVERTED | as_dict(ONLY_HUB))
        self.assertIn(f"{MTP}.*", self.exclude_lists()[0])
        self.assert_verified()

    def test_nothing_missing_changes_nothing(self):
        self.write_export(config(**UNTIED), HUB_NAMED)
        self.write_hub(SHARED)
        result = self.carry()
        self.assertNotIn("carried", result.stderr)
        self.assert_tensors(REVERTED)
        for name in ("config.json", "hf_quant_config.json"):
            with open(self.path(f"in/{name}"), "rb") as a, open(self.path(f"out/{name}"), "rb") as b:
                self.assertEqual(a.read(), b.read(), name)

    def test_plan_names_carried_tensors_and_writes_nothing(self):
        self.write_export(config(**UNTIED))
        self.write_hub()
        result = run("revert", self.path("in"), "--plan", "--reference", self.path("hub"), "--carry-missing")
        self.assert_done(result)
        line = next(text for text in result.stdout.splitlines() if f" {MTP}.eh_proj.weight " in text)
        self.assertIn(f"BF16 [{H}, {2 * H}] {4 * H * H} <- model.safetensors {MTP}.eh_proj.weight ", line)
        self.assert_nothing_left()

    def test_relative_paths(self):
        self.write_export(config(**UNTIED))
        self.write_hub()
        folder = os.getcwd()
        self.addCleanup(os.chdir, folder)
        path = os.path.abspath(program.PROGRAM)
        os.chdir(self.folder)
        result = subprocess.run([path, "revert", "in", "-o", "out", "--reference", "hub", "--carry-missing"],
                                capture_output=True, text=True, timeout=60, check=False)
        self.assert_done(result)
        self.assert_tensors(REVERTED | as_dict(ONLY_HUB))


class ExcludeTest(CarryTest):
    CARRIED = {n.removesuffix(".weight") for n in as_dict(ONLY_HUB) if n.endswith(".weight")}
    QUANTIZED = {n.removesuffix(".weight_scale") for n in REVERTED if n.endswith(".weight_scale")}

    def assert_lists(self, *wanted):
        for entries in self.exclude_lists():
            self.assertEqual(entries, list(wanted))
            matched = all_matched(entries, MODULES)
            self.assertLessEqual(self.CARRIED, matched)
            self.assertEqual(matched & self.QUANTIZED, set())

    def test_sub_trees_without_quantized_modules_are_one_entry(self):
        self.write_export(config(**UNTIED))
        self.write_hub()
        self.carry()
        self.assert_lists("lm_head", "model.layers.1.mlp.shared_experts.*", f"{MTP}.*")

    def test_layer_two_is_not_layer_twenty(self):
        twenty = [f"model.layers.{i}" for i in range(3, 23)]
        export = [*IN_MEMORY, *(t for name in twenty for t in nvfp4(f"{name}.self_attn.o_proj", H, H))]
        self.write_export({**config(**UNTIED), "num_hidden_layers": 23}, export)
        self.write_hub([*SHARED, *ONLY_HUB, *(bf16(f"{name}.self_attn.o_proj.weight", H, H) for name in twenty)])
        self.carry()
        modules = {f"{name}.self_attn.o_proj" for name in twenty}
        for entries in self.exclude_lists():
            self.assertIn(f"{MTP}.*", entries)
            self.assertEqual(all_matched(entries, modules), set())
        self.assert_verified()

    def test_what_a_list_covers_already_is_not_added(self):
        exclude = ["lm_head", "model.layers.2*", "model.layers.1.mlp.shared_experts"]
        self.write_export(config(exclude, **UNTIED), exclude=exclude)
        self.write_hub()
        self.carry()
        self.assert_lists(*exclude)

    def test_a_list_that_covers_some_of_a_sub_tree_gets_the_rest(self):
        exclude = ["lm_head", f"{MTP}.eh_proj", "model.layers.1.mlp.shared_experts.*"]
        self.write_export(config(exclude, **UNTIED), exclude=exclude)
        self.write_hub()
        self.carry()
        self.assert_lists(*exclude, f"{MTP}.*")

    def test_compressed_tensors_gets_regular_expressions(self):
        model = config(**UNTIED)
        model["quantization_config"] |= {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized",
                                         "ignore": ["lm_head"]}
        del model["quantization_config"]["quant_algo"]
        packed = [t for n in (0, 1) for t in (
            bf16(f"model.layers.{n}.input_layernorm.weight", H),
            tensor(f"model.layers.{n}.self_attn.o_proj.weight_packed", "U8", [H, H // 2]),
            tensor(f"model.layers.{n}.self_attn.o_proj.weight_scale", "F8_E4M3", [H, H // 16]),
            tensor(f"model.layers.{n}.self_attn.o_proj.weight_global_scale", "F32", [1]))]
        write_checkpoint(self.path("in"), model, [*EMBEDDINGS, *packed])
        shared = [t for t in SHARED if "mlp" not in t[0]]
        self.write_hub([*shared, *ONLY_HUB])
        self.carry()
        with open(self.path("out/config.json"), encoding="utf-8") as f:
            entries = json.load(f)["quantization_config"]["ignore"]
        self.assertEqual(entries[0], "lm_head")
        self.assertIn(r"re:model\.layers\.2\..*", entries)
        self.assertFalse([e for e in entries if "*" in e and not e.startswith("re:")], entries)
        matched = all_matched(entries, MODULES | {"model.layers.20.self_attn.o_proj"})
        self.assertLessEqual(self.CARRIED, matched)
        self.assertEqual({m for m in matched if m.startswith(("model.layers.0.", "model.layers.20."))}, set())
        self.assert_verified()

    def test_a_config_without_a_list_stays_as_it_is(self):
        model = config(**UNTIED)
        del model["quantization_config"]["ignore"]
        self.write_export(model)
        self.write_hub()
        self.carry()
        with open(self.path("out/config.json"), encoding="utf-8") as f:
            self.assertEqual(json.load(f), model)


class QuantizedReferenceTest(CarryTest):
    """The hub's own FP8: carried as it is there, with its scales."""
    MTP_FP8 = [bf16(f"{MTP}.enorm.weight", H),
               *fp8(f"{MTP}.eh_proj", 128, 256, [1, 2], "weight_scale_inv", input_scale=False),
               *fp8(f"{MTP}.mlp.experts.0.gate_proj", 128, 128, [1, 1], "weight_scale_inv", input_scale=False)]

    def test_companions_come_along(self):
        self.write_export(config(**UNTIED))
        self.write_hub([*SHARED, *self.MTP_FP8], shards=2)
        report = json.loads(self.carry("--json").stdout)
        self.assertEqual({d["name"]: d["carried"] for d in report["dropped"]},
                         {t[0]: True for t in self.MTP_FP8 if t[0].endswith(".weight")})
        self.assert_tensors(REVERTED | as_dict(self.MTP_FP8))

    def test_no_exclude_entry_covers_them(self):
        # A server would read them as not quantized; that no list of a NVFP4 config can say FP8 is told.
        self.write_export(config(**UNTIED))
        self.write_hub([*SHARED, *self.MTP_FP8])
        result = self.carry()
        self.assertIn("warning: weights carried over are quantized in the reference's own format", result.stderr)
        self.assertIn("(2: ", result.stderr)
        for entries in self.exclude_lists():
            self.assertIn(f"{MTP}.enorm", entries)
            self.assertFalse([entry for entry in entries if f"{MTP}.eh_proj".startswith(entry.rstrip("*."))])
        verified = run("verify", self.path("out"), "--reference", self.path("hub"))
        self.assert_fails(verified, f"{MTP}.eh_proj.weight: the config says NVFP4, the tensors are FP8_BLOCK")

    def test_a_scale_that_the_reference_lacks_is_an_error(self):
        self.write_export(config(**UNTIED))
        self.write_hub([*SHARED, *MTP_PLAIN, tensor(f"{MTP}.eh_proj.weight_scale_inv", "F32", [1, 1]),
                        tensor(f"{MTP}.lost.weight_scale_inv", "F32", [1, 1])])
        self.assert_fails(self.revert("--carry-missing"),
                          f"MissingCompanionError: {MTP}.lost.weight: weight_scale_inv is stored without its weight")
        self.assert_nothing_left()


class RefusedTest(CarryTest):
    def test_names_alone_can_not_be_carried(self):
        self.write_export(config(**UNTIED))
        names = [t[0] for t in [*SHARED, *ONLY_HUB]]
        write(self.path(f"hub/{INDEX}"), {"metadata": {}, "weight_map": {n: "model-00001-of-00001.safetensors"
                                                                         for n in names}})
        for reference in (self.path("hub"), self.path(f"hub/{INDEX}")):
            result = run("revert", self.path("in"), "-o", self.path("out"), "--reference", reference, "--carry-missing")
            self.assert_fails(result, f"ReferenceMismatchError: {reference}: tensors can't be carried over from names "
                                      "alone (--carry-missing needs the folder of the hub checkpoint with its files as "
                                      "--reference)")
            self.assert_nothing_left()

    def test_carrying_without_a_reference_is_a_usage_error(self):
        self.write_export(config(**UNTIED))
        result = run("revert", self.path("in"), "-o", self.path("out"), "--carry-missing")
        self.assert_fails(result, "--carry-missing requires --reference", status=2)
        self.assert_nothing_left()

    def test_apply_has_nothing_to_carry(self):
        self.write_export(config(**UNTIED))
        result = run("apply", self.path("in"), "-o", self.path("out"), "--carry-missing")
        self.assertEqual(result.returncode, 2)
        self.assert_nothing_left()


class StrictTest(CarryTest):
    def test_what_is_carried_is_not_missing(self):
        self.write_export(config(**UNTIED))
        self.write_hub()
        self.carry("--strict")
        self.assert_tensors(REVERTED | as_dict(ONLY_HUB))

    def test_without_carrying_it_is(self):
        self.write_export(config(**UNTIED))
        self.write_hub()
        result = self.revert("--strict")
        self.assert_fails(result, *(f"{t[0]}: only the reference has this tensor" for t in ONLY_HUB))
        self.assert_nothing_left()

    def test_a_tied_weight_that_stays_out_is_still_named(self):
        self.write_export(config(**TIED))
        self.write_hub()
        result = self.revert("--strict", "--carry-missing")
        self.assert_fails(result, f"{HEAD[0]}: only the reference has this tensor")
        self.assertEqual(result.stderr.count("error: "), 1)
        self.assert_nothing_left()


class KeptNamesTest(ProgramTest):
    """Where names stay in memory's, nothing under hub names joins them."""
    ATTENTION = "encoder.layer.0.attention.attention"

    def linears(self, scalars):
        return [t for part, key in zip(("query", "key", "value"), scalars)
                for t in nvfp4(f"{self.ATTENTION}.{part}", 8, 32, key)]

    def test_scales_that_differ_leave_nothing_carried(self):
        write_checkpoint(self.path("good"), radio_config(), self.linears(["same"] * 3))
        self.assert_done(run("revert", self.path("good"), "-o", self.path("reverted")))
        hub = [(name, *value) for name, value in read_checkpoint(self.path("reverted")).items()]
        write_checkpoint(self.path("hub"), {}, [*hub, bf16("radio_model.extra.weight", 4, 4)])
        export = self.linears(["a", "b", "c"])
        write_checkpoint(self.path("in"), radio_config(), export)
        result = run("revert", self.path("in"), "-o", self.path("out"), "--reference", self.path("hub"),
                     "--carry-missing", "--on-unsupported", "keep-names", "--json")
        self.assertEqual(result.returncode, 3, result.stderr)
        self.assertEqual(read_checkpoint(self.path("out")), as_dict(export))
        self.assertFalse([d for d in json.loads(result.stdout)["dropped"] if d["carried"]])


if __name__ == "__main__":
    unittest.main()
