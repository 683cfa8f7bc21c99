"""diff finds what differs, names it, and takes for equal what is equal however it is stored."""
import json
import os
import signal
import struct
import subprocess
import time
import unittest

import program
from exports import bf16, mixtral_config, modelopt_config, nvfp4, tensor
from program import ROOT, ProgramTest, read_checkpoint, run, write, write_checkpoint

EXPORT, HUB = f"{ROOT}/samples/minimax-m3-tiny/export", f"{ROOT}/samples/minimax-m3-tiny/hub"
TENSORS = [*nvfp4("model.layers.0.mlp.down_proj", 32, 64), bf16("model.norm.weight", 64), bf16("lm_head.weight", 8, 8),
           tensor("model.layers.0.self_attn.k_proj.k_scale", "F32", [])]
SCALES = (".weight_scale", ".weight_scale_2", ".input_scale", ".k_scale", ".v_scale")


def flipped(stored, offset):
    """The same tensor with one byte changed."""
    name, dtype, shape, body = stored
    return name, dtype, shape, body[:offset] + bytes([body[offset] ^ 1]) + body[offset + 1:]


class DiffTest(ProgramTest):
    def write(self, name, tensors=TENSORS, config=None, **more):
        write_checkpoint(self.path(name), config or mixtral_config(exclude=["lm_head"]), tensors, **more)

    def diff(self, *args, status=1):
        result = run("diff", self.path("a"), self.path("b"), *args)
        self.assertEqual(result.returncode, status, result.stderr + result.stdout)
        return result

    def report(self, *args, status=1):
        return json.loads(self.diff(*args, "--json", status=status).stdout)


class TensorsTest(DiffTest):
    def test_same_checkpoint(self):
        self.write("a")
        self.write("b")
        result = self.diff(status=0)
        total = sum(len(t[3]) for t in TENSORS)
        self.assertIn(f"no difference: {len(TENSORS)} tensors ({total / 1000:.2f} kB compared) and 1 files equal",
                      result.stdout)
        self.assertEqual(result.stderr, "")

    def test_order_and_shards_are_no_difference(self):
        self.write("a", shards=2)
        self.write("b", TENSORS[::-1], shards=3)
        result = self.diff(status=0)
        self.assertIn("note: A has 2 shards, B 3", result.stderr)
        self.assertIn("tensors lie in shards of other names", result.stderr)

    def test_one_byte_is_found_and_named(self):
        changed = [flipped(t, 2 * (3 * 8 + 5) + 1) if t[0] == "lm_head.weight" else t for t in TENSORS]
        self.write("a", shards=2)
        self.write("b", changed)
        self.assertIn("  lm_head.weight  BF16 [8, 8]: 1 bytes differ, first in element [3, 5]", self.diff().stdout)
        report = self.report()
        self.assertEqual(report["tensors"], [{"kind": "content", "name": "lm_head.weight",
                                              "a": {"dtype": "BF16", "shape": [8, 8]},
                                              "b": {"dtype": "BF16", "shape": [8, 8]},
                                              "differing_bytes": 1, "first": [3, 5]}])
        self.assertEqual(report["equal_tensors"], len(TENSORS) - 1)
        self.assertIn("dtypes and shapes only", self.diff("--no-data", status=0).stdout)

    def test_byte_far_into_a_large_tensor(self):
        large = tensor("lm_head.weight", "I8", [3000, 3000], "x")
        self.write("a", [large])
        self.write("b", [flipped(large, 8_700_123)])
        for threads in (1, 3):
            self.assertEqual(self.report("--threads", threads)["tensors"][0]["first"], [2900, 123])

    def test_only_in_one(self):
        self.write("a", TENSORS[1:])
        self.write("b", TENSORS[:-1])
        text = self.diff().stdout
        self.assertIn(f"only in A: 1 tensors (1 k_scale)\n  {TENSORS[-1][0]}  F32 []\n", text)
        self.assertIn(f"only in B: 1 tensors (1 weight)\n  {TENSORS[0][0]}  U8 [32, 32]\n", text)
        self.assertEqual([(t["kind"], t["name"], t["a"] is None, t["b"] is None) for t in self.report()["tensors"]],
                         [("only_in_a", TENSORS[-1][0], False, True), ("only_in_b", TENSORS[0][0], True, False)])

    def test_dtype_and_shape(self):
        self.write("a", [bf16("x.weight", 8, 8), bf16("y.weight", 4, 4)])
        self.write("b", [tensor("x.weight", "F16", [8, 8]), bf16("y.weight", 2, 8)])
        text = self.diff().stdout
        self.assertIn("other dtype: 1 tensors (1 BF16 | F16)\n  x.weight  BF16 [8, 8] | F16 [8, 8]\n", text)
        self.assertIn("other shape: 1 tensors (1 BF16)\n  y.weight  BF16 [4, 4] | BF16 [2, 8]\n", text)

    def test_five_of_a_kind_or_all(self):
        self.write("a", [bf16(f"layers.{i}.weight", 4) for i in range(12)] + [bf16("x", 1)])
        self.write("b", [bf16("x", 1)])
        self.assertEqual(self.diff().stdout.count("  layers."), 5)
        self.assertIn("and 7 more (--all lists them)", self.diff().stdout)
        self.assertEqual(self.diff("--all").stdout.count("  layers."), 12)

    def test_quiet_prints_nothing(self):
        self.write("a")
        self.write("b", TENSORS[1:])
        result = self.diff("-q")
        self.assertEqual(result.stdout + result.stderr, "")


