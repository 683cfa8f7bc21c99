"""Disks that fill or fail, calls that stop half way, files that change: a clear error and nothing changed, or the same
result by other means."""
import os
import shutil
import subprocess
import sys
import unittest

import faults
from faults import CAUSES, EXPERTS, PERMUTED, REASONS, SHARD, at_each, calls_of, copy_tree, difference, faulty, \
    run_fast, run_faulty, snapshot
from program import ProgramTest, read_checkpoint, run


@faults.needs_shim
class ShimTest(ProgramTest):
    """That the faults below happen at all."""

    def setUp(self):
        super().setUp()
        EXPERTS.write(self.path("in"))

    def test_a_mistyped_rule_ends_the_program(self):
        for rule in ("kil:1", "kill:0", "kill:x", "error:pwrite:1", "error:pwrite:1:ENOTHING", "eintr:read:1"):
            result = run_faulty(rule, "inspect", self.path("in"))
            self.assert_fails(result, f"QUANTPORT_FAULT: not a rule: {rule}", status=127)

    def test_a_kill_comes_before_its_call_and_a_later_one_after_it(self):
        for point, made in (("kill:5", 4), ("kill-after:5", 5)):
            log = self.path(point.split(":", maxsplit=1)[0])
            result = run_faulty(f"{point},count:{log}", "revert", self.path("in"), "-o", self.path("out"))
            self.assertEqual(result.returncode, -9)
            with open(log, encoding="utf-8") as f:
                numbers = [int(line.split()[0]) for line in f]
            self.assertEqual(max(numbers), 5)
            hidden = [name for name in os.listdir(self.folder) if name.startswith(".out.")]
            created = sum(len(os.listdir(self.path(name))) for name in hidden)
            calls = [c for c in calls_of("revert", self.path("in"), "-o", self.path(f"whole{made}")) if c.number > 0]
            self.assertEqual(created, sum(c.name == "open" for c in calls[:made]))
            for name in hidden:
                shutil.rmtree(self.path(name))

    def test_a_torn_shift_moves_the_extents_of_the_second_half_only(self):
        if not faults.can_insert_range(self.folder):
            self.skipTest("the file system can't insert blocks")
        block, content = 4096, bytes(i * 7 % 251 for i in range(11 * 4096))
        insert = "import ctypes, os, sys; ctypes.CDLL(None).fallocate(os.open(sys.argv[1], os.O_RDWR), 0x20, " \
                 "ctypes.c_long(4096), ctypes.c_long(4096))"
        for fault, hole in (("torn", 11), ("torn-shift", 6)):
            path = self.path(fault)
            with open(path, "wb") as f:
                f.write(content)
            faults.fragment(path)
            result = subprocess.run([sys.executable, "-c", insert, path], check=False,
                                    env={**os.environ, **faulty(f"{fault}:1")})
            self.assertEqual(result.returncode, -9)
            with open(path, "rb") as f:
                self.assertEqual(f.read(), content[:hole * block] + bytes(block) + content[hole * block:], fault)


class CopyCase(ProgramTest):
    def setUp(self):
        super().setUp()
        self.use(EXPERTS)

    def use(self, model):
        model.write(self.path("in"))
        self.source = snapshot(self.path("in"))
        self.arguments = model.arguments(self.folder)

    def command(self, *more, out="out"):
        return ["revert", self.path("in"), "-o", self.path(out), *self.arguments, "--threads", "1", *more]

    def whole(self):
        if not os.path.exists(self.path("whole")):
            self.assert_done(run_fast(*self.command(out="whole")))
        return snapshot(self.path("whole"))

    def assert_untouched(self, out="out"):
        self.assertEqual(difference(snapshot(self.path("in")), self.source), "")
        self.assert_nothing_left(out)

    def assert_refused(self, result, *fragments, out="out"):
        self.assert_fails(result, *fragments)
        self.assert_untouched(out)

    def assert_whole(self, result, out="out"):
        self.assert_done(result)
        self.assertEqual(difference(snapshot(self.path(out)), self.whole()), "")
        self.assertEqual(difference(snapshot(self.path("in")), self.source), "")


