"""safetensors files beside a checkpoint that are none of its shards: adapters, projectors, strays."""
import json
import os
import unittest

from exports import bf16
from program import ProgramTest, read_checkpoint, read_file, run, safetensors, write, write_checkpoint

CONFIG = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 128, "dtype": "bfloat16"}
MAIN = [(f"model.layers.0.mlp.{name}_proj.weight", "BF16", shape, b"\x80\x3f" * (64 * 128)) for name, shape in
        (("gate", [64, 128]), ("up", [64, 128]), ("down", [128, 64]))]
ADAPTER = [bf16("base_model.model.model.layers.0.mlp.gate_proj.lora_A.weight", 8, 128)]
COMMANDS = (["revert"], ["apply"], ["quantize", "--recipe", "w4a16_nvfp4"], ["dequantize"])


class OtherFilesTest(ProgramTest):
    def setUp(self):
        super().setUp()
        write_checkpoint(self.path("in"), CONFIG, MAIN, shards=2)
        write(self.path("in/adapter_model.safetensors"), safetensors(ADAPTER))

    def test_they_are_left_out_and_named_however_quiet_the_run_is(self):
        for i, (command, *more) in enumerate(COMMANDS):
            for quiet in ([], ["-q"]):
                out = self.path(f"{i}{len(quiet)}")
                result = run(command, self.path("in"), "-o", out, *more, *quiet)
                self.assert_done(result)
                self.assertIn("note: adapter_model.safetensors is left out", result.stderr, command)
                self.assertFalse(os.path.exists(f"{out}/adapter_model.safetensors"))
            report = run(command, self.path("in"), "-o", self.path(f"{i}json"), *more, "--json")
            self.assertEqual(json.loads(report.stdout)["left_out"], ["adapter_model.safetensors"])

    def test_they_go_along_where_that_is_asked_for(self):
        for i, (command, *more) in enumerate(COMMANDS):
            out = self.path(str(i))
            result = run(command, self.path("in"), "-o", out, *more, "--all-files")
            self.assert_done(result)
            self.assertNotIn("left out", result.stderr)
            self.assertEqual(read_file(f"{out}/adapter_model.safetensors"), read_file(self.path("in/adapter_model.safetensors")))
            with open(f"{out}/model.safetensors.index.json", encoding="utf-8") as f:
                self.assertNotIn(ADAPTER[0][0], json.load(f)["weight_map"])

    def test_a_change_in_place_leaves_them_where_they_are(self):
        result = run("revert", self.path("in"), "--in-place", "-q")
        self.assert_done(result)
        self.assertEqual(result.stderr, "")
        self.assertIn(ADAPTER[0][0], read_checkpoint(self.path("in")))


if __name__ == "__main__":
    unittest.main()