class FilesTest(DiffTest):
    def test_order_of_keys_and_layout_are_no_difference(self):
        config = mixtral_config()
        self.write("a", config=config)
        self.write("b", config=json.dumps(dict(reversed(config.items()))).encode())
        self.diff(status=0)

    def test_config_values_by_path(self):
        config = {"architectures": ["X"], "text_config": {"rope": [1, 2], "eps": 1e-6}, "gone": None}
        other = {"architectures": ["X"], "text_config": {"rope": [1, 3], "eps": 1e-6}, "new.key": "v"}
        self.write("a", config=config)
        self.write("b", config=other)
        text = self.diff().stdout
        for line in ("config.json: 3 other values", "  text_config.rope[1]: 2 | 3", "  gone: null | -",
                     '  ["new.key"]: - | "v"'):
            self.assertIn(line, text.splitlines())
        self.assertEqual(self.report()["files"],
                         [{"kind": "content", "file": "config.json", "path": "text_config.rope[1]", "a": 2, "b": 3},
                          {"kind": "only_in_a", "file": "config.json", "path": "gone", "a": None},
                          {"kind": "only_in_b", "file": "config.json", "path": '["new.key"]', "b": "v"}])

    def test_exclude_list_with_an_entry_more(self):
        self.write("a", config=mixtral_config(exclude=["b", "c"]))
        self.write("b", config=mixtral_config(exclude=["a", "b", "c"]))
        self.assertIn('config.json: 1 other values\n  quantization_config.ignore[]: - | "a"\n', self.diff().stdout)

    def test_other_files(self):
        self.write("a", extra={"chat.jinja": b"x", "same.bin": b"s", "only.txt": b"", "bad.json": b"{"})
        self.write("b", extra={"chat.jinja": b"y", "same.bin": b"s", "sub/new.txt": b"", "bad.json": b"{}"})
        self.assertEqual([(f["file"], f["kind"]) for f in self.report()["files"]],
                         [("bad.json", "content"), ("chat.jinja", "content"), ("only.txt", "only_in_a"),
                          ("sub/new.txt", "only_in_b")])
        self.assertIn("chat.jinja: other content\nonly.txt: only in A\nsub/new.txt: only in B\n", self.diff().stdout)


