"""`quantport quantize` on checkpoints that ModelOpt's goldens do not hold: forms, files, defects, options."""
import json
import math
import os
import struct
import unittest

from program import read_checkpoint, run, write
from quantize_case import QuantizeTest, checksum, decoder, f32, to_bf16, weight

EXPERTS, HIDDEN, INNER = 2, 64, 48


class ExpertsTest(QuantizeTest):
    """Experts that are stacked in memory come out one by one, however the hub keeps them."""

    def stacked(self, container, first, config):
        """Quantizes a hub with stacked experts, and the same weights one by one in a class that nothing is known of."""
        rows = 2 * INNER if first == "gate_up_proj" else INNER
        tensors = [weight(f"{container}.{first}", EXPERTS, rows, HIDDEN),
                   weight(f"{container}.down_proj", EXPERTS, HIDDEN, INNER)]
        self.hub(tensors, config)
        return tensors, self.quantized()

    def single(self, name, tensor, expert, begin, rows, columns, peers=()):
        """One matrix as a checkpoint of its own, in linears that share their scale with `peers`."""
        size = tensor[2][1] * columns * 2
        data = tensor[3][expert * size + begin * columns * 2:][:rows * columns * 2]
        return (name, "BF16", [rows, columns], data)

    def assert_experts(self, got, tensors, first, hub):
        gated = first == "gate_up_proj"
        parts = {"gate_proj": 0, "up_proj": INNER} if gated else {"up_proj": 0}
        single = []
        for expert in range(EXPERTS):
            for leaf, begin in parts.items():
                single.append(self.single(f"x.experts.{expert}.{leaf}.weight", tensors[0], expert, begin, INNER, HIDDEN))
            single.append(self.single(f"x.experts.{expert}.down_proj.weight", tensors[1], expert, 0, HIDDEN, INNER))
        self.hub(single, {"architectures": ["NobodyKnowsThis"], "model_type": "nobody"}, name="single")
        want = self.quantized(model="single", out="single-out")
        self.assertEqual(checksum(got), {name.replace("x.experts", hub): value for name, value in checksum(want).items()})

    def test_a_container_with_gates_in_a_known_class(self):
        config = {"architectures": ["GraniteMoeForCausalLM"], "model_type": "granitemoe", "num_hidden_layers": 1}
        block = "model.layers.0.block_sparse_moe"
        tensors = [weight(f"{block}.input_linear.weight", EXPERTS, 2 * INNER, HIDDEN),
                   weight(f"{block}.output_linear.weight", EXPERTS, HIDDEN, INNER)]
        self.hub(tensors, config)
        self.assert_experts(self.quantized(), tensors, "gate_up_proj", f"{block}.experts")

    def test_a_container_with_gates_in_an_unknown_class(self):
        config = {"architectures": ["NobodyKnowsThis"], "model_type": "nobody"}
        tensors, got = self.stacked("model.layers.0.mlp.experts", "gate_up_proj", config)
        self.assert_experts(got, tensors, "gate_up_proj", "model.layers.0.mlp.experts")

    def test_a_container_without_gates_in_an_unknown_class(self):
        config = {"architectures": ["NobodyKnowsThis"], "model_type": "nobody"}
        tensors, got = self.stacked("model.layers.0.mlp.experts", "up_proj", config)
        self.assert_experts(got, tensors, "up_proj", "model.layers.0.mlp.experts")

    def test_experts_without_gates_that_the_hub_has_one_by_one(self):
        config = {"architectures": ["NemotronHForCausalLM"], "model_type": "nemotron_h", "num_hidden_layers": 1}
        mixer = "backbone.layers.0.mixer"
        tensors = [weight(f"{mixer}.gate.weight", EXPERTS, HIDDEN)]
        for expert in range(EXPERTS):
            tensors += [weight(f"{mixer}.experts.{expert}.up_proj.weight", INNER, HIDDEN),
                        weight(f"{mixer}.experts.{expert}.down_proj.weight", HIDDEN, INNER)]
        self.hub(tensors, config)
        result = self.quantize("--json")
        self.assert_done(result)
        containers = [m for m in json.loads(result.stdout)["modules"] if m["kind"] == "experts"]
        self.assertEqual([(m["name"], m["experts"]) for m in containers], [("model.layers.0.mixer.experts", EXPERTS)])
        got = read_checkpoint(self.path("out"))
        for tensor in tensors[1:]:
            self.assertEqual(got[tensor[0]][0], "U8", tensor[0])
        self.assertEqual(got[f"{mixer}.gate.weight"][0], "BF16")

    def test_stacked_experts_that_the_hub_keeps_transposed_are_quantized_along_their_inputs(self):
        config = {"architectures": ["Qwen3VLMoeForConditionalGeneration"], "model_type": "qwen3_vl_moe",
                  "text_config": {"model_type": "qwen3_vl_moe_text", "hidden_size": HIDDEN, "num_hidden_layers": 1},
                  "vision_config": {"model_type": "qwen3_vl_moe"}}
        container = "model.language_model.layers.0.mlp.experts"
        straight = [weight(f"{container}.gate_up_proj", EXPERTS, 2 * INNER, HIDDEN),
                    weight(f"{container}.down_proj", EXPERTS, HIDDEN, INNER)]
        turned = []
        for name, dtype, (experts, rows, columns), data in straight:
            out = bytearray(len(data))
            for e in range(experts):
                for r in range(rows):
                    for c in range(columns):
                        source, target = 2 * ((e * rows + r) * columns + c), 2 * ((e * columns + c) * rows + r)
                        out[target:target + 2] = data[source:source + 2]
            turned.append((name, dtype, [experts, columns, rows], bytes(out)))
        self.hub(turned, config)
        self.assert_experts(self.quantized(), straight, "gate_up_proj", container)