@faults.needs_shim
class CopyErrorTest(CopyCase):
    def test_any_call_that_fails_ends_the_run_without_a_trace(self):
        calls = [c for c in calls_of(*self.command(out="whole")) if c.number > 0]
        renamed = max(i for i, call in enumerate(calls) if call.name == "rename")
        tries, seen = [], {}
        for call in calls[:renamed + 1]:
            if call.name == "ioctl":  # blocks that can't be shared are copied; see ReflinkTest
                continue
            seen[call.name] = seen.get(call.name, 0) + 1
            tries.append((call.name, seen[call.name], os.path.basename(call.path)))

        def check(case):
            name, number, file = case
            out = f"{name}{number}"
            reason = REASONS[CAUSES[name]]
            # The staging folder's own name has the process's number.
            named = file if not file.startswith(".") and file != "whole" else out
            result = run_faulty(f"error:{name}:{number}:{CAUSES[name]}", *self.command(out=out))
            self.assert_refused(result, reason, named, out=out)

        at_each(tries, check)

    def test_a_folder_that_can_not_be_synced_after_the_rename_has_the_whole_output(self):
        last = sum(c.name == "fsync" for c in calls_of(*self.command(out="whole")))
        result = run_faulty(f"error:fsync:{last}:EIO", *self.command())
        self.assert_fails(result, f"{self.folder}: can't sync: Input/output error")
        self.assertEqual(difference(snapshot(self.path("out")), self.whole()), "")

    def test_any_read_that_fails_is_named(self):
        reads = [c for c in calls_of(*self.command(out="whole")) if c.name == "pread"]

        def check(case):
            number, call = case
            if self.path("in") not in call.path:
                return  # what was written is read again
            result = run_faulty(f"error:pread:{number + 1}:EIO", *self.command(out=f"out{number}"))
            self.assert_refused(result, f"{call.path}: can't read: Input/output error", out=f"out{number}")

        at_each(list(enumerate(reads)), check)

    def test_a_disk_that_stays_full_leaves_no_file(self):
        for fault in ("write:4+:ENOSPC", f"write@{SHARD}:1+:ENOSPC", "write@config.json:1+:ENOSPC"):
            with self.subTest(fault):
                result = run_faulty(f"error:{fault}", *self.command())
                self.assert_refused(result, "No space left on device", "free some space")

    def test_several_threads_stop_at_the_first_error(self):
        for fault in ("error:pread@in/model-00002:3+:EIO", f"error:pwrite@{SHARD}:1+:EIO"):
            command = [part if part != "1" else "4" for part in self.command()]
            self.assert_refused(run_faulty(fault, *command), SHARD, "Input/output error")

    def test_short_and_interrupted_calls_give_the_whole_output(self):
        cases = ["short:read", "short:write", "short:read,short:write,short:copy", "eintr:read:2,eintr:write:2",
                 "short:read,short:write,eintr:read:2,eintr:write:3", "eintr:sync:2", "eintr:fallocate:2",
                 "eintr:create:2"]
        for i, fault in enumerate(cases):
            with self.subTest(fault):
                self.assert_whole(run_faulty(fault, *self.command(out=f"out{i}")), f"out{i}")

    def test_short_and_interrupted_calls_give_whole_gathered_tensors(self):
        shutil.rmtree(self.path("in"))
        self.use(PERMUTED)
        fault = "short:read,short:write,eintr:read:2,eintr:write:3"
        self.assert_whole(run_faulty(fault, *self.command()))

    def test_space_that_can_not_be_reserved_is_done_without(self):
        self.assert_whole(run_faulty("error:fallocate:1+:EOPNOTSUPP", *self.command()))

    def test_interrupts_leave_nothing(self):
        last = max(c.number for c in calls_of(*self.command(out="whole")) if c.name == "rename")

        def check(number):
            out = f"out{number}"
            result = run_faulty(f"interrupt:{number}", *self.command(out=out))
            if result.returncode == 0:
                self.assertEqual(difference(snapshot(self.path(out)), self.whole()), "")
            else:
                self.assert_fails(result, "interrupted", status=130)
                self.assert_untouched(out)

        at_each(range(1, last + 1), check)


