"""Files that lead out of the folder, signals, and text that looks like other text."""
import os
import resource
import signal
import struct
import subprocess
import time
import unittest

from exports import bf16, mixtral_config
from program import PROGRAM, ProgramTest, run, write, write_checkpoint

TENSORS = [bf16(f"model.layers.{i}.mlp.gate.weight", 4, 16) for i in range(2)]
TENSORS += [bf16(f"model.layers.{i}.mlp.experts.0.{p}_proj.weight", 16, 16) for i in range(2) for p in ("gate", "up", "down")]
PLAIN = {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral"}
RECIPE = ["--recipe", "w4a16_nvfp4", "--allow-nonfinite"]


class LinksTest(ProgramTest):
    def setUp(self):
        super().setUp()
        write_checkpoint(self.path("in"), PLAIN, TENSORS)
        write(self.path("home/secret.txt"), b"SECRET")

    def commands(self, *more):
        for command in (["revert"], ["apply"], ["quantize", *RECIPE], ["dequantize"]):
            yield [command[0], self.path("in"), "-o", self.path(f"out-{command[0]}"), *command[1:], *more], self.path(f"out-{command[0]}")

    def assert_refused(self, *files):
        for command, out in self.commands():
            result = run(*command)
            self.assert_fails(result, "LinkedFileError", "--follow-links", *(f"{self.path('in')}/{f}: " for f in files))
            self.assertFalse(os.path.exists(out))

    def test_a_link_out_of_the_folder_is_refused_by_name(self):
        os.symlink(self.path("home/secret.txt"), self.path("in/notes.txt"))
        os.symlink("../home", self.path("in/assets"))
        self.assert_refused("notes.txt", "assets")

    def test_what_it_leads_to_is_copied_on_request(self):
        os.symlink(self.path("home/secret.txt"), self.path("in/notes.txt"))
        os.symlink("../home", self.path("in/assets"))
        for command, out in self.commands("--follow-links"):
            self.assert_done(run(*command))
            for name in ("notes.txt", "assets/secret.txt"):
                with open(f"{out}/{name}", "rb") as f:
                    self.assertEqual(f.read(), b"SECRET")
                self.assertFalse(os.path.islink(f"{out}/{name}"))

    def test_links_inside_the_folder_and_shards_elsewhere_are_fine(self):
        os.rename(self.path("in/model.safetensors"), self.path("home/model.safetensors"))
        os.symlink(self.path("home/model.safetensors"), self.path("in/model.safetensors"))
        write(self.path("in/docs/a.txt"), b"text")
        os.symlink("docs/a.txt", self.path("in/b.txt"))
        os.symlink("docs", self.path("in/more"))
        for command, out in self.commands():
            self.assert_done(run(*command))
            self.assertTrue(os.path.exists(f"{out}/more/a.txt"))

    def test_a_hub_cache_links_to_its_own_blobs_only(self):
        cache = self.path("cache/models--org--name")
        snapshot = f"{cache}/snapshots/abc"
        for name in os.listdir(self.path("in")):
            os.makedirs(f"{cache}/blobs", exist_ok=True)
            os.makedirs(snapshot, exist_ok=True)
            os.rename(self.path(f"in/{name}"), f"{cache}/blobs/{name}-hash")
            os.symlink(f"../../blobs/{name}-hash", f"{snapshot}/{name}")
        self.assert_done(run("revert", snapshot, "-o", self.path("out")))
        write(self.path("cache/models--org--other/blobs/x"), b"text")
        os.symlink("../../../models--org--other/blobs/x", f"{snapshot}/other.txt")
        self.assert_fails(run("revert", snapshot, "-o", self.path("again")), "LinkedFileError", "other.txt")

    def test_a_link_that_leads_nowhere_says_so_before_anything_is_written(self):
        os.symlink("gone", self.path("in/notes.txt"))
        self.assert_fails(run("revert", self.path("in"), "-o", self.path("out")), "notes.txt: can't open: No such file")

    def test_reading_and_changing_in_place_give_nothing_away(self):
        os.symlink(self.path("home/secret.txt"), self.path("in/notes.txt"))
        self.assert_done(run("inspect", self.path("in")))
        self.assert_done(run("revert", self.path("in"), "--in-place"))
        self.assertTrue(os.path.islink(self.path("in/notes.txt")))


class StampTest(ProgramTest):
    def test_a_sidecar_that_changes_during_the_run_is_an_error(self):
        write_checkpoint(self.path("in"), mixtral_config(), TENSORS + [("x.weight", "U8", [96 << 20], bytes(96 << 20))])
        write(self.path("in/tokenizer.json"), b"old")
        process = subprocess.Popen([PROGRAM, "revert", self.path("in"), "-o", self.path("out"), "--threads", "1"],
                                   stderr=subprocess.PIPE, text=True)
        while process.poll() is None and not any(name.startswith(".out.") for name in os.listdir(self.folder)):
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGSTOP)
        before = os.stat(self.path("in/tokenizer.json"))
        write(self.path("in/tokenizer.json"), b"new")
        os.utime(self.path("in/tokenizer.json"), ns=(before.st_atime_ns, before.st_mtime_ns))
        os.kill(process.pid, signal.SIGCONT)
        _, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 1, errors)
        self.assertIn("tokenizer.json: the file changed while it was being read", errors)
        self.assert_nothing_left()