class SharedScaleTest(QuantizeTest):
    def test_fused_linears_share_their_second_scale_and_others_do_not(self):
        self.hub(decoder())
        got = self.quantized()
        scale = {name.split(".")[-2]: data for name, (_, _, data) in got.items() if name.endswith("weight_scale_2")}
        self.assertEqual(scale["q_proj"], scale["k_proj"])
        self.assertEqual(scale["q_proj"], scale["v_proj"])
        self.assertEqual(scale["gate_proj"], scale["up_proj"])
        self.assertEqual(len({scale[name] for name in ("q_proj", "o_proj", "gate_proj", "down_proj")}), 4)

    def test_a_group_over_two_shards_shares_it_too(self):
        tensors = decoder()
        self.hub(tensors)
        self.hub(tensors, name="sharded", shards=3)
        self.assertEqual(checksum(self.quantized()), checksum(self.quantized(model="sharded", out="sharded-out")))
        self.assertIn("model-00003-of-00003.safetensors", os.listdir(self.path("sharded-out")))


class CalibrationTest(QuantizeTest):
    def amax(self, value=2.0, layers=1):
        names = [f"model.layers.{i}.{name}" for i in range(layers) for name in
                 [f"self_attn.{p}_proj" for p in "qkvo"] + ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]]
        return {f"{name}.input_amax": value for name in names}

    def test_static_activations_without_a_calibration_are_refused_with_what_to_take_instead(self):
        self.hub(decoder())
        self.assert_fails(self.quantize(recipe="nvfp4"), "UnsupportedRecipe", "need a calibration", "--calibration FILE",
                          "mxfp8", "nvfp4_weight_only-kv_fp8_cast")
        self.assert_nothing_left()

    def test_what_a_calibration_lacks_is_named(self):
        self.hub(decoder())
        amax = self.amax()
        del amax["model.layers.0.mlp.down_proj.input_amax"]
        self.assert_fails(self.quantize("--calibration", self.calibration(amax), recipe="nvfp4"),
                          "the calibration has no model.layers.0.mlp.down_proj.input_amax")

    def test_an_amax_of_zero_or_nan_is_an_error_of_its_module(self):
        self.hub(decoder())
        for value in (0.0, math.nan, math.inf, -1.0):
            amax = self.amax() | {"model.layers.0.mlp.down_proj.input_amax": value}
            self.assert_fails(self.quantize("--calibration", self.calibration(amax), recipe="nvfp4"),
                              "model.layers.0.mlp.down_proj", "input_amax is")

    def test_a_tensor_that_is_no_amax_is_refused(self):
        self.hub(decoder())
        self.assert_fails(self.quantize("--calibration", self.calibration({"lm_head.weight": 1.0}), recipe="nvfp4"),
                          "lm_head.weight", "<module>.input_amax")

    def test_scales_are_amax_over_the_largest_code(self):
        self.hub(decoder())
        for recipe, largest in (("nvfp4", 2688), ("fp8", 448), ("int8", 127), ("w4a8_nvfp4_fp8", 448)):
            got = self.quantized("--calibration", self.calibration(self.amax(3.0)), recipe=recipe, out=recipe)
            want = struct.pack("<f", 3.0 / largest)
            self.assertEqual(got["model.layers.0.self_attn.q_proj.input_scale"][1:], ([], want), recipe)

    def test_an_amax_next_to_nothing_gives_no_scale_of_zero(self):
        self.hub(decoder())
        got = self.quantized("--calibration", self.calibration(self.amax(1e-44)), recipe="fp8")
        self.assertEqual(got["model.layers.0.self_attn.q_proj.input_scale"][2], struct.pack("<f", 2.0 ** -126 / 448))

    def test_linears_that_share_their_input_get_the_largest_amax_in_nvfp4_alone(self):
        self.hub(decoder())
        amax = self.amax() | {"model.layers.0.self_attn.k_proj.input_amax": 5.0}
        for recipe, shared in (("nvfp4", True), ("fp8", False)):
            got = self.quantized("--calibration", self.calibration(amax), recipe=recipe, out=recipe)
            scale = {p: got[f"model.layers.0.self_attn.{p}_proj.input_scale"][2] for p in "qkvo"}
            self.assertEqual(scale["q"] == scale["k"], shared)
            self.assertNotEqual(scale["o"], scale["k"])

    def test_experts_by_hub_names_that_no_token_reached_get_the_largest_of_the_others(self):
        experts = [weight(f"model.layers.0.mlp.experts.{i}.{p}_proj.weight", 64, 64)
                   for i in range(3) for p in ("gate", "up", "down")]
        self.hub(experts, {"architectures": ["NobodyKnowsThis"], "model_type": "nobody"})
        amax = {f"model.layers.0.mlp.experts.{i}.{p}_proj.input_amax": 1.0 + i
                for i in range(2) for p in ("gate", "up", "down")}
        got = self.quantized("--calibration", self.calibration(amax), recipe="nvfp4")
        scales = [f32(got[f"model.layers.0.mlp.experts.{i}.up_proj.input_scale"][2])[0] for i in range(3)]
        self.assertEqual(scales[2], scales[1])
        self.assertLess(scales[0], scales[1])

    def test_kv_scales_are_written_where_the_recipe_is_static(self):
        self.hub(decoder())
        amax = self.amax() | {"model.layers.0.self_attn.k_amax": 4.48, "model.layers.0.self_attn.v_amax": 8.96}
        got = self.quantized("--calibration", self.calibration(amax), recipe="fp8_default-kv_fp8")
        self.assertAlmostEqual(f32(got["model.layers.0.self_attn.k_proj.k_scale"][2])[0], 0.01, 7)
        self.assertAlmostEqual(f32(got["model.layers.0.self_attn.v_proj.v_scale"][2])[0], 0.02, 7)

    def test_kv_cache_takes_the_place_of_what_the_recipe_says(self):
        self.hub(decoder())
        for kv_cache, algorithm in (("fp8_cast", "FP8"), ("nvfp4_cast", "NVFP4"), ("none", None)):
            self.quantized("--kv-cache", kv_cache, recipe="nvfp4_weight_only-kv_fp8_cast", out=kv_cache)
            with open(f"{self.path(kv_cache)}/hf_quant_config.json", encoding="utf-8") as f:
                self.assertEqual(json.load(f)["quantization"]["kv_cache_quant_algo"], algorithm)