@faults.needs_shim
class ChangedSourceTest(CopyCase):
    """A shard that changes while it is copied would make an output of neither the old file nor the new one."""

    def check(self, change):
        path = os.path.realpath(self.path(f"in/{SHARD}"))
        os.utime(path, (1_700_000_000, 1_700_000_000))
        with open(path, "rb") as f:
            content = f.read()
        reads = sum(c.path == path for c in calls_of(*self.command(out="whole")))
        self.assertGreater(reads, 2)
        for number in range(2, reads + 1):
            with self.subTest(number):
                result = run_faulty(f"{change}:{path}:{number}", *self.command())
                self.assert_fails(result, SHARD)
                self.assertRegex(result.stderr, "change")
                self.assert_nothing_left()
                with open(path, "wb") as f:
                    f.write(content)
                os.utime(path, (1_700_000_000, 1_700_000_000))

    def test_a_later_time_is_an_error(self):
        self.check("touch")

    def test_a_file_that_grows_is_an_error(self):
        self.check("grow")

    def test_a_file_that_shrinks_is_an_error(self):
        self.check("cut")


@faults.needs_root
class SmallDiskTest(CopyCase):
    def check_full(self, kind, size):
        folder = faults.mount(self, kind, size, self.path("disk"))
        before = snapshot(folder)
        result = run(*self.command(out="disk/out"))
        self.assert_fails(result, "No space left on device", "free some space", "disk/")
        self.assertEqual(difference(snapshot(folder), before), "")
        self.assertEqual(difference(snapshot(self.path("in")), self.source), "")

    def test_a_full_tmpfs_leaves_nothing(self):
        self.check_full("tmpfs", 40 << 10)

    def test_a_full_ext4_leaves_nothing(self):
        self.check_full("ext4", 160 << 10)

    @faults.needs_shim
    def test_space_that_ends_in_the_middle_leaves_nothing(self):
        folder = faults.mount(self, "tmpfs", 40 << 10, self.path("disk"))
        result = run_faulty("error:fallocate:1+:EOPNOTSUPP", *self.command(out="disk/out"))
        self.assert_fails(result, "can't write: No space left on device", "disk/")
        self.assertEqual(os.listdir(folder), [])

    def test_a_read_only_folder_is_named(self):
        folder = faults.mount(self, "tmpfs", 1 << 20, self.path("disk"))
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        result = run(*self.command(out="disk/out"))
        self.assert_fails(result, "Read-only file system", "disk/", "check the permissions")
        self.assertEqual(os.listdir(folder), [])


@faults.needs_shim
@faults.needs_root
class ReflinkTest(CopyCase):
    def check(self, kind, mode, fault="nosync"):
        """Copies on a file system of that kind; the output has the tensors of a plain copy, whatever its padding."""
        folder = faults.mount(self, kind, 512 << 20, self.path("disk"))
        copy_tree(self.path("in"), f"{folder}/in")
        result = run_faulty(fault, "revert", f"{folder}/in", "-o", f"{folder}/out", "--reflink", mode)
        self.assertEqual(difference(snapshot(f"{folder}/in"), self.source), "")
        if result.returncode == 0:
            self.whole()
            self.assertEqual(read_checkpoint(f"{folder}/out"), read_checkpoint(self.path("whole")))
        else:
            self.assertEqual(os.listdir(folder), ["in"])
        return result

    def test_xfs_clones(self):
        self.assert_done(self.check("xfs", "always"))

    def test_where_cloning_is_not_supported_auto_copies(self):
        self.assert_done(self.check("tmpfs", "auto"))

    def test_where_cloning_is_not_supported_always_is_an_error(self):
        self.assert_fails(self.check("tmpfs", "always"), "reflink")

    def test_a_clone_that_fails_falls_back_to_a_copy(self):
        for i, cause in enumerate(("EOPNOTSUPP", "EXDEV", "EINVAL")):
            with self.subTest(cause):
                self.setUp()
                self.assert_done(self.check("xfs", "auto", f"error:clone:{i + 1}+:{cause}"))

    def test_a_disk_that_fills_while_cloning_is_an_error_or_done_without(self):
        for mode in ("auto", "always"):
            with self.subTest(mode):
                self.setUp()
                result = self.check("xfs", mode, "error:clone:1+:ENOSPC")
                if result.returncode != 0 or mode == "always":
                    self.assert_fails(result, "No space left on device")


if __name__ == "__main__":
    unittest.main()
