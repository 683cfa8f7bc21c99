"""Kills the program at every call that changes the file system: what is left is the old checkpoint or the new one.

The calls are counted by a preloaded library (tests/faults). One thread copies, so that the calls come in one order and
each is met; several threads are killed at a sample of points.
"""
import os
import tempfile
import unittest

import faults
from faults import EXPERTS, JOURNAL, PERMUTED, at_each, calls_of, copy_tree, difference, journaled, \
    kill_points, middle, run_fast, run_faulty, snapshot, strictly_read
from program import ProgramTest, read_checkpoint, run

ONE_THREAD = ["--threads", "1"]
LEFTOVER = ".out.quantport-"


class CrashTest(ProgramTest):
    """With the folder on another file system where a subclass says so."""
    FILE_SYSTEM = None
    SIZE = 512 << 20
    STRIDE = 1  # every so many of the kill points
    MOUNT_OR_SKIP = True

    @classmethod
    def setUpClass(cls):
        cls.base = None
        if cls.FILE_SYSTEM is None:
            return
        temporary = tempfile.TemporaryDirectory(prefix="quantport-mount-")
        cls.addClassCleanup(temporary.cleanup)
        try:
            cls.base = faults.mount(cls, cls.FILE_SYSTEM, cls.SIZE, f"{temporary.name}/mounted")
        except unittest.SkipTest:
            if cls.MOUNT_OR_SKIP:
                raise

    def setUp(self):
        temporary = tempfile.TemporaryDirectory(prefix="quantport-crash-", dir=self.base)
        self.addCleanup(temporary.cleanup)
        self.folder = temporary.name

    def assert_same(self, got, want):
        differs = difference(got, want)
        if differs:
            self.fail(differs)

    def kill(self, point, *args):
        self.assertEqual(run_faulty(point, *args).returncode, -9, "the program was not killed")


@faults.needs_shim
class CopyCrashTest(CrashTest):
    def command(self, model, out, *more):
        return ["revert", self.path("in"), "-o", out, *model.arguments(self.folder), *more]

    def prepare(self, model):
        """The kill points of a run, the source and the output that it should give."""
        model.write(self.path("in"))
        source = snapshot(self.path("in"))
        points = kill_points(calls_of(*self.command(model, self.path("whole"), *ONE_THREAD)))
        return points, source, snapshot(self.path("whole"))

    def sweep(self, model, points, source, whole, *more):
        def check(point):
            folder = self.path(point)
            out = f"{folder}/out"
            os.mkdir(folder)
            self.kill(point, *self.command(model, out, *more))
            self.assert_same(snapshot(self.path("in")), source)
            left = os.listdir(folder)
            self.assertEqual([name for name in left if name != "out" and not name.startswith(LEFTOVER)], [])
            finished = "out" in left
            if finished:
                self.assert_same(snapshot(out), whole)
            if point.startswith("kill"):
                again = run_fast(*self.command(model, out))
                self.assertEqual(again.returncode, 1 if finished else 0, again.stderr)
                if not finished:  # the next run clears up after the killed one
                    self.assertEqual(os.listdir(folder), ["out"])
                self.assert_same(snapshot(out), whole)

        at_each(points[::self.STRIDE], check)

    def check_model(self, model):
        points, source, whole = self.prepare(model)
        self.assertGreater(len(points), 20)
        self.sweep(model, points, source, whole, *ONE_THREAD)

    def test_cut_and_stacked_weights(self):
        self.check_model(EXPERTS)

    def test_permuted_weights(self):
        self.check_model(PERMUTED)

    def test_several_threads(self):
        points, source, whole = self.prepare(EXPERTS)
        self.sweep(EXPERTS, points[::3], source, whole, "--threads", "4")


@faults.needs_root
class CopyOnXfsCrashTest(CopyCrashTest):
    """Where extents are cloned."""
    FILE_SYSTEM = "xfs"
    STRIDE = 2