class NumbersTest(QuantizeTest):
    MODULE = "model.layers.0.mlp.down_proj"

    def one(self, values, shape):
        self.hub([(f"{self.MODULE}.weight", "BF16", shape, to_bf16(values))])

    def test_nan_and_infinity_are_refused_by_tensor_and_place(self):
        for value, word in ((math.nan, "NaN"), (math.inf, "infinite")):
            for recipe in ("w4a16_nvfp4", "mxfp8", "int8_weight_only"):
                self.one([1.0] * 70 + [value] + [1.0] * 57, [2, 64])
                self.assert_fails(self.quantize(recipe=recipe), f"{self.MODULE}.weight", f"element [1, 6] is {word}",
                                  "--allow-nonfinite")
                self.assert_nothing_left()

    def test_they_can_be_allowed(self):
        self.one([1.0] * 70 + [math.nan] + [1.0] * 57, [2, 64])
        self.assert_done(self.quantize("--allow-nonfinite", recipe="mxfp8"))

    def test_zeros_get_finite_scales_and_zero_codes(self):
        self.one([0.0] * 128, [2, 64])
        got = self.quantized()
        self.assertEqual(got[f"{self.MODULE}.weight"][2], bytes(64))
        self.assertTrue(f32(got[f"{self.MODULE}.weight_scale_2"][2])[0] > 0)
        self.assertNotIn(0x7F, [b & 0x7F for b in got[f"{self.MODULE}.weight_scale"][2]])

    def test_zeros_get_modelopts_nan_where_that_is_asked_for(self):
        self.one([0.0] * 128, [2, 64])
        got = self.quantized("--bit-exact-zeros")
        self.assertEqual({b & 0x7F for b in got[f"{self.MODULE}.weight_scale"][2]}, {0x7F})
        self.assertEqual(set(got[f"{self.MODULE}.weight"][2]), {0x77})

    def test_arithmetic_decides_the_last_bits_of_scales(self):
        self.hub(decoder())
        recipe = "fp8_per_channel_per_token"
        cpu = self.quantized(recipe=recipe, out="cpu")
        cuda = self.quantized("--arithmetic", "cuda", recipe=recipe, out="cuda")
        self.assertEqual(sorted(cpu), sorted(cuda))
        steps = [abs(a - b) for name in cpu if name.endswith("weight_scale")
                 for (a,), (b,) in zip(struct.iter_unpack("<i", cpu[name][2]), struct.iter_unpack("<i", cuda[name][2]))]
        self.assertEqual(set(steps), {0, 1})

    def test_matrices_without_elements_are_written_without_any(self):
        for recipe in ("w4a16_nvfp4", "mxfp8", "int8_weight_only", "fp8_per_channel_per_token"):
            for shape in ([0, 64], [64, 0]):
                self.hub([(f"{self.MODULE}.weight", "BF16", shape, b""), weight("lm_head.weight", 4, 64)],
                         name=f"{recipe}{shape[0]}")
                got = self.quantized(model=f"{recipe}{shape[0]}", out=f"out-{recipe}-{shape[0]}", recipe=recipe)
                self.assertEqual(got[f"{self.MODULE}.weight"][2], b"")

    def test_half_and_single_precision_are_quantized_too(self):
        values = [((i * 37) % 101 - 50) / 64 for i in range(128)]
        for dtype, code in (("F16", "e"), ("F32", "f")):
            data = b"".join(struct.pack(f"<{code}", v) for v in values)
            self.hub([(f"{self.MODULE}.weight", dtype, [2, 64], data)], name=dtype)
            got = self.quantized(model=dtype, out=f"{dtype}-out")
            self.one(values, [2, 64])
            self.assertEqual(got, self.quantized(out=f"{dtype}-bf16"))

    def test_shapes_that_a_format_has_no_room_for_are_refused(self):
        for recipe, shape, words in (("w4a16_nvfp4", [2, 72], "72 inputs are no multiple of 16"),
                                     ("mxfp8", [2, 48], "48 inputs are no multiple of 32"),
                                     ("int4_blockwise_weight_only", [3, 128], "3 outputs are no multiple of 2"),
                                     ("int4_blockwise_weight_only", [2, 64], "64 inputs are no multiple of 128")):
            self.hub([weight(f"{self.MODULE}.weight", *shape)], name="odd")
            self.assert_fails(self.quantize(model="odd", recipe=recipe), self.MODULE, words)
            self.assert_nothing_left()

    def test_threads_make_no_difference(self):
        self.hub(decoder(2, 256, 2048))
        for recipe in ("w4a16_nvfp4", "fp8_2d_blockwise_weight_only"):
            one = self.quantized("--threads", "1", recipe=recipe, out=f"{recipe}1")
            many = self.quantized("--threads", "16", recipe=recipe, out=f"{recipe}16")
            self.assertEqual(checksum(one), checksum(many))


