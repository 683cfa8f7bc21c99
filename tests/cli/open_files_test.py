"""Checkpoints of more shards than a process may have files open, which is 1024 or 256 on many systems."""
import os
import resource
import unittest

import faults
from exports import bf16, mixtral_config, nvfp4
from program import ProgramTest, read_checkpoint, run, write_checkpoint
from quantize_case import WEIGHT_ONLY, decoder, llama_config

SHARDS = 200
LIMIT = 64


def export():
    """A weight's scales lie in other shards, and some weights are large enough for transfers past the page cache."""
    tensors = []
    for layer in range(SHARDS // 5):
        rows = 512 if layer % 10 == 0 else 16
        tensors += [*nvfp4(f"model.layers.{layer}.self_attn.q_proj", rows, 512), bf16(f"model.layers.{layer}.mlp.gate.weight", 2, 64)]
    return tensors


class OpenFilesTest(ProgramTest):
    def setUp(self):
        super().setUp()
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, before[1]))

    def assert_shards(self, name):
        self.assertEqual(sum(file.endswith(".safetensors") for file in os.listdir(self.path(name))), SHARDS)

    def test_every_way_to_revert_and_to_look_at_the_result(self):
        write_checkpoint(self.path("in"), mixtral_config(), export(), SHARDS)
        self.assert_done(run("revert", self.path("in"), "-o", self.path("out")))
        self.assert_shards("out")
        got = read_checkpoint(self.path("out"))
        self.assertEqual(sum(name.endswith("block_sparse_moe.gate.weight") for name in got), SHARDS // 5)
        self.assert_done(run("diff", "--map", self.path("in"), self.path("out")))
        self.assert_done(run("verify", self.path("out"), "--reference", self.path("out")))
        self.assert_done(run("inspect", self.path("out")))
        self.assert_done(run("apply", self.path("out"), "-o", self.path("applied")))
        self.assertEqual(read_checkpoint(self.path("applied")), read_checkpoint(self.path("in")))
        self.assert_done(run("revert", self.path("in"), "--in-place"))
        self.assertEqual(read_checkpoint(self.path("in")), got)

    def test_quantizing_and_dequantizing(self):
        write_checkpoint(self.path("hub"), llama_config(), decoder(layers=29)[:SHARDS], SHARDS)
        self.assert_done(run("quantize", self.path("hub"), "-o", self.path("out"), "--recipe", WEIGHT_ONLY))
        self.assert_shards("out")
        self.assert_done(run("verify", self.path("out"), "--reference", self.path("hub")))
        self.assert_done(run("dequantize", self.path("out"), "-o", self.path("back")))
        self.assertEqual(sorted(read_checkpoint(self.path("back"))), sorted(read_checkpoint(self.path("hub"))))

    @faults.needs_shim
    def test_a_write_that_is_lost_before_a_file_is_closed_to_make_room_is_an_error(self):
        write_checkpoint(self.path("in"), mixtral_config(), export(), SHARDS)
        shard = f"model-00001-of-{SHARDS:05d}.safetensors"
        command = ["revert", self.path("in"), "-o", self.path("out"), "--reflink", "never"]
        synced = [call.path for call in faults.calls_of(*command) if call.name == "fsync"]
        self.assertLess(synced.index(next(path for path in synced if path.endswith(shard))), SHARDS // 2)
        os.rename(self.path("out"), self.path("whole"))
        self.assert_fails(run(*command, env={"LD_PRELOAD": faults.SHIM, "QUANTPORT_FAULT": f"error:fsync@{shard}:1:EIO"}),
                          f"{shard}: can't sync: Input/output error")
        self.assert_nothing_left()


if __name__ == "__main__":
    unittest.main()
