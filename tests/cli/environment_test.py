"""What the machine refuses while a checkpoint is written: a clear error, and nothing left that looks finished."""
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import time
import unittest

import program
from exports import bf16, mixtral_config
from program import ProgramTest, run, write, write_checkpoint

GIGABYTE = 1 << 30


class EnvironmentTest(ProgramTest):
    def write_export(self, rows=4):
        write_checkpoint(self.path("in"), mixtral_config(), [bf16(f"model.layers.{i}.mlp.gate.weight", rows, 256)
                                                             for i in range(4)])

    def mount(self, name, options):
        """A small file system of its own below the test's folder, or None where that is not possible."""
        target = self.path(name)
        os.makedirs(target)
        if os.geteuid() != 0 or shutil.which("mount") is None:
            return None
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", target]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            return None
        self.addCleanup(subprocess.run, ["umount", target], capture_output=True, check=False)
        return target


class OutputTest(EnvironmentTest):
    def test_folder_that_holds_something_is_refused_and_left_alone(self):
        self.write_export()
        write(self.path("out/notes.txt"), b"mine")
        result = run("revert", self.path("in"), "-o", self.path("out"))
        self.assert_fails(result, f"OutputExistsError: {self.path('out')}: the output exists already and is not an "
                                  "empty folder (choose another output, or remove it first)")
        self.assertEqual(sorted(os.listdir(self.folder)), ["in", "out"])
        self.assertEqual(os.listdir(self.path("out")), ["notes.txt"])

    def test_empty_folder_is_filled(self):
        self.write_export()
        os.mkdir(self.path("out"))
        for target in ("out", "other/"):
            self.assert_done(run("revert", self.path("in"), "-o", self.path(target)))
        self.assertEqual(sorted(os.listdir(self.path("out"))), sorted(os.listdir(self.path("other"))))

    def test_file_in_place_of_the_output(self):
        self.write_export()
        write(self.path("out"), b"mine")
        self.assert_fails(run("revert", self.path("in"), "-o", self.path("out")), "OutputExistsError")
        with open(self.path("out"), "rb") as f:
            self.assertEqual(f.read(), b"mine")

    def test_dangling_link_in_place_of_the_output(self):
        self.write_export()
        os.symlink("nowhere", self.path("out"))
        self.assert_fails(run("revert", self.path("in"), "-o", self.path("out")), "OutputExistsError")
        self.assertTrue(os.path.islink(self.path("out")))

    def test_the_export_itself_is_no_output(self):
        self.write_export()
        before = sorted(os.listdir(self.path("in")))
        self.assert_fails(run("revert", self.path("in"), "-o", self.path("in")), "OutputExistsError")
        self.assertEqual(sorted(os.listdir(self.path("in"))), before)

    def test_folders_above_the_output_are_made(self):
        self.write_export()
        self.assert_done(run("revert", self.path("in"), "-o", self.path("a/b/out")))
        self.assertEqual(os.listdir(self.path("a/b")), ["out"])

    def test_file_where_a_folder_above_the_output_should_be(self):
        self.write_export()
        write(self.path("file"), b"")
        result = run("revert", self.path("in"), "-o", self.path("file/out"))
        self.assert_fails(result, "IoError: ", "can't create the folder")
        self.assertEqual(sorted(os.listdir(self.folder)), ["file", "in"])

    def test_read_only_target(self):
        self.write_export()
        target = self.mount("fixed", "ro")
        if target is None:
            os.chmod(self.path("fixed"), 0o555)
            self.addCleanup(os.chmod, self.path("fixed"), 0o755)
            if os.geteuid() == 0:
                self.skipTest("root may write anywhere, and mounting is not possible")
        result = run("revert", self.path("in"), "-o", self.path("fixed/out"))
        self.assert_fails(result, "IoError: ", "can't create the folder: ", "(check the permissions)")
        self.assertEqual(os.listdir(self.path("fixed")), [])


class FullDiskTest(EnvironmentTest):
    def test_disk_without_room_for_the_weights(self):
        self.write_export(rows=1024)  # 2 MB
        target = self.mount("small", "size=1m")
        if target is None:
            self.skipTest("needs a small file system; the limit on file sizes is tested instead")
        result = run("revert", self.path("in"), "-o", f"{target}/out")
        self.assert_fails(result, "IoError: ", "model.safetensors: can't ", "No space left on device",
                          "(free some space, or write to another file system)")
        self.assertEqual(os.listdir(target), [])

    def test_disk_that_is_full_when_the_other_files_are_copied(self):
        write_checkpoint(self.path("in"), mixtral_config(), [bf16("model.layers.0.mlp.gate.weight", 4, 256)],
                         extra={"tokenizer.json": b"x" * (2 << 20)})
        target = self.mount("small", "size=1m")
        if target is None:
            self.skipTest("needs a small file system")
        result = run("revert", self.path("in"), "-o", f"{target}/out")
        self.assert_fails(result, "IoError: ", "tokenizer.json: can't ", "No space left on device")
        self.assertEqual(os.listdir(target), [])

    def test_limit_on_file_sizes(self):
        self.write_export(rows=1024)
        limit = 1 << 20
        command = [program.PROGRAM, "revert", self.path("in"), "-o", self.path("out")]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False,
                                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
        self.assert_fails(result, "IoError: ", "model.safetensors: can't ", "File too large")
        self.assert_nothing_left()


