"""Exclude lists of strangers: what they may cost, and which of their entries are kept."""
import json
import signal
import subprocess
import time
import unittest

from exports import bf16, hf_quant_config, mixtral_config, nvfp4
from program import PROGRAM, ProgramTest, run, write_checkpoint

EXPERTS = [bf16(f"model.layers.{i // 64}.mlp.experts.{i % 64}.{p}.weight", 2, 2) for i in range(300)
           for p in ("gate_proj", "up_proj", "down_proj")]
ENDLESS = "re:(.+)+x$"


def ignored(folder):
    with open(f"{folder}/config.json", encoding="utf-8") as f:
        return json.load(f)["quantization_config"]["ignore"]


class CostTest(ProgramTest):
    def write(self, entries, tensors=EXPERTS):
        write_checkpoint(self.path("in"), mixtral_config(exclude=entries), tensors,
                         extra={"hf_quant_config.json": hf_quant_config(entries)})

    def test_an_entry_that_takes_too_long_is_an_error_that_names_it(self):
        self.write([ENDLESS])
        for command in (["revert", self.path("in"), "-o", self.path("out")], ["verify", self.path("in"), "--reference", self.path("in")],
                        ["dequantize", self.path("in"), "-o", self.path("out")],
                        ["quantize", self.path("in"), "-o", self.path("out"), "--recipe", "w4a16_nvfp4"]):
            result = run(*command)
            self.assert_fails(result, f'config.json: model.layers.0.mlp.experts.0.down_proj: the entry "{ENDLESS}" takes more than')
            self.assert_nothing_left()

    def test_inspect_goes_on_and_says_so(self):
        self.write([ENDLESS])
        result = run("inspect", self.path("in"))
        self.assert_done(result)
        self.assertIn(f'note: config.json: model.layers.0.mlp.experts.0.down_proj: the entry "{ENDLESS}"', result.stderr)

    def test_all_entries_share_one_budget_and_ctrl_c_is_heard_meanwhile(self):
        # Each match stays below the limit of one: together they would take hours.
        self.write([f"re:.*.*.*.*{i}zz" for i in range(20000)])
        process = subprocess.Popen([PROGRAM, "revert", self.path("in"), "-o", self.path("out")], stderr=subprocess.PIPE, text=True)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        self.assertEqual((process.returncode, "interrupted" in errors), (130, True), errors)
        self.assert_nothing_left()


class KeptTest(ProgramTest):
    TENSORS = [bf16("model.layers.0.mlp.gate.weight", 4, 32), *nvfp4("model.layers.0.mlp.experts.0.down_proj", 32, 32)]

    def reverted(self, *entries):
        self.setUp()
        write_checkpoint(self.path("in"), mixtral_config(exclude=entries), self.TENSORS)
        self.assert_done(run("revert", self.path("in"), "-o", self.path("out")))
        return ignored(self.path("out"))

    def test_entries_without_a_module_stay(self):
        self.assertEqual(self.reverted("lm_head", "*router*", "model.vision_tower*", "re:.*audio.*"),
                         ["lm_head", "*router*", "model.vision_tower*", "re:.*audio.*"])

    def test_a_list_in_the_hubs_names_stays(self):
        self.assertEqual(self.reverted("model.layers.0.block_sparse_moe.gate"), ["model.layers.0.block_sparse_moe.gate"])

    def test_a_wildcard_stays_a_wildcard(self):
        self.assertEqual(self.reverted("model.layers.*.mlp.gate"), ["model.layers.*.block_sparse_moe.gate"])
        self.assertEqual(self.reverted("*.experts.*"), ["*.experts.*"])

    def test_what_may_stand_anywhere_tells_no_namespace(self):
        for entries, fine in ((["lm_head", "*shared_expert*"], True), (["re:.*visual.*"], True), (["model.visual*"], False),
                              (["lm_head", "backbone.conv1d._forward_method"], False)):
            with self.subTest(entries):
                self.setUp()
                tensors = [t for t in self.TENSORS if "gate" not in t[0]]
                hub = [bf16("model.layers.0.mlp.experts.0.down_proj.weight", 32, 32)]
                write_checkpoint(self.path("in"), mixtral_config(exclude=entries), tensors)
                write_checkpoint(self.path("hub"), mixtral_config(), hub)
                result = run("verify", self.path("in"), "--reference", self.path("hub"))
                self.assertEqual("they are in another namespace" not in result.stderr, fine, result.stderr)


if __name__ == "__main__":
    unittest.main()
