"""What configs claim of modules is held against the tensors, both ways, and each command says what that means to it."""
import json
import os
import unittest

from exports import MODELOPT, bf16, fp8, nvfp4, tensor
from program import ProgramTest, run, write, write_checkpoint

LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 128, "intermediate_size": 64, "num_hidden_layers": 2,
         "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64, "vocab_size": 32}
UP, DOWN, O = "model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj", "model.layers.1.self_attn.o_proj"
PLAIN = [bf16("model.embed_tokens.weight", 32, 128), bf16("lm_head.weight", 32, 128), bf16("model.norm.weight", 128)]
SHAPES = {UP: (64, 128), DOWN: (128, 64), O: (128, 128)}
HUB = PLAIN + [bf16(f"{m}.weight", *s) for m, s in SHAPES.items()]


def modelopt(algorithm="NVFP4", ignore=("lm_head",), **more):
    return {"quant_method": "modelopt", "quant_algo": algorithm, "ignore": list(ignore), "producer": MODELOPT} | more


def compressed(targets, ignore=("lm_head",), group_size=16, bits=4):
    weights = {"num_bits": bits, "type": "float", "group_size": group_size, "symmetric": True}
    return {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized", "ignore": list(ignore),
            "config_groups": {"group_0": {"targets": targets, "weights": weights}}}