class SearchTest(QuantizeTest):
    """Static NVFP4: the data-free search for block scales loses no more than their largest magnitudes do."""

    def decibels(self, recipe, out):
        amax = {f"model.layers.0.{name}.input_amax": 1.0 for name in
                [f"self_attn.{p}_proj" for p in "qkvo"] + ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]}
        result = self.quantize("--json", "--calibration", self.calibration(amax), recipe=recipe, out=out)
        self.assert_done(result)
        return json.loads(result.stdout)["totals"][0]["sqnr_db"]

    def test_searched_scales_lose_less(self):
        self.hub(decoder())
        plain = self.decibels("nvfp4", "plain")
        self.assertGreater(self.decibels("nvfp4_w4a4_weight_mse_fp8_sweep", "sweep"), plain)
        self.assertGreater(self.decibels("nvfp4_four_over_six", "four"), plain)

    def recipe(self, algorithm, cfg, name="mse.yaml"):
        write(self.path(name), f"""
metadata: {{recipe_type: ptq, description: a search}}
quantize:
  algorithm: {algorithm}
  quant_cfg:
    - {{quantizer_name: '*', enable: false}}
    - {{quantizer_name: '*mlp*weight_quantizer', cfg: {cfg}}}
""".encode())
        return self.path(name)

    def test_a_scale_of_a_whole_group_does_not_depend_on_stretches_and_threads(self):
        self.hub([weight("model.layers.0.mlp.down_proj.weight", 1024, 2560)])  # two stretches
        recipe = self.recipe("{method: mse}", "{num_bits: e4m3}")
        one = self.quantized("--threads", "1", recipe=recipe, out="one")
        self.assertEqual(checksum(one), checksum(self.quantized("--threads", "5", recipe=recipe, out="many")))
        plain = self.quantized(recipe=self.recipe("{method: max}", "{num_bits: e4m3}", "max.yaml"), out="max")
        name = "model.layers.0.mlp.down_proj.weight_scale"
        self.assertNotEqual(f32(one[name][2]), f32(plain[name][2]))

    def test_a_sweep_leaves_what_is_not_nvfp4_at_its_largest_magnitude(self):
        self.hub(decoder())
        mxfp4 = "{num_bits: e2m1, block_sizes: {-1: 32, scale_bits: e8m0, type: dynamic}}"
        for cfg in ("{num_bits: e4m3}", "{num_bits: 8, axis: 0}", mxfp4):
            swept = self.quantized(recipe=self.recipe("{method: mse, fp8_scale_sweep: true}", cfg), out=f"swept{len(cfg)}")
            plain = self.quantized(recipe=self.recipe("{method: max}", cfg), out=f"plain{len(cfg)}")
            self.assertEqual(checksum(swept), checksum(plain))

    def test_a_search_that_is_not_computed_is_refused(self):
        self.hub(decoder())
        nvfp4 = "{num_bits: e2m1, block_sizes: {-1: 16, scale_bits: e4m3, type: dynamic}}"
        self.assert_fails(self.quantize(recipe=self.recipe("{method: mse}", nvfp4)), "mse is not computed for w4a16_nvfp4",
                          "block scales are dynamic")
        for options in ("step_size: 1.0e-9", "step_size: 0", "start_multiplier: 4, stop_multiplier: 1"):
            self.assert_fails(self.quantize(recipe=self.recipe(f"{{method: mse, {options}}}", "{num_bits: 8, axis: 0}")),
                              "mse is not computed with these multipliers")
        self.assert_nothing_left()


