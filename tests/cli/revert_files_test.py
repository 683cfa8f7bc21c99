"""What a reverted folder holds beside the tensors' values: shards, index, sidecars, configs, metadata."""
import json
import os
import struct
import unittest

from exports import as_dict, bf16, hf_quant_config, minimax_config, mixtral_config, nvfp4, radio_config, renamed
from program import byte_count, read_checkpoint, read_file, run, safetensors, write, write_checkpoint
from revert_case import RevertTest

INDEX = "model.safetensors.index.json"
DENSE = "model.language_model.layers.0.mlp.shared_experts"
HUB = "language_model.model.layers.0.block_sparse_moe.shared_experts"


def read_json(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def read_bytes(path):
    with open(path, "rb") as f:
        return f.read()


def raw_header(path):
    content = read_bytes(path)
    return json.loads(content[8:8 + struct.unpack("<Q", content[:8])[0]])


class ShardsTest(RevertTest):
    def test_single_file_stays_single_without_index(self):
        self.revert(mixtral_config(), nvfp4("model.layers.0.mlp.experts.0.up_proj", 32, 64))
        files = os.listdir(self.path("out"))
        self.assertEqual(sorted(files), ["config.json", "model.safetensors"])

    def test_shards_keep_their_names_and_tensors(self):
        names = [f"model.layers.{i}.mlp.gate.weight" for i in range(7)]
        self.revert(mixtral_config(), [bf16(n, 4, 8) for n in names], shards=3)
        for i in range(3):
            file = f"model-{i + 1:05d}-of-00003.safetensors"
            want = {n.replace(".mlp.", ".block_sparse_moe.") for n in names[i::3]}
            self.assertEqual(set(read_file(self.path(f"out/{file}"))), want)

    def assert_index_fits(self, folder):
        """The index says of each tensor where it stands, and how large they are together."""
        index = read_json(f"{folder}/{INDEX}")
        stands_in = {name: file for file in os.listdir(folder) if file.endswith(".safetensors")
                     for name in read_file(f"{folder}/{file}")}
        self.assertEqual(index["weight_map"], stands_in)
        total = sum(byte_count(dtype, shape) for dtype, shape, _ in read_checkpoint(folder).values())
        self.assertEqual(index["metadata"]["total_size"], total)

    def test_index_is_rebuilt_from_what_was_written(self):
        tensors = nvfp4(f"{DENSE}.gate_up_proj", 32, 64) + nvfp4(f"{DENSE}.down_proj", 64, 16)
        self.revert(minimax_config(), tensors, shards=3)
        self.assert_index_fits(self.path("out"))

    def test_other_metadata_of_the_index_is_kept(self):
        write_checkpoint(self.path("in"), mixtral_config(), [bf16(f"model.layers.{i}.mlp.gate.weight", 4, 8)
                                                             for i in range(2)], shards=2)
        index = read_json(self.path(f"in/{INDEX}"))
        index["metadata"] |= {"total_size": 1, "total_parameters": 77}
        write(self.path(f"in/{INDEX}"), index)
        self.assert_done(run("revert", self.path("in"), "-o", self.path("out")))
        self.assert_index_fits(self.path("out"))
        self.assertEqual(read_json(self.path(f"out/{INDEX}"))["metadata"]["total_parameters"], 77)

    def test_scales_stay_in_their_shard_where_a_border_parts_them_from_their_weight(self):
        module, hub = "model.layers.0.mlp.experts.0.up_proj", "model.layers.0.block_sparse_moe.experts.0.w3"
        tensors = nvfp4(module, 32, 64)
        self.revert(mixtral_config(), tensors, shards=2)
        for i in range(2):
            held = set(read_file(self.path(f"out/model-{i + 1:05d}-of-00002.safetensors")))
            self.assertEqual(held, {n.replace(module, hub) for n, *_ in tensors[i::2]})

    def test_fused_output_goes_to_the_shard_of_its_first_source(self):
        layer = "encoder.layer.0.attention.attention"
        tensors = [bf16(f"{layer}.{part}.weight", 4, 8) for part in ("key", "query", "value")]
        tensors.append(bf16("encoder.layer.0.norm1.weight", 8))
        tensors.append(bf16("encoder.layer.0.norm2.weight", 8))
        self.revert(radio_config(), tensors, shards=3)  # query is in the second file
        second = read_file(self.path("out/model-00002-of-00003.safetensors"))
        self.assertIn("radio_model.model.blocks.0.attn.qkv.weight", second)
        self.assert_index_fits(self.path("out"))

    def test_shards_whose_tensors_all_went_elsewhere_are_not_named(self):
        layer = "encoder.layer.0.attention.attention"
        tensors = [bf16(f"{layer}.{part}.weight", 4, 8) for part in ("query", "key", "value")]
        self.revert(radio_config(), tensors, shards=3)
        self.assert_index_fits(self.path("out"))
        files = set(read_json(self.path(f"out/{INDEX}"))["weight_map"].values())
        self.assertEqual(files, {"model-00001-of-00003.safetensors"})
        self.assertEqual({f for f in os.listdir(self.path("out")) if f.endswith(".safetensors")}, files)

    def test_shards_without_an_index_get_one(self):
        write_checkpoint(self.path("in"), mixtral_config(), [bf16(f"model.layers.{i}.mlp.gate.weight", 4, 8)
                                                             for i in range(4)], shards=2)
        os.remove(self.path(f"in/{INDEX}"))
        result = run("revert", self.path("in"), "-o", self.path("out"))
        self.assert_done(result)
        self.assertIn("note: the index is rebuilt from the headers", result.stderr)
        self.assert_index_fits(self.path("out"))

    def test_max_shard_size_deals_the_tensors_out_anew(self):
        tensors = [bf16(f"model.layers.{i}.mlp.gate.weight", 10, 10) for i in range(10)]  # 200 bytes each
        tensors.append(bf16("lm_head.weight", 100, 10))  # larger than a shard
        got = self.revert(mixtral_config(), tensors, "--max-shard-size", "500B")
        self.assertEqual(got, as_dict(renamed(tensors, (".mlp.", ".block_sparse_moe."))))
        files = sorted(f for f in os.listdir(self.path("out")) if f.endswith(".safetensors"))
        self.assertEqual(files, [f"model-{i + 1:05d}-of-00006.safetensors" for i in range(6)])
        for file in files:
            held = read_file(self.path(f"out/{file}"))
            self.assertTrue(len(held) == 1 or sum(len(t[2]) for t in held.values()) <= 500, file)
        self.assert_index_fits(self.path("out"))

    def test_max_shard_size_above_the_whole_gives_a_single_file(self):
        tensors = [bf16(f"model.layers.{i}.mlp.gate.weight", 4, 8) for i in range(4)]
        self.revert(mixtral_config(), tensors, "--max-shard-size", "5GB", shards=2)
        self.assertEqual(sorted(os.listdir(self.path("out"))), ["config.json", "model.safetensors"])

    def test_header_metadata_is_kept(self):
        metadata = {"format": "pt", "quantization": "näher\nbeschrieben", "empty": ""}
        write(self.path("in/config.json"), mixtral_config())
        write(self.path("in/model.safetensors"), safetensors([bf16("model.layers.0.mlp.gate.weight", 4, 8)], metadata))
        self.assert_done(run("revert", self.path("in"), "-o", self.path("out")))
        self.assertEqual(raw_header(self.path("out/model.safetensors"))["__metadata__"], metadata)

    def test_header_metadata_of_each_shard_is_kept(self):
        write(self.path("in/config.json"), mixtral_config())
        for i in (1, 2):
            write(self.path(f"in/model-0000{i}-of-00002.safetensors"),
                  safetensors([bf16(f"model.layers.{i}.mlp.gate.weight", 4, 8)], {"shard": str(i)}))
        self.assert_done(run("revert", self.path("in"), "-o", self.path("out")))
        for i in (1, 2):
            header = raw_header(self.path(f"out/model-0000{i}-of-00002.safetensors"))
            self.assertEqual(header["__metadata__"], {"shard": str(i)})

    def test_data_of_every_tensor_begins_at_a_multiple_of_its_element(self):
        module = "model.layers.0.mlp.experts.0.up_proj"
        odd = [("model.layers.0.mlp.experts.1.up_proj.weight", "U8", [3], b"abc")]
        got = self.revert(mixtral_config(), nvfp4(module, 3, 32) + odd)
        header = raw_header(self.path("out/model.safetensors"))
        start = len(read_bytes(self.path("out/model.safetensors"))) - sum(len(t[2]) for t in got.values())
        for name in got:
            size = {"U8": 1, "F8_E4M3": 1, "F32": 4}[header[name]["dtype"]]
            self.assertEqual((start + header[name]["data_offsets"][0]) % size, 0, name)


class SidecarsTest(RevertTest):
    def test_every_other_file_is_copied_with_its_folder(self):
        files = {"tokenizer.json": b'{"version": "1.0"}', "tokenizer.model": bytes(range(256)), "empty.txt": b"",
                 "assets/deep/er/logo.bin": b"\0\1", "original/params.json": b"{}", ".gitattributes": b"* -text\n",
                 "modeling_x.py": b"print()\n", "other/part.safetensors": b"not read"}
        write_checkpoint(self.path("in"), mixtral_config(), [bf16("model.layers.0.mlp.gate.weight", 4, 8)], extra=files)
        self.assert_done(run("revert", self.path("in"), "-o", self.path("out")))
        for name, content in files.items():
            self.assertEqual(read_bytes(self.path(f"out/{name}")), content, name)

    def test_links_into_a_cache_are_copied_as_files(self):
        cache = self.path("models--maker--model")
        write_checkpoint(f"{cache}/blobs", mixtral_config(), [bf16("model.layers.0.mlp.gate.weight", 4, 8)],
                         extra={"tokenizer.json": b"{}"})
        os.makedirs(f"{cache}/snapshots/1")
        for name in os.listdir(f"{cache}/blobs"):
            os.symlink(f"../../blobs/{name}", f"{cache}/snapshots/1/{name}")
        self.assert_done(run("revert", f"{cache}/snapshots/1", "-o", self.path("out")))
        for name in os.listdir(self.path("out")):
            self.assertFalse(os.path.islink(self.path(f"out/{name}")), name)
        self.assertEqual(read_bytes(self.path("out/tokenizer.json")), b"{}")

    def test_weights_of_another_naming_are_left_out_with_a_note(self):
        write_checkpoint(self.path("in"), mixtral_config(), [bf16(f"model.layers.{i}.mlp.gate.weight", 4, 8)
                                                             for i in range(2)], shards=2)
        write(self.path("in/consolidated.safetensors"), safetensors([bf16("layers.0.feed_forward.gate.weight", 4, 8)]))
        result = run("revert", self.path("in"), "-o", self.path("out"))
        self.assert_done(result)
        self.assertIn("note: consolidated.safetensors is left out", result.stderr)
        self.assertFalse(os.path.exists(self.path("out/consolidated.safetensors")))

    def test_the_export_itself_is_not_touched(self):
        write_checkpoint(self.path("in"), minimax_config(exclude=["model.language_model.norm"]),
                         nvfp4(f"{DENSE}.gate_up_proj", 32, 64) + [bf16("model.language_model.norm.weight", 8)],
                         extra={"hf_quant_config.json": hf_quant_config(["model.language_model.norm"])})
        before = {f: (read_bytes(self.path(f"in/{f}")), os.stat(self.path(f"in/{f}")).st_mtime_ns)
                  for f in os.listdir(self.path("in"))}
        self.assert_done(run("revert", self.path("in"), "-o", self.path("out")))
        after = {f: (read_bytes(self.path(f"in/{f}")), os.stat(self.path(f"in/{f}")).st_mtime_ns)
                 for f in os.listdir(self.path("in"))}
        self.assertEqual(after, before)


class ConfigTextTest(RevertTest):
    TENSORS = [bf16("model.layers.0.mlp.gate.weight", 4, 8), bf16("lm_head.weight", 4, 8)]

    def revert_text(self, text):
        write(self.path("in/config.json"), text.encode())
        write(self.path("in/model.safetensors"), safetensors(self.TENSORS))
        self.assert_done(run("revert", self.path("in"), "-o", self.path("out")))
        return read_bytes(self.path("out/config.json")).decode()

    def test_only_the_module_references_change(self):
        for indent in (2, 4):
            with self.subTest(indent):
                self.setUp()
                config = mixtral_config(exclude=["lm_head", "model.layers.0.mlp.gate"])
                config = {"zeta": 1e-06, "rope_theta": 1000000.0, "alpha": None, "note": "größe <b>/&'", "e": 1e+16,
                          "numbers": [12345678901234567890, -3, 1e-30, 0.1, 2.0, -0.0, True], **config, "a_last": {}}
                text = json.dumps(config, indent=indent, ensure_ascii=False)
                got = self.revert_text(text)
                self.assertEqual(got, text.replace("model.layers.0.mlp.gate", "model.layers.0.block_sparse_moe.gate"))

    def test_escaped_characters_mean_the_same_afterwards(self):
        note = "größe \u2028 \x7f \U0001f600 \"\\ \t\0"
        got = self.revert_text(json.dumps(mixtral_config(exclude=["model.layers.0.mlp.gate"], note=note)))
        self.assertEqual(json.loads(got)["note"], note)

    def test_config_without_references_is_copied_byte_for_byte(self):
        config = mixtral_config()
        del config["quantization_config"]
        text = json.dumps(config, indent=3).replace(":", "  :") + "\n\n"
        self.assertEqual(self.revert_text(text), text)

    def test_infinity_and_nan_survive(self):
        config = mixtral_config(exclude=["model.layers.0.mlp.gate"], limit=[0.0, float("inf")],
                                low=float("-inf"), none=float("nan"))
        text = json.dumps(config, indent=2)
        got = self.revert_text(text)
        self.assertEqual(got, text.replace("model.layers.0.mlp.gate", "model.layers.0.block_sparse_moe.gate"))

    def test_text_on_one_line_keeps_its_order_and_values(self):
        text = json.dumps(mixtral_config(exclude=["model.layers.0.mlp.gate"]))
        want = json.loads(text.replace("mlp.gate", "block_sparse_moe.gate"))
        self.assertEqual(json.dumps(json.loads(self.revert_text(text))), json.dumps(want))


class ReportTest(RevertTest):
    def test_json_report_counts_what_was_done(self):
        tensors = nvfp4(f"{DENSE}.gate_up_proj", 32, 64) + [bf16("lm_head.weight", 4, 4)]
        write_checkpoint(self.path("in"), minimax_config(), tensors)
        result = run("revert", self.path("in"), "-o", self.path("out"), "--json")
        self.assert_done(result)
        report = json.loads(result.stdout)
        want = {"outcome": "reverted", "architecture": "MiniMaxM3SparseForConditionalGeneration", "input_tensors": 5,
                "output_tensors": 9, "files": 1, "bytes": os.path.getsize(self.path("out/model.safetensors")),
                "only_in_reference": [], "warnings": [], "unsupported": []}
        self.assertEqual({key: report[key] for key in want}, want)


class NothingIsDroppedTest(RevertTest):
    def test_tied_lm_head_is_kept(self):
        tensors = [bf16("model.embed_tokens.weight", 8, 4), bf16("lm_head.weight", 8, 4),
                   bf16("model.layers.0.mlp.gate.weight", 4, 8)]
        got = self.revert(mixtral_config(tie_word_embeddings=True), tensors)
        self.assert_tensors(got, as_dict(renamed(tensors, (".mlp.", ".block_sparse_moe."))))

    def test_unknown_tensors_are_kept(self):
        tensors = [bf16("extra.thing", 3), bf16("model.mtp.0.fc.weight", 2, 2), bf16("alone", 1),
                   bf16("model.layers.0.mlp.gate.weight", 4, 8), bf16("model.layers.0.empty", 0, 4)]
        got = self.revert(mixtral_config(), tensors)
        self.assert_tensors(got, as_dict(renamed(tensors, (".mlp.", ".block_sparse_moe."))))


if __name__ == "__main__":
    unittest.main()