class SignalsTest(ProgramTest):
    def setUp(self):
        super().setUp()
        write_checkpoint(self.path("in"), mixtral_config(), TENSORS + [("x.weight", "U8", [64 << 20], bytes(64 << 20))])

    def started(self, before=None):
        process = subprocess.Popen([PROGRAM, "revert", self.path("in"), "-o", self.path("out")], stderr=subprocess.PIPE, text=True,
                                   preexec_fn=before)
        while process.poll() is None and not any(name.startswith(".out.") for name in os.listdir(self.folder)):
            time.sleep(0.001)
        return process

    def test_a_closed_terminal_or_pipe_leaves_nothing(self):
        for number, status in ((signal.SIGHUP, 129), (signal.SIGPIPE, 141)):
            with self.subTest(number):
                process = self.started()
                process.send_signal(number)
                _, errors = process.communicate(timeout=60)
                self.assertEqual(process.returncode, status, errors)
                self.assert_nothing_left()

    def test_a_signal_that_the_caller_ignores_stays_ignored(self):
        process = self.started(before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        process.send_signal(signal.SIGHUP)
        _, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0, errors)

    def test_the_limit_of_file_sizes_is_an_error(self):
        process = self.started(before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)))
        _, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 1, errors)
        self.assertIn("File too large", errors)
        self.assert_nothing_left()


class EscapesTest(ProgramTest):
    def test_what_turns_or_hides_text_is_written_out(self):
        name = "a\u202eb\u2028c\u200bd\u2066e\ufefff\u061cg"
        write_checkpoint(self.path("in"), mixtral_config(exclude=[name, "(x)"]), TENSORS)
        write_checkpoint(self.path("hub"), mixtral_config(), TENSORS)
        result = run("verify", self.path("in"), "--reference", self.path("hub"))
        self.assertIn(r"a\u202eb\u2028c\u200bd\u2066e\ufefff\u061cg", result.stderr)
        self.assertNotIn(name, result.stderr)


class HeadersTest(ProgramTest):
    def test_headers_of_all_shards_together_have_a_limit(self):
        # Each is below the format's own limit, and holes on the disk.
        length = 99_000_000
        for i in range(6):
            with open(self.path("") + f"model-{i + 1:05d}-of-00006.safetensors", "wb") as f:
                f.write(struct.pack("<Q", length) + b"{}")
                f.truncate(8 + length)
        write(self.path("config.json"), mixtral_config())
        result = run("inspect", self.folder)
        self.assert_fails(result, "model-00006-of-00006.safetensors", "those of the checkpoint's shards have more than")


if __name__ == "__main__":
    unittest.main()
