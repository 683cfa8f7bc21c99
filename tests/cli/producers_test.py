"""Per-module settings and second config files of other producers: reverted by meaning, and gone with what they describe."""
import json
import os
import unittest

from exports import bf16, tensor
from program import ProgramTest, run, write_checkpoint

MIXTRAL = {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "hidden_size": 128, "intermediate_size": 64,
           "num_hidden_layers": 2, "num_local_experts": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64,
           "vocab_size": 32, "dtype": "bfloat16"}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 64, "desc_act": False, "sym": True, "lm_head": False}
SECOND_FILES = ("quantize_config.json", "quantization_config.json", "quant_config.json")


def gptq(module, out, inner, group_size, bits=4):
    order = b"".join((i // group_size).to_bytes(4, "little") for i in range(inner))
    return [tensor(f"{module}.qweight", "I32", [inner * bits // 32, out]),
            tensor(f"{module}.qzeros", "I32", [inner // group_size, out * bits // 32]),
            tensor(f"{module}.scales", "F16", [inner // group_size, out]), (f"{module}.g_idx", "I32", [inner], order)]


def experts(layer, group_size, bits=4):
    linears = {"gate_proj": (64, 128), "up_proj": (64, 128), "down_proj": (128, 64)}
    return [t for e in range(2) for leaf, shape in linears.items()
            for t in gptq(f"model.layers.{layer}.mlp.experts.{e}.{leaf}", *shape, group_size, bits)]


GATES = [bf16(f"model.layers.{layer}.mlp.gate.weight", 2, 128) for layer in range(2)]
TENSORS = [*GATES, *experts(0, 64), *experts(1, 32)]


def read(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


class ProducersTest(ProgramTest):
    def write(self, quantization, tensors=None, **extra):
        write_checkpoint(self.path("in"), MIXTRAL | {"quantization_config": quantization}, tensors or TENSORS,
                         extra={f"{name}.json": content for name, content in extra.items()})

    def test_settings_are_in_the_hubs_names_and_mean_the_same(self):
        dynamic = {"-:.*mlp\\.gate$": {}, r"+:^model\.layers\.1\.mlp\.experts\.[0-9]+\.(gate|up|down)_proj$": {"group_size": 32}}
        extra = {f"model.layers.1.mlp.experts.{e}.{p}": {"group_size": 32} for e in range(2)
                 for p in ("gate_proj", "up_proj", "down_proj")}
        auto_round = GPTQ | {"quant_method": "auto-round", "packing_format": "auto_round:auto_gptq", "data_type": "int",
                             "block_name_to_quantize": "model.layers"}
        auto_round["extra_config"] = {"model.layers.0.mlp.gate": {"bits": 16}, "model.layers.1.mlp.gate": {"bits": 16}} | extra
        hub = r"^model\.layers\.1\.block_sparse_moe\.experts\..*"
        want = {"gptq": {"dynamic": {r"-:^model\.layers\.\d+\.block_sparse_moe\.gate$": {}, f"+:{hub}": {"group_size": 32}}},
                "auto-round": {"extra_config": {f"model.layers.{layer}.block_sparse_moe.gate": {"bits": 16} for layer in range(2)}
                               | {f"model.layers.1.block_sparse_moe.experts.{e}.{w}": {"group_size": 32} for e in range(2)
                                  for w in ("w1", "w3", "w2")}}}
        for config in (GPTQ | {"dynamic": dynamic}, auto_round):
            with self.subTest(config["quant_method"]):
                self.setUp()
                self.write(config)
                self.assert_done(run("revert", self.path("in"), "-o", self.path("out")))
                got = read(self.path("out/config.json"))["quantization_config"]
                self.assertEqual(got, config | want[config["quant_method"]])
                # The tensors agree with what it says now.
                inspected = run("inspect", self.path("out"), "--json")
                self.assertEqual(json.loads(inspected.stdout)["warnings"], [])

    def test_what_a_gptq_block_quantizes(self):
        blocks = [["mlp.experts.0.gate_proj", "mlp.experts.0.up_proj"], ["mlp.experts.0.down_proj"]]
        tensors = GATES + [t for t in experts(0, 64) + experts(1, 64) if ".experts.0." in t[0]]
        self.write(GPTQ | {"modules_in_block_to_quantize": blocks}, tensors)
        self.assert_done(run("revert", self.path("in"), "-o", self.path("out")))
        self.assertEqual(read(self.path("out/config.json"))["quantization_config"]["modules_in_block_to_quantize"],
                         [["block_sparse_moe.experts.0.w1", "block_sparse_moe.experts.0.w3"], ["block_sparse_moe.experts.0.w2"]])

    def test_second_files_are_reverted_too(self):
        config = GPTQ | {"dynamic": {r"+:.*\.1\.mlp\.experts\..*": {"group_size": 32}}}
        for name in SECOND_FILES:
            with self.subTest(name):
                self.setUp()
                self.write(config, **{name.removesuffix(".json"): config})
                self.assert_done(run("revert", self.path("in"), "-o", self.path("out")))
                self.assertEqual(read(self.path(f"out/{name}")), read(self.path("out/config.json"))["quantization_config"])
                self.assertIn("block_sparse_moe", json.dumps(read(self.path(f"out/{name}"))))

    def test_a_second_file_that_contradicts_the_tensors_is_found(self):
        self.write(GPTQ | {"dynamic": {r"+:.*layers\.1\..*": {"group_size": 32}}}, quantization_config=GPTQ | {"bits": 8})
        result = run("verify", self.path("in"), "--reference", self.path("in"))
        self.assert_fails(result, "quantization_config.json: model.layers.0.mlp.experts.0.down_proj.weight: the config says 8 bits")

    def test_second_files_go_with_what_they_describe(self):
        for name in SECOND_FILES:
            for command in (["dequantize"], ["quantize", "--recipe", "w4a16_nvfp4", "--allow-nonfinite"]):
                # One that says too little to be a claim is as stale as any.
                for content in (GPTQ, {"bits": 4}):
                    with self.subTest(name, command=command[0], content=content):
                        self.setUp()
                        self.write(GPTQ | {"dynamic": {r"+:.*layers\.1\..*": {"group_size": 32}}}, **{name.removesuffix(".json"): content})
                        if content is GPTQ:  # it says what is true of the first layer alone
                            self.write(GPTQ, [*GATES, *experts(0, 64), *experts(1, 64)], **{name.removesuffix(".json"): content})
                        self.assert_done(run(command[0], self.path("in"), "-o", self.path("out"), *command[1:]))
                        self.assertFalse(os.path.exists(self.path(f"out/{name}")))


if __name__ == "__main__":
    unittest.main()