class SidecarTest(EnvironmentTest):
    """What happens while a large file that holds no tensors is copied."""

    def start(self, least):
        """A run that is stopped (SIGSTOP) with a part of a.bin copied, and nothing of b.bin. Files of `least` bytes or more."""
        self.write_export()
        # A busy machine may stop it too late.
        for size in (least << doubled for doubled in range(5)):
            for name in ("a.bin", "b.bin"):
                write(self.path(f"in/{name}"), b"")
                os.truncate(self.path(f"in/{name}"), size)
            process = self.start_and_stop()
            if process.poll() is None and self.copied("a.bin") < size:
                return process
            process.kill()
            process.wait()
            for left in set(os.listdir(self.folder)) - {"in"}:
                shutil.rmtree(self.path(left))
        return self.fail("it always ended before anything could happen to it")

    def start_and_stop(self):
        command = [program.PROGRAM, "revert", self.path("in"), "-o", self.path("out")]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.kill)
        while process.poll() is None and not self.is_begun("a.bin"):
            time.sleep(0.002)
        process.send_signal(signal.SIGSTOP)
        while process.poll() is None and self.state(process) != "T":
            time.sleep(0.002)
        return process

    def copied(self, name):
        """Its bytes in the output."""
        paths = [os.path.join(folder, name) for folder, _, files in os.walk(self.folder) if name in files]
        return sum(os.path.getsize(path) for path in paths if path != self.path(f"in/{name}"))

    @staticmethod
    def state(process):
        with open(f"/proc/{process.pid}/stat", encoding="utf-8") as f:
            return f.read().rpartition(")")[2].split()[0]

    def is_begun(self, name):
        return any(name in files for folder, _, files in os.walk(self.folder) if folder != self.path("in"))

    def test_a_file_that_changes_is_an_error(self):
        process = self.start(GIGABYTE // 4)
        with open(self.path("in/a.bin"), "r+b") as f:
            f.write(b"x")
        process.send_signal(signal.SIGCONT)
        _, errors = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 1)
        self.assertIn(f"error: IoError: {self.path('in/a.bin')}: the file changed while it was being read", errors)
        self.assertEqual(os.listdir(self.folder), ["in"])

    def test_ctrl_c_is_heard_before_the_next_file(self):
        # Whichever thread the signal goes to may wait for a processor first.
        process = self.start(8 * GIGABYTE)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        while process.poll() is None:
            self.assertFalse(self.is_begun("b.bin"))
            time.sleep(0.002)
        _, errors = process.communicate(timeout=120)
        self.assertEqual((process.returncode, errors), (130, "interrupted: nothing was left at the output\n"))
        self.assertEqual(os.listdir(self.folder), ["in"])


class InterruptionTest(EnvironmentTest):
    """A copy of some sparse gigabytes, stopped on its way."""

    def start(self, gigabytes=4, **more):
        names = [f"model.layers.{i}.mlp.experts.0.down_proj.weight" for i in range(gigabytes)]
        header = {n: {"dtype": "BF16", "shape": [GIGABYTE // 2], "data_offsets": [i * GIGABYTE, (i + 1) * GIGABYTE]}
                  for i, n in enumerate(names)}
        text = json.dumps(header).encode()
        write(self.path("in/config.json"), mixtral_config())
        write(self.path("in/model.safetensors"), struct.pack("<Q", len(text)) + text)
        with open(self.path("in/model.safetensors"), "r+b") as f:
            f.truncate(8 + len(text) + gigabytes * GIGABYTE)
        command = [program.PROGRAM, "revert", self.path("in"), "-o", self.path("out"), "--threads", "1"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.kill)
        deadline = time.monotonic() + 30
        while not self.staged() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        self.assertIsNone(process.poll(), "it ended before it could be stopped")
        return process

    def staged(self):
        """The files that lie in hidden folders beside the output."""
        return [f"{folder}/{file}" for folder in os.listdir(self.folder) if folder.startswith(".out.")
                for file in os.listdir(self.path(folder))]

    def setUp(self):
        super().setUp()
        if shutil.disk_usage(self.folder).free < 6 * GIGABYTE:
            self.skipTest("needs 6 GiB of disk")

    def test_ctrl_c_leaves_nothing(self):
        process = self.start()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, errors)
        self.assertEqual(errors, "interrupted: nothing was left at the output\n")
        self.assertEqual(os.listdir(self.folder), ["in"])

    def test_signals_that_end_programs_leave_nothing(self):
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            with self.subTest(number.name):
                process = self.start()
                process.send_signal(number)
                process.communicate(timeout=60)
                self.assertEqual(process.returncode, 128 + number)
                self.assertEqual(os.listdir(self.folder), ["in"])
                shutil.rmtree(self.path("in"))

    def test_what_the_caller_ignores_stays_ignored(self):
        process = self.start(gigabytes=1, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0)

    def test_killed_run_leaves_nothing_that_looks_finished(self):
        process = self.start()
        process.kill()
        process.communicate(timeout=60)
        self.assertFalse(os.path.exists(self.path("out")))
        self.assertTrue(all(f.startswith(".out.quantport-") for f in self.staged()))

        # What is left over does not stand in the way of the next run.
        shutil.rmtree(self.path("in"))
        self.write_export()
        self.assert_done(run("revert", self.path("in"), "-o", self.path("out")))


if __name__ == "__main__":
    unittest.main()
