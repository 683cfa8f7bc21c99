"""What breaks engines and has one right answer: `verify` reports it, `repair` mends it, and refuses what has none."""
import json
import os
import shutil
import struct
import unittest

from exports import MODELOPT, bf16, fp8, nvfp4
from merge_scales_test import decoded, rescaled
from program import ProgramTest, read_checkpoint, run, write, write_checkpoint

LAYER = "model.layers.0"
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1,
         "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "vocab_size": 32}
SHAPES = {"self_attn.q_proj": (64, 64), "self_attn.k_proj": (32, 64), "self_attn.v_proj": (32, 64), "self_attn.o_proj": (64, 64),
          "mlp.gate_proj": (64, 64), "mlp.up_proj": (64, 64), "mlp.down_proj": (64, 64)}
PLAIN = [bf16("model.embed_tokens.weight", 32, 64), bf16("lm_head.weight", 32, 64), bf16("model.norm.weight", 64)]
HUB = PLAIN + [bf16(f"{LAYER}.{m}.weight", *s) for m, s in SHAPES.items()]
INDEX = "model.safetensors.index.json"


def f32(value):
    return struct.pack("<f", value)


def quantization(algorithm="NVFP4", ignore=("lm_head",), **more):
    return {"quant_method": "modelopt", "quant_algo": algorithm, "group_size": 16, "ignore": list(ignore), "producer": MODELOPT} | more


def scaled(tensors, scales, leaf="weight_scale_2", other=0.5):
    """With the scalars `scales` by module, and finite block scales."""
    out = []
    for name, dtype, shape, body in tensors:
        module, own = name.rsplit(".", 1)
        if dtype == "F32":
            body = f32(scales.get(module[len(LAYER) + 1:], 0.25) if own == leaf else other)
        elif dtype == "F8_E4M3":
            body = bytes(b & 0x77 for b in body)
        out.append((name, dtype, shape, body))
    return out


def llama(scales, **more):
    return PLAIN + scaled([t for m, s in SHAPES.items() for t in nvfp4(f"{LAYER}.{m}", *s)], scales, **more)


class RepairTest(ProgramTest):
    def write(self, tensors, config=None, name="in", hub=HUB, **more):
        write_checkpoint(self.path(name), LLAMA | {"quantization_config": config or quantization()}, tensors, **more)
        write_checkpoint(self.path("hub"), LLAMA, hub)

    def verify(self, name="in"):
        return run("verify", self.path(name), "--reference", self.path("hub"))

    def repair(self, *args):
        return run("repair", self.path("in"), "-o", self.path("out"), *args)

    def repaired(self, *args):
        result = self.repair("--json", *args)
        self.assert_done(result)
        return json.loads(result.stdout)

    def config(self, name="out", file="config.json"):
        with open(self.path(f"{name}/{file}"), encoding="utf-8") as f:
            return json.load(f)