def packed(module):
    out, inner = SHAPES[module]
    return [tensor(f"{module}.weight_packed", "U8", [out, inner // 2]),
            tensor(f"{module}.weight_scale", "F8_E4M3", [out, inner // 16]),
            tensor(f"{module}.weight_global_scale", "F32", [1])]


def all_nvfp4(*plain):
    """Every linear in NVFP4 but those."""
    return PLAIN + [t for m, s in SHAPES.items() for t in ([bf16(f"{m}.weight", *s)] if m in plain else nvfp4(m, *s))]


class ClaimsTest(ProgramTest):
    def write(self, quantization, tensors, hub=HUB, **extra):
        self.setUp()
        write_checkpoint(self.path("in"), LLAMA | {"quantization_config": quantization}, tensors, extra=extra or None)
        write_checkpoint(self.path("hub"), LLAMA, hub)

    def verify(self):
        return run("verify", self.path("in"), "--reference", self.path("hub"))

    def warnings(self, *arguments):
        result = run(*arguments, "--json")
        self.assert_done(result)
        return json.loads(result.stdout)["warnings"]

    def assert_difference(self, kind, fragment, reads_bytes):
        """A problem in verify, a warning where names move, and an error or a warning where bytes are read."""
        result = self.verify()
        self.assert_fails(result, fragment)
        for command in (["inspect", self.path("in")], ["revert", self.path("in"), "-o", self.path("reverted")],
                        ["apply", self.path("in"), "-o", self.path("applied")]):
            self.assertIn(kind, [w["id"] for w in self.warnings(*command)], command)
        dequantized = run("dequantize", self.path("in"), "-o", self.path("plain"), "--json")
        if reads_bytes:
            self.assert_fails(dequantized, fragment)
            self.assertFalse(os.path.exists(self.path("plain")))
        else:
            self.assert_done(dequantized)
            self.assertIn(kind, [w["id"] for w in json.loads(dequantized.stdout)["warnings"]])

    def accept(self, quantization, tensors, **extra):
        self.write(quantization, tensors, **extra)
        self.assert_done(self.verify())
        self.assertEqual(self.warnings("inspect", self.path("in")), [])

    def test_a_matrix_that_the_scheme_covers_and_that_is_stored_plain(self):
        self.write(modelopt(), all_nvfp4(O))
        self.assert_difference("config-stored-plain", f"{O}: the config's NVFP4 covers this module, which is stored as BF16", False)
        self.accept(modelopt(ignore=["lm_head", "model.layers.1.*"]), all_nvfp4(O))

    def test_scales_of_groups_where_the_config_says_one_for_each_row(self):
        for strategy, groups, right in (("channel", 1, True), ("channel", 2, False), ("tensor", 2, False), ("group", 2, True)):
            weights = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": strategy}
            weights |= {"group_size": 64} if strategy == "group" else {}
            config = {"quant_method": "compressed-tensors", "format": "int-quantized", "ignore": ["lm_head"],
                      "config_groups": {"group_0": {"targets": [f"re:.*{UP}"], "weights": weights}}}
            int8 = [tensor(f"{UP}.weight", "I8", [64, 128]), tensor(f"{UP}.weight_scale", "F32", [64, groups])]
            tensors = PLAIN + int8 + [bf16(f"{m}.weight", *SHAPES[m]) for m in (DOWN, O)]
            with self.subTest(strategy=strategy, groups=groups):
                self.write(config, tensors)
                if right:
                    self.assert_done(self.verify())
                else:
                    self.assert_difference("config-group-size", "the config says one scale for a row or more, but weight_scale "
                                           "has one for 64 values", True)

    def test_one_scale_for_each_row_where_the_config_says_groups(self):
        int4 = [tensor(f"{DOWN}.weight", "U8", [64, 129]), tensor(f"{DOWN}.weight_scale", "F32", [128, 1])]
        tensors = PLAIN + int4 + [bf16(f"{m}.weight", *SHAPES[m]) for m in (UP, O)]
        hub = PLAIN + [bf16(f"{DOWN}.weight", 128, 129), *(bf16(f"{m}.weight", *SHAPES[m]) for m in (UP, O))]
        layers = {DOWN: {"quant_algo": "W4A16_AWQ", "group_size": 128}}
        self.write(modelopt("MIXED_PRECISION", quantized_layers=layers), tensors, hub=hub)
        self.assert_difference("config-group-size", "group_size is 128, but weight_scale has one scale for 129 values", True)

    def test_a_warning_counts_and_names_its_modules(self):
        self.write(modelopt(), all_nvfp4(O, UP))
        self.assertEqual([(w["id"], w["count"], w["names"]) for w in self.warnings("inspect", self.path("in"))],
                         [("config-stored-plain", 2, [UP, O])])
        result = run("inspect", self.path("in"))
        self.assertRegex(result.stderr, f"warning: config.json: modules are stored unquantized that the config says are quantized.*{UP}, {O}")

    def test_a_container_of_experts_is_one_module(self):
        experts = [tensor(f"model.layers.0.mlp.experts.{name}", "BF16", [2, *shape])
                   for name, shape in (("gate_up_proj", (64, 128)), ("down_proj", (128, 32)))]
        self.write(modelopt(), all_nvfp4() + experts, hub=HUB + experts)
        self.assertEqual([(w["id"], w["count"], w["names"]) for w in self.warnings("inspect", self.path("in"))],
                         [("config-stored-plain", 1, ["model.layers.0.mlp.experts"])])

    def test_a_convolution_is_a_matrix_to_modelopt(self):
        conv = [bf16("model.layers.0.mixer.conv1d.weight", 16, 1, 4)]
        self.write(modelopt(), all_nvfp4() + conv, hub=HUB + conv)
        self.assert_fails(self.verify(), "model.layers.0.mixer.conv1d: the config's NVFP4 covers this module")
        self.write(compressed(["Linear"]), PLAIN + [t for m in SHAPES for t in packed(m)] + conv, hub=HUB + conv)
        self.assert_done(self.verify())

    def test_routers_heads_towers_and_norms_need_no_entry(self):
        more = [bf16("model.layers.0.mlp.gate.weight", 4, 128), bf16("vision_tower.blocks.0.qkv.weight", 32, 32),
                bf16("model.layers.2.eh_proj.weight", 128, 256), bf16("model.layers.0.self_attn.q_norm.weight", 2, 64)]
        self.write(modelopt(ignore=[]), all_nvfp4() + more, hub=HUB + more)
        self.assert_done(self.verify())

    def test_a_quantized_module_that_is_excluded(self):
        self.write(modelopt(ignore=["lm_head", "*.o_proj"]), all_nvfp4())
        self.assert_difference("config-excluded", f'{O}: the exclude entry "*.o_proj" covers this module', True)

    def test_a_quantized_module_that_no_target_names(self):
        tensors = PLAIN + [t for m in SHAPES for t in packed(m)]
        self.write(compressed(["re:.*mlp\\..*"]), tensors)
        self.assert_difference("config-not-claimed", f"{O}: its tensors are quantized, but no target", True)
        self.accept(compressed(["re:.*mlp\\..*", O]), tensors)

    def test_a_quantized_module_that_no_layer_of_mixed_precision_names(self):
        layers = {m: {"quant_algo": "NVFP4", "group_size": 16} for m in (UP, DOWN)}
        self.write(modelopt("MIXED_PRECISION", quantized_layers=layers), all_nvfp4())
        self.assert_difference("config-not-claimed", f"{O}: its tensors are quantized", True)
        self.accept(modelopt("MIXED_PRECISION", quantized_layers=layers), all_nvfp4(O))

    def test_a_layer_that_is_named_and_not_quantized(self):
        layers = {m: {"quant_algo": "NVFP4", "group_size": 16} for m in SHAPES}
        self.write(modelopt("MIXED_PRECISION", quantized_layers=layers), all_nvfp4(O))
        self.assert_difference("config-stored-plain", f'"{O}" of the config says that this module is quantized', False)

    def test_another_format(self):
        self.write(modelopt(), PLAIN + [t for m, s in SHAPES.items() for t in fp8(m, *s)])
        self.assert_difference("config-format", "the config says NVFP4, the tensors are FP8", True)

    def test_another_group_size(self):
        self.write(modelopt(group_size=32), all_nvfp4())
        self.assert_difference("config-group-size", "group_size is 32, but weight_scale has one scale for 16 values", True)

    def test_another_width(self):
        words = [tensor(f"{UP}.qweight", "I32", [16, 64]), tensor(f"{UP}.qzeros", "I32", [2, 8]),
                 tensor(f"{UP}.scales", "F16", [2, 64]), tensor(f"{UP}.g_idx", "I32", [128])]
        gptq = {"quant_method": "gptq", "bits": 8, "group_size": 64, "desc_act": False, "modules_in_block_to_quantize": [["mlp.up_proj"]]}
        tensors = [t for t in HUB if not t[0].startswith(UP)] + words
        self.write(gptq, tensors)
        self.assert_fails(self.verify(), "the config says 8 bits, the tensors hold values of 4")
        self.accept(gptq | {"dynamic": {"+:.*up_proj": {"bits": 4}}}, tensors)

    def test_config_files_that_disagree(self):
        other = {"quantization": {"quant_algo": "NVFP4", "group_size": 16, "exclude_modules": ["lm_head"]}}
        self.write(modelopt(ignore=["lm_head", "model.layers.1.*"]), all_nvfp4(O), **{"hf_quant_config.json": other})
        self.assert_difference("config-files-disagree", "config.json and hf_quant_config.json exclude different modules, 1 of them", False)

    def test_an_exclude_list_in_another_namespace(self):
        self.write(modelopt(ignore=["language_model.model.layers.1.self_attn.o_proj"]), all_nvfp4())
        self.assert_difference("config-namespace", "none of the 1 exclude entries matches any module", False)

    def test_entries_without_a_module_are_noted(self):
        self.write(modelopt(ignore=["lm_head", "*router*", "re:.*audio.*"]), all_nvfp4())
        result = self.verify()
        self.assert_done(result)
        self.assertRegex(result.stderr, r"note: config.json: exclude entries that match no module.*\*router\*, re:\.\*audio")

    def test_a_tied_output_head_may_be_excluded(self):
        tied = [t for t in all_nvfp4() if not t[0].startswith("lm_head")]
        self.write(modelopt(), tied, hub=[t for t in HUB if not t[0].startswith("lm_head")])
        result = self.verify()
        self.assert_done(result)
        self.assertEqual(result.stderr, "")

    def test_quantize_stops_where_it_would_misread(self):
        self.write(modelopt(group_size=32), all_nvfp4())
        result = run("quantize", self.path("in"), "-o", self.path("out"), "--recipe", "w4a16_nvfp4")
        self.assert_fails(result, "group_size is 32")
        self.assertFalse(os.path.exists(self.path("out")))


if __name__ == "__main__":
    unittest.main()
