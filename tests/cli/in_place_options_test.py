"""revert --in-place with other options gives what revert -o gives, and reports the same."""
import json
import os
import shutil
import subprocess
import unittest

import faults
from exports import bf16, fp8, mixtral_config, modelopt_config, nvfp4, radio_config, tensor
from program import ProgramTest, read_checkpoint, run, write, write_checkpoint

INDEX = "model.safetensors.index.json"
ATTENTION = "encoder.layer.0.attention.attention"


def mixtral_tensors():
    return [bf16("model.embed_tokens.weight", 8, 64), bf16("model.layers.0.mlp.gate.weight", 2, 64),
            tensor("model.layers.0.mlp.experts.gate_up_proj", "U8", [2, 64, 32]),
            tensor("model.layers.0.mlp.experts.gate_up_proj_weight_scale", "F8_E4M3", [2, 64, 4]),
            tensor("model.layers.0.mlp.experts.gate_up_proj_weight_scale_2", "F32", []),
            *nvfp4("model.layers.0.self_attn.q_proj", 64, 64)]


class InPlaceOptionsTest(ProgramTest):
    def revert_both(self, *options, status=0):
        """The reports of -o out and of --in-place on a copy of the export, as JSON."""
        shutil.copytree(self.path("in"), self.path("place"))
        copied = run("revert", self.path("in"), "-o", self.path("out"), "--json", *options)
        placed = run("revert", self.path("place"), "--in-place", "--json", *options)
        for result in (copied, placed):
            self.assertEqual(result.returncode, status, result.stderr)
        self.assertEqual(read_checkpoint(self.path("place")), read_checkpoint(self.path("out")))
        self.assertEqual(sorted(os.listdir(self.path("place"))), sorted(os.listdir(self.path("out"))))
        for name in os.listdir(self.path("out")):
            if name.endswith(".json"):
                with open(self.path(f"out/{name}"), "rb") as a, open(self.path(f"place/{name}"), "rb") as b:
                    self.assertEqual(json.load(b), json.load(a), name)
        return json.loads(copied.stdout), json.loads(placed.stdout)

    def test_merged_scales_report_what_they_cost(self):
        linears = [t for part in ("query", "key", "value") for t in fp8(f"{ATTENTION}.{part}", 8, 16)]
        scales = {"query": b"\0\0\0\x3f", "key": b"\0\0\x80\x3e", "value": b"\0\0\xc0\x3e"}  # 0.5, 0.25, 0.375
        tensors = [(n, d, s, scales[n.split(".")[-2]] if d == "F32" else b) for n, d, s, b in linears]
        for shards in (1, 2):
            with self.subTest(shards=shards):
                write_checkpoint(self.path("in"), radio_config(algorithm="FP8"), tensors, shards)
                copied, placed = self.revert_both("--merge-scales", "max")
                self.assertGreater(len(copied["rescaled"]), 0)
                self.assertEqual(placed["rescaled"], copied["rescaled"])
                for name in ("in", "out", "place"):
                    shutil.rmtree(self.path(name))

    def test_an_index_that_contradicts_its_shards_is_repaired(self):
        for shards in (1, 3):
            for index in ({"metadata": {}, "weight_map": {"gone": "model.safetensors"}}, {"weight_map": {}}):
                with self.subTest(shards=shards, index=index):
                    write_checkpoint(self.path("in"), mixtral_config(), mixtral_tensors(), shards)
                    write(self.path(f"in/{INDEX}"), index)
                    self.revert_both("--repair-index")
                    self.assert_done(run("inspect", self.path("place")))
                    for name in ("in", "out", "place"):
                        shutil.rmtree(self.path(name))

    def test_an_index_is_repaired_where_names_are_kept(self):
        config = modelopt_config("MixtralForCausalLM", "mixtral")
        # Of a fused weight whose scale is missing, no part can be told.
        tensors = [t for t in mixtral_tensors() if not t[0].endswith("gate_up_proj_weight_scale")]
        write_checkpoint(self.path("in"), config, tensors, shards=2)
        write(self.path(f"in/{INDEX}"), {"metadata": {}, "weight_map": {"gone": "model-00001-of-00002.safetensors"}})
        self.revert_both("--repair-index", "--on-unsupported", "keep-names", status=3)
        again = run("revert", self.path("place"), "--in-place", "--on-unsupported", "keep-names")
        self.assertEqual(again.returncode, 3, again.stderr)

    @faults.needs_root
    def test_files_with_shared_blocks_are_copied_where_sharing_is_not_wanted(self):
        """Writing over a shared block moves it, and an interrupted insertion is found by where blocks are."""
        disk = faults.mount(self, "xfs", 512 << 20, self.path("disk"))
        write_checkpoint(f"{disk}/other", mixtral_config(), mixtral_tensors())
        subprocess.run(["cp", "-r", "--reflink=always", f"{disk}/other", f"{disk}/in"], check=True)
        result = run("revert", f"{disk}/in", "--in-place", "--reflink", "never")
        self.assert_done(result)
        self.assertIn("copied: the file system does not tell where its blocks are, or they are shared", result.stderr)
        self.assert_done(run("revert", f"{disk}/other", "-o", self.path("out")))
        self.assertEqual(read_checkpoint(f"{disk}/in"), read_checkpoint(self.path("out")))


if __name__ == "__main__":
    unittest.main()
