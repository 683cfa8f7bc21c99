"""Command lines that are wrong, paths that hold something else, and runs that are stopped or can not print."""
import contextlib
import json
import os
import signal
import struct
import subprocess
import time
import unittest

import program
from exports import bf16, mixtral_config
from program import ProgramTest, run, safetensors, write, write_checkpoint

GIGABYTE = 1 << 30
FOLDER_HINT = "(give the folder that holds config.json and the safetensors files)"


class MistakeTest(ProgramTest):
    def write_hub(self, name="hub"):
        write_checkpoint(self.path(name), mixtral_config(), [bf16("model.layers.0.block_sparse_moe.gate.weight", 4, 8)])

    def commands(self, folder):
        """Each command with `folder` in the place of a checkpoint, and the output where there is one."""
        yield "apply", folder, "-o", self.path("out")
        yield "revert", folder, "-o", self.path("out")
        yield "diff", folder, self.path("hub")
        yield "diff", self.path("hub"), folder

    def assert_each_fails(self, folder, *fragments):
        for command in self.commands(folder):
            with self.subTest(command[0]):
                result = run(*command)
                self.assert_fails(result, *fragments)
                self.assertEqual(result.stdout, "")
                self.assertEqual(result.stderr.count("error: "), 1, result.stderr)
                self.assert_nothing_left()


class WrongPathTest(MistakeTest):
    def setUp(self):
        super().setUp()
        self.write_hub()

    def test_path_that_is_not_there(self):
        self.assert_each_fails(self.path("nowhere"), f"IoError: {self.path('nowhere')}: no such folder {FOLDER_HINT}")

    def test_both_sides_of_a_diff_are_reported(self):
        result = run("diff", self.path("a"), self.path("b"))
        self.assert_fails(result, f"{self.path('a')}: no such folder", f"{self.path('b')}: no such folder")

    def test_empty_folder(self):
        os.mkdir(self.path("empty"))
        self.assert_each_fails(self.path("empty"), f"IoError: {self.path('empty')}: no safetensors file in this folder")

    def test_file_in_place_of_a_folder(self):
        self.assert_each_fails(self.path("hub/config.json"), "IoError: ", f"config.json: not a folder {FOLDER_HINT}")

    def test_corrupt_header(self):
        self.write_hub("corrupt")
        write(self.path("corrupt/model.safetensors"), b"<!DOCTYPE html><html>no</html>")
        self.assert_each_fails(self.path("corrupt"),
                               f"InvalidHeaderError: {self.path('corrupt/model.safetensors')}: the header claims ",
                               "(not a safetensors file?)")

    def test_folder_without_a_config(self):
        write(self.path("bare/model.safetensors"), safetensors([bf16("a.weight", 4)]))
        for command in ("apply", "revert"):
            result = run(command, self.path("bare"), "-o", self.path("out"))
            self.assert_fails(result, f"IoError: {self.path('bare/config.json')}: the checkpoint has no config.json")
            self.assert_nothing_left()
        result = run("diff", self.path("hub"), self.path("bare"))
        self.assert_fails(result, "note: A is quantized (NVFP4), B is not quantized\n")
        self.assertIn("config.json: only in A\n", result.stdout)

    def test_rules_of_what_is_no_checkpoint(self):
        os.mkdir(self.path("empty"))
        for place, why in (("nowhere", ": no such folder"), ("hub/config.json", ": not a folder"),
                           ("empty", "/config.json: can't open: No such file or directory")):
            result = run("rules", self.path(place))
            self.assert_fails(result, f"IoError: {self.path(place)}{why}")
            self.assertEqual(result.stdout, "")

    def test_rules_need_no_weights(self):
        os.remove(self.path("hub/model.safetensors"))
        result = run("rules", self.path("hub"))
        self.assert_done(result)
        self.assertTrue(result.stdout.startswith("MixtralForCausalLM\n"), result.stdout)

    def test_errors_as_json_too(self):
        for command in [*self.commands(self.path("nowhere")), ("rules", self.path("nowhere"))]:
            result = run(*command, "--json")
            self.assertEqual(result.returncode, 1)
            self.assertEqual([e["kind"] for e in json.loads(result.stdout)["errors"]], ["IoError"], command[0])

    def test_file_that_may_not_be_read(self):
        os.chmod(self.path("hub/model.safetensors"), 0)
        options = {}
        if os.geteuid() == 0:  # who may read everything
            os.chmod(self.folder, 0o777)
            options = {"user": 65534, "group": 65534, "extra_groups": []}
        for command in (("apply", self.path("hub"), "-o", self.path("out")),
                        ("diff", self.path("hub"), self.path("hub"))):
            try:
                result = subprocess.run([program.PROGRAM, *command], capture_output=True, text=True, timeout=60,
                                        check=False, **options)
            except PermissionError:
                self.skipTest("another user may not run the program here")
            self.assert_fails(result, f"IoError: {self.path('hub/model.safetensors')}: can't open: Permission denied "
                                      "(check the permissions)")
            self.assert_nothing_left()