class MapTest(DiffTest):
    def test_export_and_hub_agree_but_for_what_is_quantized(self):
        hub = read_checkpoint(HUB)
        for a, b, side in ((EXPORT, HUB, "a"), (HUB, EXPORT, "b")):
            result = run("diff", a, b, "--map", "--json")
            self.assertEqual(result.returncode, 1, result.stderr)
            report = json.loads(result.stdout)
            self.assertEqual(report["equal_tensors"], 75)
            self.assertIn(f"{side.upper()} has in-memory names; it is compared as reverted", "".join(report["notes"]))
            kinds = {}
            for row in report["tensors"]:
                kinds.setdefault(row["kind"], []).append(row["name"])
            self.assertEqual(set(kinds), {"dtype", f"only_in_{side}"})
            self.assertEqual((len(kinds["dtype"]), len(set(kinds["dtype"]) & set(hub))), (24, 24))
            self.assertEqual([n for n in kinds[f"only_in_{side}"] if not n.endswith(SCALES)], [])
            self.assertEqual({f["file"] for f in report["files"]}, {"config.json", "hf_quant_config.json"})

    def test_reverted_export_is_the_export_up_to_the_mapping(self):
        self.assert_done(run("revert", EXPORT, "-o", self.path("out"), "--reference", HUB))
        self.assertEqual(run("diff", EXPORT, self.path("out")).returncode, 1)
        for a, b in ((EXPORT, self.path("out")), (self.path("out"), EXPORT)):
            result = run("diff", a, b, "--map")
            self.assert_done(result)
            self.assertIn("no difference: 177 tensors", result.stdout)

    def fused(self, changed=None):
        """A fused linear in memory against the hub's two; `changed` is a byte of the hub's second."""
        memory, hub = "model.language_model.layers.0.mlp", "language_model.model.layers.0.mlp"
        config = modelopt_config("MiniMaxM3SparseForConditionalGeneration", "minimax_m3_vl",
                                 text_config={"model_type": "minimax_m3_vl_text"},
                                 vision_config={"model_type": "minimax_m3_vl_vision"})
        del config["quantization_config"]
        fused = bf16(f"{memory}.gate_up_proj.weight", 8, 4)
        halves = [(f"{hub}.{name}_proj.weight", "BF16", [4, 4], fused[3][i * 32:(i + 1) * 32])
                  for i, name in enumerate(("gate", "up"))]
        if changed is not None:
            halves[1] = flipped(halves[1], changed)
        self.write("a", [fused], config)
        self.write("b", halves, config)

    def test_halves_of_a_fused_weight_are_compared(self):
        self.fused()
        self.assertIn("2 tensors (64 B compared)", self.diff("--map", status=0).stdout)
        self.assertIn("3 differences in tensors", self.diff().stdout)

    def test_one_byte_behind_the_mapping_is_found(self):
        self.fused(changed=13)
        report = self.report("--map")
        self.assertEqual([(t["kind"], t["name"], t["first"]) for t in report["tensors"]],
                         [("content", "language_model.model.layers.0.mlp.up_proj.weight", [1, 2])])

    def test_without_a_config_there_is_no_mapping(self):
        for side in "ab":
            self.write(side)
            os.remove(self.path(f"{side}/config.json"))
        self.write("b", TENSORS[1:])
        os.remove(self.path("b/config.json"))
        self.assertIn("IoError", self.diff("--map").stderr)

    def test_names_that_are_the_same_need_no_mapping(self):
        self.write("a")
        self.write("b", shards=2)
        self.assertIn("note: both have the same names already", self.diff("--map", status=0).stderr)


class BadInputTest(DiffTest):
    def test_missing_folder(self):
        self.write("a")
        self.assertIn(f"error: IoError: {self.path('b')}: no such folder", self.diff().stderr)

    def test_corrupt_header(self):
        self.write("a")
        self.write("b")
        write(self.path("b/model.safetensors"), struct.pack("<Q", 1 << 40) + b"{}")
        result = self.diff("--json")
        self.assertIn("error: InvalidHeaderError: ", result.stderr)
        self.assertEqual(json.loads(result.stdout)["errors"][0]["kind"], "InvalidHeaderError")

    def test_usage(self):
        self.assertEqual(run("diff", self.path("a")).returncode, 2)
        self.assertEqual(run("diff", self.path("a"), self.path("b"), "--threads", "0").returncode, 2)

    def test_ctrl_c_stops(self):
        size = 64 << 30  # sparse: takes no room on the disk, but long to read
        text = json.dumps({"x": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
        for side in "ab":
            write(self.path(f"{side}/model.safetensors"), struct.pack("<Q", len(text)) + text)
            os.truncate(self.path(f"{side}/model.safetensors"), 8 + len(text) + size)
        command = [program.PROGRAM, "diff", self.path("a"), self.path("b"), "--threads", "1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            self.addCleanup(process.kill)
            time.sleep(0.5)
            self.assertIsNone(process.poll(), "it ended before it could be stopped")
            process.send_signal(signal.SIGINT)
            out, errors = process.communicate(timeout=60)
        self.assertEqual((process.returncode, out, errors), (130, "", "interrupted\n"))


if __name__ == "__main__":
    unittest.main()