class InputTest(QuantizeTest):
    def test_fine_grained_fp8_is_dequantized_on_the_way_in(self):
        """And what the recipe leaves alone comes out in BF16, since no config describes two quantizations."""
        config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 1,
                  "torch_dtype": "bfloat16", "quantization_config": {
                      "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
                      "weight_block_size": [128, 128]}}
        tensors = []
        for name in ("mlp.down_proj", "mlp.gate_proj", "self_attn.o_proj"):
            module = f"model.layers.0.{name}"
            codes = bytes(b if b & 0x7F != 0x7F else 0x3C for b in weight(module, 160, 64)[3])
            scales = b"".join(struct.pack("<f", 0.001 * (i + 1)) for i in range(2))
            tensors += [(f"{module}.weight", "F8_E4M3", [160, 128], codes),
                        (f"{module}.weight_scale_inv", "F32", [2, 1], scales)]
        tensors.append(weight("model.norm.weight", 128))
        self.hub(tensors, config)
        self.assert_done(run("dequantize", self.path("hub"), "-o", self.path("plain")))
        plain = read_checkpoint(self.path("plain"))
        self.assertEqual({name: value[0] for name, value in plain.items()},
                         {name: "BF16" for name, *_ in tensors if not name.endswith("_inv")})
        with open(f"{self.path('plain')}/config.json", encoding="utf-8") as f:
            self.assertNotIn("quantization_config", json.load(f))
        recipe = "nvfp4_mlp_weight_only"
        direct = self.quantized(recipe=recipe)
        self.assertEqual(checksum(direct), checksum(self.quantized(model="plain", out="twice", recipe=recipe)))
        self.assertEqual(direct["model.layers.0.self_attn.o_proj.weight"],
                         plain["model.layers.0.self_attn.o_proj.weight"])
        with open(f"{self.path('out')}/config.json", encoding="utf-8") as f:
            self.assertEqual(json.load(f)["quantization_config"]["quant_method"], "modelopt")

    def test_an_unknown_class_is_quantized_by_its_own_names_with_a_warning(self):
        tensors = decoder()
        self.hub(tensors)
        self.hub(tensors, {"architectures": ["NobodyKnowsThis"], "model_type": "nobody"}, name="unknown")
        result = self.quantize(model="unknown", out="unknown-out")
        self.assert_done(result)
        self.assertIn("the recipe is matched against the checkpoint's own names", result.stderr)
        self.assertEqual(checksum(read_checkpoint(self.path("unknown-out"))), checksum(self.quantized()))

    def test_what_a_recipe_leaves_alone_keeps_its_bytes(self):
        tensors = decoder() + [("model.layers.0.mlp.gate_proj.bias", "BF16", [256], bytes(512))]
        self.hub(tensors)
        got = self.quantized()
        for name in ("lm_head.weight", "model.embed_tokens.weight", "model.norm.weight",
                     "model.layers.0.mlp.gate_proj.bias"):
            self.assertEqual(got[name][2], dict((t[0], t[3]) for t in tensors)[name], name)

    def test_other_files_come_along(self):
        self.hub(decoder(), extra={"tokenizer.json": {"a": 1}, "notes/readme.txt": b"text"})
        self.quantized()
        self.assertTrue(os.path.exists(f"{self.path('out')}/tokenizer.json"))

    def test_shards_can_be_cut_anew(self):
        self.hub(decoder(3))
        whole = self.quantized()
        cut = self.quantized("--max-shard-size", "100kB", out="cut")
        self.assertEqual(checksum(whole), checksum(cut))
        files = [f for f in os.listdir(self.path("cut")) if f.endswith(".safetensors")]
        self.assertGreater(len(files), 1)
        with open(f"{self.path('cut')}/model.safetensors.index.json", encoding="utf-8") as f:
            self.assertEqual(set(json.load(f)["weight_map"]), set(cut))