class InPlaceCase(CrashTest):
    def command(self, folder, *more):
        return ["revert", folder, "--in-place", *self.model.arguments(self.folder), *more]

    def prepare(self, model):
        self.model = model
        self.original = self.path("original")
        model.write(self.original)
        self.shifts = faults.can_insert_range(self.folder)
        self.old = snapshot(self.original)
        done = copy_tree(self.original, self.path("done"))
        calls = calls_of(*self.command(done, *ONE_THREAD))
        self.points, self.journaled = kill_points(calls), journaled(calls)
        self.new = snapshot(done)
        self.assertEqual([name for name in self.new if name.startswith(".")], [])
        self.assertNotEqual(difference(self.old, self.new), "")

    def crashed(self, point, name=None):
        """A copy of the checkpoint, left by a run that was killed at `point`. Made anew for every use, since a journal
        names the blocks of this one's files.
        """
        folder = copy_tree(self.original, self.path(name or point))
        if self.shifts and "torn-shift" in f"{point} {name}":  # of one extent, nothing or all is shifted
            for shard in os.listdir(folder):
                if shard.endswith(".safetensors"):
                    faults.fragment(f"{folder}/{shard}")
        self.kill(point, *self.command(folder, *ONE_THREAD))
        return folder

    def recover(self, folder, *more):
        result = run_fast("recover", folder, *more)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result

    def assert_only_whole_shards(self, folder):
        """Shards that a strict reader takes hold the old tensors or the new ones."""
        for name, content in snapshot(folder).items():
            if os.path.dirname(name) or not name.endswith(".safetensors"):
                continue
            tensors = strictly_read(content)
            if tensors is None:
                continue
            ends = [strictly_read(side[name]) for side in (self.old, self.new) if name in side]
            self.assertTrue(tensors in ends, f"{name} parses, but is neither the old file nor the new one")

    def check_point(self, point, undo):
        folder = self.crashed(point)
        began = os.path.exists(f"{folder}/{JOURNAL}")
        self.assert_only_whole_shards(folder)
        if began:
            self.assert_fails(run("inspect", folder), JOURNAL, f"quantport recover {folder}")
        self.recover(folder, *(["--undo"] if undo else []))
        got = snapshot(folder)
        if began:
            self.assert_same(got, self.old if undo else self.new)
        else:
            self.assertIn("", [difference(got, self.old), difference(got, self.new)],
                          f"without a journal: {difference(got, self.old)}")
        if got == self.old and point.startswith("kill"):
            self.assert_done(run_fast(*self.command(folder)))
            self.assert_same(snapshot(folder), self.new)

    def sweep(self, model):
        """Half of the points are finished and half undone; calls that can be torn meet both."""
        self.prepare(model)
        self.assertGreater(len(self.points), 20)
        numbered = list(enumerate(self.points[::self.STRIDE]))
        at_each(numbered, lambda entry: self.check_point(entry[1], undo=entry[0] % 2 == 1))

    def check_killed_recovery(self, model):
        """Recovery itself is killed, and then made to finish in the same direction."""
        self.prepare(model)
        states = [f"kill:{number}" for number in self.journaled[::10 * self.STRIDE]]
        states += [point for point in self.points if point.startswith("torn-shift:")
                   and int(point.split(":")[1]) in self.journaled][:2]

        def check(state):
            for direction, want in ([], self.new), (["--undo"], self.old):
                name = f"{state}{''.join(direction)}"
                points = kill_points(calls_of("recover", self.crashed(state, f"{name}-counted"), *direction))
                shifts = [point for point in points if point.startswith("torn-shift:")]
                for point in sorted({*points[::max(1, len(points) // 6)], *shifts[:2]}):
                    folder = self.crashed(state, f"{name}-{point}")
                    self.kill(point, "recover", folder, *direction)
                    self.assert_only_whole_shards(folder)
                    self.recover(folder, *direction)
                    self.assertEqual(difference(snapshot(folder), want), "", f"recovery {direction} at {point}")

        at_each(states, check)


@faults.needs_shim
class InPlaceTest(InPlaceCase):
    def test_gives_the_tensors_and_configs_of_a_copy(self):
        for model in (EXPERTS, PERMUTED):
            with self.subTest(model.write.__name__):
                self.setUp()
                self.prepare(model)
                out = self.path("out")
                self.assert_done(run_fast("revert", self.original, "-o", out, *model.arguments(self.folder)))
                self.assertEqual(read_checkpoint(self.path("done")), read_checkpoint(out))
                for name, content in snapshot(out).items():
                    if not name.endswith((".safetensors", ".index.json")):
                        self.assertEqual(self.new[name], content, name)

    def test_nothing_to_recover_is_done_and_says_so(self):
        EXPERTS.write(self.path("in"))
        before = snapshot(self.path("in"))
        for more in ([], ["--undo"]):
            result = run("recover", self.path("in"), *more)
            self.assert_done(result)
            self.assertIn("nothing to recover", result.stdout + result.stderr)
        self.assert_same(snapshot(self.path("in")), before)

    def test_every_command_stops_at_a_journal(self):
        self.prepare(PERMUTED)
        folder = self.crashed(f"kill:{middle(self.journaled)}")
        self.assertTrue(os.path.exists(f"{folder}/{JOURNAL}"))
        other, out = self.original, self.path("out")
        for command in (["inspect", folder], ["verify", folder, "--reference", other], ["diff", folder, other],
                        ["diff", other, folder], ["apply", folder, "-o", out], ["revert", folder, "-o", out],
                        ["revert", folder, "--in-place"], ["revert", folder, "--in-place", "--force"],
                        ["revert", other, "-o", out, "--reference", folder], ["rules", folder]):
            with self.subTest(" ".join(command)):
                self.assert_fails(run(*command), JOURNAL, f"quantport recover {folder}")
                self.assertFalse(os.path.exists(out))

    def test_a_crashed_folder_that_was_copied_recovers(self):
        """With none of the blocks that the journal names."""
        self.prepare(EXPERTS)

        def check(number):
            crashed = self.crashed(f"kill:{number}")
            for more, want in ([], self.new), (["--undo"], self.old):
                folder = copy_tree(crashed, f"{crashed}-copied{''.join(more)}")
                self.recover(folder, *more)
                self.assert_same(snapshot(folder), want)

        at_each(self.journaled[::4], check)

    def test_a_killed_finish_can_be_undone_and_a_killed_undo_finished(self):
        self.prepare(EXPERTS)
        state = f"kill:{middle(self.journaled)}"
        for first, second in ([], ["--undo"]), (["--undo"], []):
            calls = calls_of("recover", self.crashed(state, f"counted{len(first)}"), *first)

            def check(point, first=first, second=second):
                folder = self.crashed(state, f"{point}-{len(first)}")
                self.kill(point, "recover", folder, *first)
                # Without a journal the first one was done but for what it had staged.
                last = second if os.path.exists(f"{folder}/{JOURNAL}") else first
                self.recover(folder, *second)
                self.assert_same(snapshot(folder), self.old if last else self.new)

            at_each(kill_points(calls)[::3], check)


@faults.needs_shim
class InPlaceCrashTest(InPlaceCase):
    """On a disk in memory where that can be had, since blocks have to be on a disk before they are listed."""
    FILE_SYSTEM = "ext4"
    MOUNT_OR_SKIP = False

    def test_cut_and_stacked_weights(self):
        self.sweep(EXPERTS)

    def test_permuted_weights(self):
        self.sweep(PERMUTED)

    def test_recovery_of_cut_and_stacked_weights_is_killed(self):
        self.check_killed_recovery(EXPERTS)

    def test_recovery_of_permuted_weights_is_killed(self):
        self.check_killed_recovery(PERMUTED)


@faults.needs_root
class InPlaceOnXfsCrashTest(InPlaceCrashTest):
    """Where blocks can be shared, too."""
    FILE_SYSTEM = "xfs"
    MOUNT_OR_SKIP = True
    STRIDE = 2


@faults.needs_root
class InPlaceOnTmpfsCrashTest(InPlaceCrashTest):
    """Where blocks can't be inserted, and files are copied."""
    FILE_SYSTEM = "tmpfs"
    MOUNT_OR_SKIP = True
    STRIDE = 3


@faults.needs_shim
class PointsTest(InPlaceCase):
    def test_there_are_enough_of_them(self):
        count = 0
        for model in (EXPERTS, PERMUTED):
            self.setUp()
            self.prepare(model)
            calls = calls_of("revert", self.original, "-o", self.path("out"), *model.arguments(self.folder))
            count += len(self.points) + len(kill_points(calls))
        self.assertGreaterEqual(count, 300)


if __name__ == "__main__":
    unittest.main()
