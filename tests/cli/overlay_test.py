"""revert --in-place on an overlay, as in a container whose image holds the checkpoint: files are copied up when they are opened
for writing, which gives them another change time, and that is no change by somebody else."""
import os
import shutil
import subprocess
import unittest

from program import ROOT, ProgramTest, read_checkpoint, run

EXPORT = f"{ROOT}/samples/minimax-m3-tiny/export"


class OverlayTest(ProgramTest):
    def mount(self):
        """An overlay with the sample in its lower layer."""
        if os.geteuid() != 0 or shutil.which("mount") is None:
            self.skipTest("no overlay can be mounted")
        for name in ("upper", "work", "overlay"):
            os.mkdir(self.path(name))
        shutil.copytree(EXPORT, self.path("lower/export"))
        layers = f"lowerdir={self.path('lower')},upperdir={self.path('upper')},workdir={self.path('work')}"
        mounted = subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, self.path("overlay")],
                                 capture_output=True, check=False, text=True)
        if mounted.returncode != 0:
            self.skipTest(f"mount is refused: {mounted.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", self.path("overlay")], check=False, capture_output=True)
        return self.path("overlay/export")

    def test_files_that_are_copied_up_are_changed_in_place(self):
        folder = self.mount()
        result = run("revert", folder, "--in-place")
        self.assertEqual(result.returncode, 0, result.stderr)
        if "inserting blocks" not in result.stderr + result.stdout:
            self.skipTest("the file system can't insert blocks: files were replaced and not opened for writing")
        self.assertEqual(run("revert", EXPORT, "-o", self.path("out")).returncode, 0)
        self.assertEqual(read_checkpoint(folder), read_checkpoint(self.path("out")))
        self.assertEqual(read_checkpoint(self.path("lower/export")), read_checkpoint(EXPORT))


if __name__ == "__main__":
    unittest.main()
