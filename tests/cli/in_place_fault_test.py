"""A change in place whose calls fail: the checkpoint is as it was, or the journal stays and says how to go on."""
import os
import shutil
import signal
import subprocess
import unittest

import faults
from faults import CAUSES, EXPERTS, JOURNAL, PERMUTED, REASONS, SHARD, WRITES, at_each, calls_of, copy_tree, \
    difference, faulty, journaled, middle, run_fast, run_faulty, snapshot
from program import PROGRAM, ProgramTest, read_checkpoint, run


def fill_disk(disk):
    with open(f"{disk}/filler", "wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
                os.fsync(filler.fileno())
        except OSError:
            pass


class InPlaceCase(ProgramTest):
    def setUp(self):
        super().setUp()
        self.use(EXPERTS)

    def use(self, model):
        self.original = self.path("original")
        model.write(self.original)
        self.arguments = model.arguments(self.folder)
        self.old = snapshot(self.original)

    def command(self, folder, *more):
        return ["revert", folder, "--in-place", *self.arguments, "--threads", "1", *more]

    def fresh(self, name="in"):
        return copy_tree(self.original, self.path(name))

    def done(self):
        """What the change makes of the checkpoint, and the calls that takes."""
        folder = self.fresh("done")
        calls = calls_of(*self.command(folder))
        self.new = snapshot(folder)
        return calls

    def assert_old(self, folder):
        self.assert_same(folder, self.old)

    def assert_new(self, folder):
        self.assert_same(folder, self.new)

    def assert_same(self, folder, want):
        differs = difference(snapshot(folder), want)
        if differs:
            self.fail(differs)

    def assert_new_tensors(self, folder):
        """Of a file changed in another way than usual, whose tensors may be in another order."""
        self.assert_done(run_fast("revert", self.original, "-o", self.path("whole"), *self.arguments))
        self.assertEqual(read_checkpoint(folder), read_checkpoint(self.path("whole")))
        self.assertEqual([name for name in os.listdir(folder) if name.startswith(".")], [])
        with open(f"{folder}/config.json", "rb") as a, open(self.path("whole/config.json"), "rb") as b:
            self.assertEqual(a.read(), b.read())

    def assert_says_copied(self, result):
        """One line, however many files."""
        lines = [line for line in result.stderr.splitlines() if "copied: the file system can't insert blocks" in line]
        self.assertEqual(len(lines), 1, result.stderr)


    def stopped(self, number, *command):
        """A process that was stopped at a call."""
        process = subprocess.Popen([PROGRAM, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                   env={**os.environ, **faulty(f"stop:{number}")})
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        self.assertTrue(os.WIFSTOPPED(status))
        return process


@faults.needs_shim
class InPlaceErrorTest(InPlaceCase):
    def check_failed(self, folder, result, reason, ended):
        """Taken back, or left with a journal that says how to go on, or the call did not matter. Once the change has
        `ended`, what was staged may be left too."""
        if result.returncode == 0:
            self.assertEqual([name for name in os.listdir(folder) if name.startswith(".")], [])
            self.assertEqual(read_checkpoint(folder), read_checkpoint(self.path("done")))
            return
        self.assert_fails(result, reason)
        if not os.path.exists(f"{folder}/{JOURNAL}"):
            if ended:
                self.assert_done(run_fast("recover", folder))
                self.assertIn("", [difference(snapshot(folder), side) for side in (self.new, self.old)])
            else:
                self.assert_old(folder)
            return
        self.assertIn(f"quantport recover {folder}", result.stderr)
        self.assert_done(run_fast("recover", folder, "--undo"))
        self.assert_old(folder)

    def check_each(self, calls, causes):
        """Every call of these fails once."""
        ending = journaled(calls)[-1]
        tries, seen = [], {}
        for call in calls:
            if call.name not in causes:
                continue
            seen[call.name] = seen.get(call.name, 0) + 1
            tries.append((call.name, seen[call.name], call.number >= ending))
        self.assertGreater(len(tries), 10)

        def check(case):
            name, number, ended = case
            folder = self.fresh(f"{name}-{number}")
            result = run_faulty(f"error:{name}:{number}:{causes[name]}", *self.command(folder))
            self.check_failed(folder, result, REASONS[causes[name]], ended)

        at_each(tries, check)

    def test_any_changing_call_that_fails_is_taken_back(self):
        for model in (EXPERTS, PERMUTED):
            with self.subTest(model.write.__name__):
                ProgramTest.setUp(self)
                self.use(model)
                removing = {name: "EIO" for name in ("unlink", "unlinkat", "remove", "ioctl")}
                self.check_each(self.done(), removing | CAUSES)

    def test_any_read_that_fails_is_taken_back(self):
        self.check_each(self.done(), {"pread": "EIO", "read": "EIO"})

    def test_where_taking_back_fails_too_the_journal_stays(self):
        shutil.rmtree(self.original)
        self.use(PERMUTED)
        writes = [call for call in self.done() if call.name in WRITES]
        met = 0
        for number in range(1, len(writes) + 1):
            folder = self.fresh(f"in{number}")
            result = run_faulty(f"error:write:{number}+:EIO", *self.command(folder))
            self.assert_fails(result, "Input/output error")
            if not os.path.exists(f"{folder}/{JOURNAL}"):
                self.assert_old(folder)
                continue
            met += 1
            self.assertIn(f"quantport recover {folder}", result.stderr)
            self.assert_fails(run("inspect", folder), JOURNAL, f"quantport recover {folder}")
            self.assert_done(run_fast("recover", folder, *(["--undo"] if number % 2 else [])))
            self.assert_same(folder, self.old if number % 2 else self.new)
        self.assertGreater(met, 0)

    def test_short_and_interrupted_calls_give_the_same(self):
        cases = ["short:read,short:write", "short:copy", "eintr:read:2,eintr:write:2", "eintr:sync:2",
                 "eintr:fallocate:2", "eintr:create:2", "eintr:truncate:2"]
        for model in (EXPERTS, PERMUTED):
            ProgramTest.setUp(self)
            self.use(model)
            self.done()
            for i, fault in enumerate(cases):
                with self.subTest(f"{model.write.__name__} {fault}"):
                    folder = self.fresh(f"in{i}")
                    self.assert_done(run_faulty(fault, *self.command(folder)))
                    self.assert_new(folder)

    def test_short_and_interrupted_recovery_gives_the_same(self):
        kill = f"kill:{middle(journaled(self.done()))}"
        fault = "short:read,short:write,eintr:read:3,eintr:write:3,eintr:sync:2,eintr:fallocate:2"
        for direction, want in ([], self.new), (["--undo"], self.old):
            folder = self.fresh(f"in{''.join(direction)}")
            self.assertEqual(run_faulty(kill, *self.command(folder)).returncode, -9)
            self.assertTrue(os.path.exists(f"{folder}/{JOURNAL}"))
            self.assert_done(run_faulty(fault, "recover", folder, *direction))
            self.assertEqual(difference(snapshot(folder), want), "")

    def test_where_blocks_can_not_be_inserted_files_are_copied_and_it_says_so(self):
        folder = self.fresh()
        result = run_faulty("error:fallocate:1+:EOPNOTSUPP", *self.command(folder))
        self.assert_done(result)
        self.assert_says_copied(result)
        self.assert_new_tensors(folder)

    def test_a_disk_that_is_full_while_staging_leaves_nothing(self):
        for fault in ("mkdir:1:ENOSPC", "create:1+:ENOSPC", "write:1+:ENOSPC", "fallocate:1+:ENOSPC",
                      "write@.quantport:1+:ENOSPC", "write@.quantport:2+:ENOSPC", "sync:1:EIO"):
            with self.subTest(fault):
                folder = self.fresh(fault.replace(":", "-"))
                self.assert_fails(run_faulty(f"error:{fault}", *self.command(folder)), folder)
                self.assert_old(folder)

    def test_interrupts_take_everything_back(self):
        last = max(call.number for call in self.done())

        def check(number):
            folder = self.fresh(f"in{number}")
            result = run_faulty(f"interrupt:{number}", *self.command(folder))
            if result.returncode == 0:
                self.assert_new(folder)
            else:
                self.assert_fails(result, "interrupted", status=130)
                self.assert_old(folder)

        at_each(range(1, last + 1), check)

    def test_a_shard_that_changes_before_the_journal_is_an_error_and_stays(self):
        calls = self.done()
        publishing = next(i for i, call in enumerate(calls) if call.number == journaled(calls)[0] - 1)
        reads = sum(os.path.basename(call.path) == SHARD for call in calls[:publishing])
        for change, size in ("touch", 0), ("grow", 1), ("cut", -1):
            for number in range(2, reads + 1):
                with self.subTest(f"{change} {number} of {reads}"):
                    folder = self.fresh(f"{change}{number}")
                    path = os.path.realpath(f"{folder}/{SHARD}")
                    os.utime(path, (1_700_000_000, 1_700_000_000))
                    result = run_faulty(f"{change}:{path}:{number}", *self.command(folder))
                    self.assert_fails(result, SHARD)
                    self.assertRegex(result.stderr, "change")
                    got, old = snapshot(folder), self.old[SHARD]
                    self.assertEqual(len(got[SHARD]), len(old) + size)
                    got[SHARD] = (got[SHARD] + old[-1:])[:len(old)]
                    self.assertEqual(difference(got, self.old), "")


@faults.needs_shim
class LockTest(InPlaceCase):
    def check_held(self, folder):
        for command in (self.command(folder), ["recover", folder], ["recover", folder, "--undo"]):
            self.assert_fails(run(*command), folder, "another quantport process")

    def test_a_second_process_is_refused_while_one_changes_the_folder(self):
        calls = self.done()
        for number in (1, middle(range(journaled(calls)[0])), middle(journaled(calls)), max(c.number for c in calls)):
            with self.subTest(number):
                folder = self.fresh(f"in{number}")
                process = self.stopped(number, *self.command(folder))
                self.check_held(folder)
                process.send_signal(signal.SIGCONT)
                self.assertEqual(process.wait(60), 0)
                self.assert_new(folder)

    def test_a_second_recovery_is_refused(self):
        number = middle(journaled(self.done()))
        folder = self.fresh()
        self.assertEqual(run_faulty(f"kill:{number}", *self.command(folder)).returncode, -9)
        process = self.stopped(2, "recover", folder)
        self.check_held(folder)
        process.send_signal(signal.SIGCONT)
        self.assertEqual(process.wait(60), 0)
        self.assert_new(folder)


class LinksTest(InPlaceCase):
    """Files of a hub's cache belong to others too."""

    def check(self, link):
        blob = self.path("blob")
        folder = self.fresh()
        os.rename(f"{folder}/{SHARD}", blob)
        link(blob, f"{folder}/{SHARD}")
        result = run(*self.command(folder))
        self.assert_fails(result, SHARD, "--force")
        self.assert_old(folder)
        self.assert_done(run(*self.command(folder, "--force")))
        self.assert_new_tensors(folder)
        with open(blob, "rb") as f:
            self.assertEqual(f.read(), self.old[SHARD])
        self.assertFalse(os.path.islink(f"{folder}/{SHARD}"))

    def test_symbolic_links_are_refused_and_replaced_by_force(self):
        self.check(os.symlink)

    def test_hard_links_are_refused_and_replaced_by_force(self):
        self.check(os.link)


@faults.needs_root
class OtherFileSystemsTest(InPlaceCase):
    def test_tmpfs_copies_and_says_so(self):
        folder = copy_tree(self.original, faults.mount(self, "tmpfs", 8 << 20, self.path("disk")) + "/in")
        result = run(*self.command(folder))
        self.assert_done(result)
        self.assert_says_copied(result)
        self.assert_new_tensors(folder)

    def test_a_full_disk_leaves_all_as_it_was(self):
        for kind in ("tmpfs", "ext4"):
            with self.subTest(kind):
                disk = faults.mount(self, kind, 2 << 20, self.path(kind))
                folder = copy_tree(self.original, f"{disk}/in")
                fill_disk(disk)
                result = run(*self.command(folder))
                self.assert_fails(result, "No space left on device", folder)
                self.assert_old(folder)
                os.unlink(f"{disk}/filler")
                self.assert_done(run(*self.command(folder)))
                self.assert_new_tensors(folder)
                shutil.rmtree(self.path("whole"))

    @faults.needs_shim
    def test_a_disk_that_fills_after_the_journal_was_written_leaves_all_as_it_was(self):
        """The header's room is a hole then, which not even the zeros that make a file unreadable fit into."""
        numbers = [call.number for call in self.done() if call.name == "fallocate" and SHARD in call.path]
        disk = faults.mount(self, "ext4", 16 << 20, self.path("ext4"))
        folder = copy_tree(self.original, f"{disk}/in")
        process = self.stopped(numbers[0], *self.command(folder))
        fill_disk(disk)
        process.send_signal(signal.SIGCONT)
        _, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 1, errors)
        self.assertIn("No space left on device", errors)
        self.assert_old(folder)

    def test_a_read_only_folder_is_named(self):
        disk = faults.mount(self, "tmpfs", 8 << 20, self.path("disk"))
        folder = copy_tree(self.original, f"{disk}/in")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        self.assert_fails(run(*self.command(folder)), "Read-only file system", folder)
        self.assert_old(folder)


if __name__ == "__main__":
    unittest.main()