class UsageTest(MistakeTest):
    def assert_usage(self, result, message):
        self.assert_fails(result, f"error: {message}\nRun with --help for more information.\n", status=2)
        self.assertEqual(result.stdout, "")
        self.assertFalse(os.path.exists(self.path("out")))

    def test_threads_out_of_range(self):
        self.write_hub()
        for command in self.commands(self.path("hub")):
            for threads in ("0", "-1", "257", "two"):
                self.assert_usage(run(*command, "--threads", threads),
                                  f"--threads: Value {threads} not in range 1 to 256")

    def test_what_is_missing_or_too_much(self):
        self.write_hub()
        hub = self.path("hub")
        self.assert_usage(run("apply", hub), "--output is required")
        self.assert_usage(run("diff", hub), "B is required")
        self.assert_usage(run("rules"), "CHECKPOINT is required")
        self.assert_usage(run("rules", hub, "more"), "The following argument was not expected: more")
        self.assert_usage(run(), "A subcommand is required")
        self.assert_fails(run("revert", hub), "error: -o OUT is needed (or --in-place, or --plan, which writes nothing)\n", status=2)

    def test_misspelt_command_is_named(self):
        self.assert_usage(run("rulez", self.path("hub")), "there is no command rulez")


class UnprintableTest(MistakeTest):
    def test_results_that_do_not_reach_their_file_are_no_success(self):
        self.write_hub()
        hub = self.path("hub")
        with open("/dev/full", "w", encoding="utf-8") as full:
            for command in (("rules", hub), ("rules", hub, "--json"), ("inspect", hub), ("inspect", hub, "--json"),
                            ("diff", hub, hub), ("diff", hub, hub, "--json"), ("revert", hub, "--plan")):
                result = subprocess.run([program.PROGRAM, *command], stdout=full, stderr=subprocess.PIPE, text=True,
                                        timeout=60, check=False)
                self.assertEqual(result.returncode, 1, command)
                self.assertIn("error: can't print: No space left on device\n", result.stderr, command)


class InterruptedTest(MistakeTest):
    """Runs over some sparse gigabytes, stopped on their way."""

    def write_sparse(self, name, gigabytes):
        names = [f"model.layers.{i}.block_sparse_moe.gate.weight" for i in range(gigabytes)]
        header = {n: {"dtype": "BF16", "shape": [GIGABYTE // 16, 8],
                      "data_offsets": [i * GIGABYTE, (i + 1) * GIGABYTE]} for i, n in enumerate(names)}
        text = json.dumps(header).encode()
        write(self.path(f"{name}/config.json"), mixtral_config())
        write(self.path(f"{name}/model.safetensors"), struct.pack("<Q", len(text)) + text)
        os.truncate(self.path(f"{name}/model.safetensors"), 8 + len(text) + gigabytes * GIGABYTE)

    def stop(self, number, *command):
        """The process's status and standard error, stopped by a signal once it has moved some data."""
        process = subprocess.Popen([program.PROGRAM, *command, "--threads", "1"], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.kill)
        deadline = time.monotonic() + 30
        while process.poll() is None and self.moved(process.pid) < 16 << 20 and time.monotonic() < deadline:
            time.sleep(0.002)
        self.assertIsNone(process.poll(), "it ended before it could be stopped")
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
        self.assertEqual(output, "")
        return process.returncode, errors

    @staticmethod
    def moved(pid):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/io", encoding="utf-8") as f:
            return int(f.readline().removeprefix("rchar: "))
        return 0

    def test_stopped_apply_leaves_nothing(self):
        if os.statvfs(self.folder).f_bavail * os.statvfs(self.folder).f_frsize < 6 * GIGABYTE:
            self.skipTest("needs 6 GiB of disk")
        self.write_sparse("hub", 4)
        for number in (signal.SIGINT, signal.SIGTERM):
            self.assertEqual(self.stop(number, "apply", self.path("hub"), "-o", self.path("out")),
                             (128 + number, "interrupted: nothing was left at the output\n"))
            self.assertEqual(os.listdir(self.folder), ["hub"])

    def test_stopped_diff_says_so(self):
        for name in ("a", "b"):
            self.write_sparse(name, 64)
        for options in ([], ["--json"], ["--quiet"]):
            self.assertEqual(self.stop(signal.SIGINT, "diff", self.path("a"), self.path("b"), *options),
                             (130, "interrupted\n"))


if __name__ == "__main__":
    unittest.main()