class CommandTest(QuantizeTest):
    def test_a_recipe_is_needed(self):
        self.hub(decoder())
        self.assert_fails(run("quantize", self.path("hub"), "-o", self.path("out")), "--recipe", status=2)

    def test_an_output_is_needed(self):
        self.hub(decoder())
        self.assert_fails(run("quantize", self.path("hub"), "--recipe", "mxfp8"), "-o OUT", status=2)

    def test_an_output_that_is_there_is_left_alone(self):
        self.hub(decoder())
        write(f"{self.path('out')}/mine", b"x")
        self.assert_fails(self.quantize(), "OutputExists")
        self.assertEqual(os.listdir(self.path("out")), ["mine"])

    def test_an_unknown_recipe_is_an_error(self):
        self.hub(decoder())
        self.assert_fails(self.quantize(recipe="nvfp5"), "nvfp5")

    def test_a_recipe_whose_algorithm_needs_activations_is_refused_with_the_reason(self):
        self.hub(decoder())
        for recipe in ("nvfp4_awq_lite", "int8_smoothquant"):
            self.assert_fails(self.quantize(recipe=recipe), "UnsupportedRecipe", "needs activations")

    def test_a_recipe_file_of_ones_own(self):
        write(self.path("mine.yaml"), b"""
imports: {mxfp8: configs/numerics/mxfp8}
metadata: {recipe_type: ptq, description: MLPs in MXFP8}
quantize:
  algorithm: max
  quant_cfg:
    - {quantizer_name: '*', enable: false}
    - {quantizer_name: '*mlp*weight_quantizer', cfg: {$import: mxfp8}}
    - {quantizer_name: '*mlp*input_quantizer', cfg: {$import: mxfp8}}
""")
        self.hub(decoder())
        for recipe, more in ((self.path("mine.yaml"), ()), ("mine", ("--recipe-path", self.folder))):
            out = f"out{len(more)}"
            got = self.quantized(*more, recipe=recipe, out=out)
            self.assertEqual(got["model.layers.0.mlp.up_proj.weight_scale"][:2], ("U8", [256, 4]))
            self.assertEqual(got["model.layers.0.self_attn.q_proj.weight"][0], "BF16")

    def test_plan_names_every_module_with_its_format_and_writes_nothing(self):
        self.hub(decoder())
        result = run("quantize", self.path("hub"), "--plan", "--recipe", "nvfp4_mlp_only-kv_fp8_cast", "--calibration",
                     self.calibration({f"model.layers.0.mlp.{p}_proj.input_amax": 1.0 for p in ("gate", "up", "down")}))
        self.assert_done(result)
        lines = {line.split()[1]: line.split()[0] for line in result.stdout.splitlines() if "." in line}
        self.assertEqual(lines["model.layers.0.mlp.down_proj"], "nvfp4/16")
        self.assertEqual(lines["model.layers.0.self_attn.q_proj"], "-")
        self.assertIn("KV cache: FP8", result.stdout)
        self.assertEqual(sorted(os.listdir(self.folder)), ["amax.safetensors", "hub"])

    def test_recipes_are_listed_with_what_they_do_and_what_is_refused(self):
        result = run("quantize", "--list-recipes")
        self.assert_done(result)
        for name in ("fp8_default-kv_fp8_cast", "nvfp4_experts_only-kv_fp8_cast", "mxfp4_mlp_weight_only", "w4a16_nvfp4"):
            self.assertRegex(result.stdout, rf"(?m)^  {name} +\w")
        self.assertRegex(result.stdout, r"nvfp4_awq_lite .*refused: ")
        listed = json.loads(run("quantize", "--list-recipes", "--json").stdout)
        self.assertIn("fp8_cast", [kv["name"] for kv in listed["kv_caches"]])

    def test_the_report_has_every_weight_worst_first(self):
        self.hub(decoder())
        result = self.quantize("--json")
        self.assert_done(result)
        report = json.loads(result.stdout)
        self.assertEqual(len(report["weights"]), 7)
        decibels = [w["sqnr_db"] for w in report["weights"]]
        self.assertEqual(decibels, sorted(decibels))
        self.assertEqual(report["totals"][0]["weights"], 7)
        total = report["totals"][0]
        self.assertEqual(total["bytes_before"], sum(w["bytes_before"] for w in report["weights"]))
        got = read_checkpoint(self.path("out"))
        after = sum(len(data) for name, (_, _, data) in got.items() if "layers" in name)
        self.assertEqual(total["bytes_after"], after)


if __name__ == "__main__":
    unittest.main()
