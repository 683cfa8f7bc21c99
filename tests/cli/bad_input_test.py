"""Exports that are broken or unknown: a clear error that names file, tensor and cause, exit 1, and nothing written."""
import json
import os
import struct
import unittest

from exports import as_dict, bf16, mixtral_config, nvfp4, renamed
from program import ProgramTest, read_checkpoint, run, safetensors, write, write_checkpoint

INDEX = "model.safetensors.index.json"
REPAIR = "(pass --repair-index to rebuild the index from the headers)"
GATES = [bf16(f"model.layers.{i}.mlp.gate.weight", 4, 8) for i in range(4)]
REVERTED = as_dict(renamed(GATES, (".mlp.", ".block_sparse_moe.")))


def raw(header, data=b""):
    """A file with this text or object for a header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(begin, end, dtype="U8", shape=None):
    return {"dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}


class BadInputTest(ProgramTest):
    def revert(self, *args):
        return run("revert", self.path("in"), "-o", self.path("out"), *args)

    def assert_refused(self, result, *fragments):
        """Each fragment in a line of its own, nothing beyond them, and nothing written."""
        self.assert_fails(result, *fragments)
        errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        self.assertEqual(len(errors), len(fragments), result.stderr)
        self.assert_nothing_left()


class IndexTest(BadInputTest):
    def lie(self, change):
        """Four tensors in two shards, whose index `change` is let loose on."""
        write_checkpoint(self.path("in"), mixtral_config(), GATES, shards=2)
        with open(self.path(f"in/{INDEX}"), encoding="utf-8") as f:
            index = json.load(f)
        change(index["weight_map"])
        write(self.path(f"in/{INDEX}"), index)

    def assert_repaired(self, want):
        self.assert_done(self.revert("--repair-index"))
        self.assertEqual(read_checkpoint(self.path("out")), want)
        with open(self.path(f"out/{INDEX}"), encoding="utf-8") as f:
            self.assertEqual(set(json.load(f)["weight_map"]), set(want))

    def test_every_lie_is_listed_and_repaired(self):
        first, second = (f"model-0000{i}-of-00002.safetensors" for i in (1, 2))

        def change(weight_map):
            weight_map["ghost.weight"] = first
            weight_map["ghost.bias"] = second
            weight_map[GATES[0][0]] = second
            del weight_map[GATES[1][0]]
        self.lie(change)
        write(self.path("in/model-00003-of-00002.safetensors"), safetensors([bf16("model.more", 2)]))
        index = self.path(f"in/{INDEX}")
        self.assert_refused(
            self.revert(),
            f"InvalidIndexError: {index}: ghost.weight: the index names this tensor, but no shard holds it {REPAIR}",
            f"InvalidIndexError: {index}: ghost.bias: the index names this tensor, but no shard holds it {REPAIR}",
            f"InvalidIndexError: {index}: {GATES[0][0]}: the index places this tensor in {second}, but it is in "
            f"{first} {REPAIR}",
            f"InvalidIndexError: {self.path(f'in/{second}')}: {GATES[1][0]}: the index does not name this tensor "
            f"{REPAIR}",
            f"InvalidIndexError: {self.path('in/model-00003-of-00002.safetensors')}: a shard that the index does not "
            f"name {REPAIR}")
        self.assert_repaired(REVERTED | as_dict([bf16("model.more", 2)]))

    def test_missing_shard(self):
        self.lie(lambda weight_map: None)
        os.remove(self.path("in/model-00002-of-00002.safetensors"))
        shard = self.path("in/model-00002-of-00002.safetensors")
        self.assert_refused(self.revert(), f"InvalidIndexError: {shard}: the index names this shard, but it is missing "
                                           "(download the missing shard)")
        self.assert_repaired({n.replace(".mlp.", ".block_sparse_moe."): tuple(v) for n, *v in GATES[0::2]})

    def test_missing_shard_without_an_index(self):
        self.lie(lambda weight_map: None)
        os.remove(self.path(f"in/{INDEX}"))
        os.remove(self.path("in/model-00001-of-00002.safetensors"))
        self.assert_refused(self.revert(), "the folder has no index, and 1 of 2 shards")

    def test_tensor_that_stands_in_two_shards_is_beyond_repair(self):
        self.lie(lambda weight_map: None)
        write(self.path("in/model-00002-of-00002.safetensors"), safetensors(GATES[1::2] + GATES[:1]))
        for args in ([], ["--repair-index"]):
            result = self.revert(*args)
            self.assert_fails(result, f"{GATES[0][0]}: the tensor stands in model-00001-of-00002.safetensors as well")
            self.assert_nothing_left()

    def test_shard_outside_the_folder(self):
        self.lie(lambda weight_map: weight_map.update({"x": "../secret.safetensors", "y": "/etc/passwd"}))
        self.assert_refused(self.revert(), 'x: "../secret.safetensors" is not a plain file name',
                            'y: "/etc/passwd" is not a plain file name')

    def test_index_that_is_none(self):
        for text, said in ((b"{", "the index is not a JSON object"), (b"[]", "the index is not a JSON object"),
                           (b"{}", "the index has no weight_map"),
                           (b'{"weight_map": []}', "weight_map is not an object"),
                           (b'{"weight_map": {"a": 1}}', 'weight_map of "a" is not a file name'),
                           (b'{"weight_map": {}} x', "the index is not a JSON object")):
            with self.subTest(text):
                self.setUp()
                self.lie(lambda weight_map: None)
                write(self.path(f"in/{INDEX}"), text)
                self.assert_refused(self.revert(), said)
                self.assert_repaired(REVERTED)

    def test_name_listed_twice(self):
        self.lie(lambda weight_map: None)
        with open(self.path(f"in/{INDEX}"), encoding="utf-8") as f:
            text = f.read()
        twice = f'"weight_map": {{"{GATES[0][0]}": "model-00001-of-00002.safetensors", '
        write(self.path(f"in/{INDEX}"), text.replace('"weight_map": {', twice).encode())
        self.assert_refused(self.revert(), f"{GATES[0][0]}: the name stands twice in weight_map")


class HeaderTest(BadInputTest):
    def check(self, content, *said):
        write(self.path("in/config.json"), mixtral_config())
        write(self.path("in/model.safetensors"), content)
        file = self.path("in/model.safetensors")
        self.assert_refused(self.revert(), *(f"InvalidHeaderError: {file}: {s}" for s in said))

    def test_every_defect_has_its_message(self):
        whole = safetensors(GATES)
        cases = {
            "empty": (b"", "the file has 0 bytes, too few for a safetensors header"),
            "seven bytes": (b"\0" * 7, "the file has 7 bytes, too few for a safetensors header"),
            "length past the end": (struct.pack("<Q", 1000) + b"{}",
                                    "the header claims 1000 bytes, but the file has only 10"),
            "length above the cap": (struct.pack("<Q", 100_000_001) + b"{}",
                                     "the header claims 100000001 bytes, above the format's cap of 100000000"),
            "length of 2^63": (struct.pack("<Q", 1 << 63) + b"{}", f"the header claims {1 << 63} bytes, above"),
            "not JSON": (raw(b"{nope}"), "invalid JSON in the header"),
            "not an object": (raw([]), "invalid JSON in the header"),
            "more after the object": (raw(b'{} {"a": 1}'), "trailing characters after the header's JSON object"),
            "invalid UTF-8": (raw(b'{"\xff\xfe": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}'),
                              "the header is not valid UTF-8"),
            "unknown dtype": (raw({"a": entry(0, 1, "F3")}, b"x"), 'a: unknown dtype "F3"'),
            "no dtype": (raw({"a": {"shape": [1], "data_offsets": [0, 1]}}, b"x"), "a: the field dtype is missing"),
            "name twice": (raw(b'{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}, '
                               b'"a": {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}}', b"xy"),
                           "a: the name stands twice in the header"),
            "overlap": (raw({"a": entry(0, 2), "b": entry(1, 3)}, b"xyz"),
                        "b: this tensor's data overlaps the one before by 1 bytes"),
            "hole": (raw({"a": entry(0, 1), "b": entry(2, 3)}, b"xyz"),
                     "b: a hole of 1 bytes before this tensor's data"),
            "trailing bytes": (raw({"a": entry(0, 1)}, b"xyz"), "2 trailing bytes after the last tensor"),
            "offsets past the end": (raw({"a": entry(0, 9)}, b"xyz"),
                                     "a: data_offsets [0, 9] point past the end of the file's 3 data bytes"),
            "offsets backwards": (raw({"a": {"dtype": "U8", "shape": [1], "data_offsets": [1, 0]}}, b"x"),
                                  "a: data_offsets [1, 0] run backwards"),
            "shape against offsets": (raw({"a": entry(0, 3, shape=[2])}, b"xyz"),
                                      "a: shape [2] in U8 takes 2 bytes, but data_offsets hold 3"),
            "shape that overflows": (raw({"a": entry(0, 0, "F32", [1 << 62, 4])}),
                                     f"a: the size of shape [{1 << 62}, 4] in F32 overflows or does not fill whole "
                                     "bytes"),
            "half a byte": (raw({"a": entry(0, 2, "F4", [3])}, b"xy"),
                            "a: the size of shape [3] in F4 overflows or does not fill whole bytes"),
            "negative size": (raw({"a": entry(0, 1, shape=[-1])}, b"x"),
                              "a: shape holds something that is not a whole"),
            "metadata that is no text": (raw({"__metadata__": {"a": 1}}), '__metadata__ value of "a" is not a string'),
            "last byte cut off": (whole[:-1], f"{GATES[3][0]}: data_offsets [192, 256] point past the end of the "
                                              "file's 255 data bytes"),
        }
        for name, (content, said) in cases.items():
            with self.subTest(name):
                self.setUp()
                self.check(content, said)

    def test_defects_of_all_shards_are_listed(self):
        write_checkpoint(self.path("in"), mixtral_config(), GATES, shards=2)
        for i in (1, 2):
            write(self.path(f"in/model-0000{i}-of-00002.safetensors"), b"")
        self.assert_refused(self.revert(), "model-00001-of-00002.safetensors: the file has 0 bytes",
                            "model-00002-of-00002.safetensors: the file has 0 bytes")

    def test_control_characters_of_names_do_not_reach_the_terminal(self):
        name = "a\x1b[2J\r\n\x07\x9b31m\x7fz"
        self.check(raw({name: entry(0, 1, "F3")}, b"x"), "a\\x1b[2J\\x0d\\x0a\\x07\\xc2\\x9b31m\\x7fz: unknown dtype")
        result = self.revert()
        self.assertFalse(any(ord(c) < 32 and c != "\n" or 0x7F <= ord(c) < 0xA0 for c in result.stderr))

    def test_characters_that_turn_text_round_or_are_not_seen_are_escaped(self):
        hidden = "\u061c\u200b\u200f\u2028\u202a\u202e\u2060\u2069\ufeff"
        escaped = "".join(f"\\u{ord(c):04x}" for c in hidden)
        self.check(raw({f"a{hidden}é\u2027\u2030": entry(0, 1, "F3")}, b"x"), f"a{escaped}é\u2027\u2030: unknown dtype")
        result = self.revert()
        self.assertEqual([c for c in hidden if c in result.stderr], [])

    def test_control_characters_in_notes_and_plans_are_escaped_too(self):
        name = "model.layers.0.mlp.\x1b[31m.weight"
        write_checkpoint(self.path("in"), mixtral_config(), [bf16(name, 2), *GATES])
        write(self.path("in/\x1b[7m.safetensors"), safetensors([bf16("a", 2)]))
        for result in (run("revert", self.path("in"), "--plan"), run("inspect", self.path("in")), self.revert()):
            self.assert_done(result)
            self.assertNotIn("\x1b", result.stdout + result.stderr)


class FolderTest(BadInputTest):
    def test_folder_that_is_not_there(self):
        self.assert_refused(self.revert(), f"IoError: {self.path('in')}: no such folder")

    def test_file_in_place_of_a_folder(self):
        write(self.path("in"), b"")
        self.assert_refused(self.revert(), f"IoError: {self.path('in')}: not a folder")

    def test_folder_without_weights(self):
        write(self.path("in/config.json"), mixtral_config())
        self.assert_refused(self.revert(), f"IoError: {self.path('in')}: no safetensors file in this folder")

    def test_folder_named_as_a_shard(self):
        write(self.path("in/config.json"), mixtral_config())
        os.mkdir(self.path("in/model.safetensors"))
        self.assert_fails(self.revert(), "error: IoError: ", status=1)
        self.assert_nothing_left()

    def test_link_to_nowhere_named_as_a_shard(self):
        write(self.path("in/config.json"), mixtral_config())
        os.symlink("../nowhere", self.path("in/model.safetensors"))
        self.assert_refused(self.revert(), f"IoError: {self.path('in/model.safetensors')}: can't open: No such file")

    def test_sidecar_that_can_not_be_read(self):
        write_checkpoint(self.path("in"), mixtral_config(), GATES)
        os.symlink("../nowhere", self.path("in/tokenizer.json"))
        self.assert_refused(self.revert(), f"IoError: {self.path('in/tokenizer.json')}: can't open: No such file")

    def test_pipe_named_as_a_shard_is_not_waited_for(self):
        write(self.path("in/config.json"), mixtral_config())
        os.mkfifo(self.path("in/model.safetensors"))
        self.assert_refused(self.revert(), f"IoError: {self.path('in/model.safetensors')}: not a regular file")

    def test_weights_of_several_namings_without_an_index(self):
        write(self.path("in/config.json"), mixtral_config())
        for name in ("a", "b"):
            write(self.path(f"in/{name}.safetensors"), safetensors([bf16(name, 2)]))
        self.assert_refused(self.revert(), "safetensors files of several namings: a, b")


class ConfigTest(BadInputTest):
    def test_no_config(self):
        write(self.path("in/model.safetensors"), safetensors(GATES))
        self.assert_refused(self.revert(), f"IoError: {self.path('in/config.json')}: the checkpoint has no config.json "
                                           "(it says which model this is; copy it from the model's hub repository)")

    def test_configs_that_are_none(self):
        for text, said in ((b"{", "invalid JSON"), (b"[]", "not a JSON object"), (b"", "invalid JSON"),
                           (b'{"a": 1}', "config.json names no architecture"),
                           (b'{"architectures": "X"}', "config.json names no arch"),
                           (b"[" * 100_000 + b"]" * 100_000, "JSON nested deeper than")):
            with self.subTest(text[:20]):
                self.setUp()
                write(self.path("in/config.json"), text)
                write(self.path("in/model.safetensors"), safetensors(GATES))
                self.assert_refused(self.revert(), f"InvalidConfigError: {self.path('in/config.json')}: {said}")

    def test_broken_hf_quant_config(self):
        write_checkpoint(self.path("in"), mixtral_config(), GATES, extra={"hf_quant_config.json": b"{,}"})
        self.assert_refused(self.revert(), f"InvalidConfigError: {self.path('in/hf_quant_config.json')}: invalid JSON")

    def test_sizes_in_the_config_never_reject(self):
        sizes = {"num_hidden_layers": 0, "hidden_size": "many", "num_local_experts": -1, "vocab_size": None}
        write_checkpoint(self.path("in"), mixtral_config(**sizes),
                         GATES + nvfp4("model.layers.0.self_attn.q_proj", 8, 32))
        self.assert_done(self.revert())


if __name__ == "__main__":
    unittest.main()