class ScalesTest(RepairTest):
    UNEQUAL = {"self_attn.q_proj": 0.5, "self_attn.k_proj": 0.375, "mlp.gate_proj": 0.25, "mlp.up_proj": 0.375}

    def test_equal_scales_are_no_problem(self):
        self.write(llama({}))
        self.assert_done(self.verify())
        self.assertEqual(self.repaired(), self.repaired_twice("again") | {"rescaled": [], "mended": []})
        self.assertEqual(read_checkpoint(self.path("out")), read_checkpoint(self.path("in")))

    def repaired_twice(self, out):
        result = run("repair", self.path("out"), "-o", self.path(out), "--json")
        self.assert_done(result)
        return json.loads(result.stdout)

    def test_unequal_global_scales_are_problems_that_name_the_linears(self):
        for unequal, fragments in (({"self_attn.q_proj": 0.5, "self_attn.k_proj": 0.375},
                                    ("qkv_proj", "0.5 of q_proj, 0.375 of k_proj, 0.25 of v_proj")),
                                   ({"mlp.up_proj": 0.125}, ("gate_up_proj", "0.25 of gate_proj, 0.125 of up_proj"))):
            self.setUp()
            self.write(llama(unequal))
            self.assert_fails(self.verify(), f"{LAYER}.{next(iter(unequal)).split('.')[0]}", "weight_scale_2 differs",
                              "vLLM and SGLang", "quantport repair", *fragments)

    def test_a_checkpoint_that_was_quantized_linear_by_linear_gets_a_note(self):
        self.write(llama(self.UNEQUAL))
        result = self.verify()
        self.assert_done(result)
        self.assertIn("weight_scale_2 differs among q_proj, k_proj, v_proj, which vLLM and SGLang load as one: they take one of them",
                      result.stderr)

    def test_they_come_under_the_largest_and_what_it_costs_is_reported(self):
        tensors = llama(self.UNEQUAL)
        self.write(tensors)
        report = self.repaired()
        got, before = read_checkpoint(self.path("out")), read_checkpoint(self.path("in"))
        self.assertEqual(sorted(got), sorted(before))
        for module in SHAPES:
            name = f"{LAYER}.{module}"
            common = 0.5 if module.split(".")[1][0] in "qkv" else 0.375 if module[4:] in ("gate_proj", "up_proj") else 0.25
            self.assertEqual(got[f"{name}.weight_scale_2"][2], f32(common))
            own = struct.unpack("<f", before[f"{name}.weight_scale_2"][2])[0]
            self.assertEqual(got[f"{name}.weight_scale"][2], rescaled(before[f"{name}.weight_scale"][2], own / common, blocks=True))
            for leaf in ("weight", "input_scale"):
                self.assertEqual(got[f"{name}.{leaf}"], before[f"{name}.{leaf}"])
        named = {tensor["name"]: tensor for tensor in report["rescaled"]}
        self.assertEqual(named[f"{LAYER}.self_attn.q_proj.weight_scale"]["changed"], 0)
        key = named[f"{LAYER}.self_attn.k_proj.weight_scale"]
        old, new = before[key["name"]][2], got[key["name"]][2]
        self.assertEqual(key["changed"], sum(decoded(n) != 0.75 * decoded(o) for o, n in zip(old, new)))
        self.assertGreater(key["changed"], 0)
        self.assertLess(key["largest_relative"], 0.5)
        self.assert_done(self.verify("out"))

    def test_in_place_gives_the_same_and_a_second_time_changes_nothing(self):
        for shards in (1, 3):
            with self.subTest(shards=shards):
                self.setUp()
                self.write(llama(self.UNEQUAL), shards=shards)
                want = self.repaired()
                placed = run("repair", self.path("in"), "--in-place", "--json")
                self.assert_done(placed)
                self.assertEqual(read_checkpoint(self.path("in")), read_checkpoint(self.path("out")))
                self.assertEqual(json.loads(placed.stdout)["rescaled"], want["rescaled"])
                again = run("repair", self.path("in"), "--in-place")
                self.assert_done(again)
                self.assertIn("nothing to mend", again.stdout)

    def test_gate_and_up_of_one_expert_and_not_of_two(self):
        config = {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "hidden_size": 64, "num_local_experts": 2,
                  "num_hidden_layers": 1, "vocab_size": 32}
        experts = [f"{LAYER}.block_sparse_moe.experts.{i}.{w}" for i in range(2) for w in ("w1", "w2", "w3")]
        hub = [bf16("model.embed_tokens.weight", 32, 64), bf16(f"{LAYER}.block_sparse_moe.gate.weight", 2, 64)]
        scales = {f"block_sparse_moe.experts.{i}.{w}": (i + 1) * 0.25 for i in range(2) for w in ("w1", "w2", "w3")}
        for unequal in (False, True):
            self.setUp()
            own = scales | ({"block_sparse_moe.experts.1.w3": 0.125} if unequal else {})
            linears = scaled([t for m in experts for t in nvfp4(m, 64, 64)], own)
            write_checkpoint(self.path("in"), config | {"quantization_config": quantization(ignore=["*.gate"])}, hub + linears)
            write_checkpoint(self.path("hub"), config, hub + [bf16(f"{m}.weight", 64, 64) for m in experts])
            result = self.verify()
            if not unequal:
                self.assert_done(result)
                continue
            self.assert_fails(result, "experts.1", "0.5 of w1, 0.125 of w3")
            self.assertEqual({t["name"].rsplit(".", 1)[0] for t in self.repaired()["rescaled"]}, {experts[3], experts[5]})

    def test_reciprocal_scales_of_compressed_tensors(self):
        modules = ("mlp.gate_proj", "mlp.up_proj")
        linears = []
        for module, scale in zip(modules, (2.0, 4.0)):
            weight, blocks, *_ = scaled(nvfp4(f"{LAYER}.{module}", 64, 64), {})
            linears += [(f"{LAYER}.{module}.weight_packed", *weight[1:]), blocks,
                        (f"{LAYER}.{module}.weight_global_scale", "F32", [1], f32(scale))]
        config = {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized", "ignore": ["lm_head"], "config_groups": {
            "group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "float", "group_size": 16, "symmetric": True}}}}
        hub = PLAIN + [bf16(f"{LAYER}.{m}.weight", 64, 64) for m in modules]
        self.write(PLAIN + linears, config, hub=hub)
        self.assertIn("weight_global_scale differs among gate_proj, up_proj", self.verify().stderr)
        self.repaired()
        got = read_checkpoint(self.path("out"))
        self.assertEqual({got[f"{LAYER}.{m}.weight_global_scale"][2] for m in modules}, {f32(2.0)})
        up = f"{LAYER}.mlp.up_proj.weight_scale"
        self.assertEqual(got[up][2], rescaled(read_checkpoint(self.path("in"))[up][2], 0.5, blocks=True))

    def test_what_engines_make_equal_is_a_note(self):
        tensors = [(n, d, s, f32(0.25) if "k_proj.input_scale" in n else b) for n, d, s, b in llama({})]
        self.write(tensors)
        result = self.verify()
        self.assert_done(result)
        self.assertIn("input_scale differs among q_proj, k_proj, v_proj, which vLLM and SGLang load as one: they quantize the input under "
                      "the largest", result.stderr + result.stdout)
        self.setUp()
        linears = [t for m, s in SHAPES.items() for t in fp8(f"{LAYER}.{m}", *s)]
        self.write(PLAIN + scaled(linears, {"mlp.up_proj": 0.5}, leaf="weight_scale"), quantization("FP8"))
        result = self.verify()
        self.assert_done(result)
        self.assertIn("weight_scale differs among gate_proj, up_proj, which vLLM and SGLang load as one: they quantize the weights again",
                      result.stderr + result.stdout)

    def test_scales_that_are_no_numbers_are_refused(self):
        self.write(llama({"mlp.up_proj": float("nan")}))
        self.assert_fails(self.repair(), "mlp.up_proj")
        self.assert_nothing_left("out")


class RestTest(RepairTest):
    def test_an_index_that_is_missing_or_wrong_is_made_anew(self):
        for index in (None, {"metadata": {}, "weight_map": {"gone": "model-00001-of-00002.safetensors"}}, "{"):
            with self.subTest(index=index):
                self.setUp()
                self.write(llama({}), shards=2)
                right = self.config("in", INDEX)
                shutil.copytree(self.path("in"), self.path("place"))
                for name in ("in", "place"):
                    if index is None:
                        os.remove(self.path(f"{name}/{INDEX}"))
                    else:
                        write(self.path(f"{name}/{INDEX}"), index)
                (mended,) = self.repaired()["mended"]
                self.assertIn(f"{INDEX} was {'missing' if index is None else 'wrong'}", mended)
                self.assertEqual(self.config("out", INDEX)["weight_map"], right["weight_map"])
                self.assert_done(run("repair", self.path("place"), "--in-place"))
                self.assertEqual(self.config("place", INDEX)["weight_map"], right["weight_map"])

    def test_a_missing_shard_is_refused(self):
        for with_index in (True, False):
            self.setUp()
            self.write(llama({}), shards=2)
            os.remove(self.path("in/model-00002-of-00002.safetensors"))
            if not with_index:
                os.remove(self.path(f"in/{INDEX}"))
            self.assert_fails(self.repair(), "missing" if with_index else "1 of 2 shards")
            self.assert_nothing_left("out")

    def test_exclude_lists_become_what_the_tensors_are(self):
        """An entry covers quantized modules too, and one that is stored in BF16 is in no list."""
        plain = f"{LAYER}.self_attn.o_proj"
        tensors = [t for t in llama({}) if not t[0].startswith(plain)] + [bf16(f"{plain}.weight", 64, 64)]
        wrong = ["lm_head", f"{LAYER}.mlp*"]
        self.write(tensors, quantization(ignore=wrong), extra={
            "hf_quant_config.json": {"producer": MODELOPT, "quantization": {"quant_algo": "NVFP4", "group_size": 16,
                                                                            "exclude_modules": ["lm_head"]}}})
        self.assert_fails(self.verify(), f"{LAYER}.mlp*", plain)
        report = self.repaired()
        self.assertTrue(any("exclude entry covers" in text for text in report["mended"]), report["mended"])
        for entries in (self.config()["quantization_config"]["ignore"],
                        self.config(file="hf_quant_config.json")["quantization"]["exclude_modules"]):
            self.assertEqual(entries, ["lm_head", plain])
        self.assert_done(self.verify("out"))

    def test_a_group_size_is_the_tensors(self):
        self.write(llama({}), quantization(group_size=32))
        self.assert_fails(self.verify(), "group_size is 32")
        self.repaired()
        self.assertEqual(self.config()["quantization_config"]["group_size"], 16)
        self.assert_done(self.verify("out"))

    def test_what_has_no_one_right_answer_is_refused_by_name(self):
        self.write(llama({}), quantization("FP8", group_size=None))
        self.assert_fails(self.repair(), "the config says FP8", "mend the config by hand")
        self.setUp()
        self.write([t for t in llama({}) if t[0] != f"{LAYER}.mlp.up_proj.weight_scale"])
        self.assert_fails(self.repair(), f"{LAYER}.mlp.up_proj", "weight_scale is missing")
        self.assert_nothing_left("out")

    def test_usage(self):
        self.write(llama({}))
        self.assert_fails(run("repair", self.path("in")), "-o OUT is needed", status=2)
        self.assert_fails(self.repair("--in-place"), "--in-place", status=2)


if __name__ == "__main__":
    unittest.main()
