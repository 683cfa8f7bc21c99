"""Whatever a run writes is on the disk before a rename makes it visible, and before the run says that it is done.

A loss of power can keep a rename and lose the data behind it: then the output looks finished and holds zeros. A killed
process can't show that, since the kernel keeps what it wrote. So the calls of a whole run are held against the rule.
"""
import os
import resource
import unittest

import faults
from exports import bf16, mixtral_config
from faults import EXPERTS, JOURNAL, PERMUTED, calls_of
from program import ProgramTest, write_checkpoint
from quantize_case import WEIGHT_ONLY, decoder, llama_config

CHANGES = (*faults.WRITES, "fallocate", "posix_fallocate", "ftruncate", "ioctl")
MAKES = ("open", "openat", "mkdir", "mkdirat", "link", "linkat", "symlink")


class Unsynced:
    """The files and the folders that calls changed, and did not sync since."""

    def __init__(self, folder):
        self.folder = folder
        self.files, self.folders = set(), set()
        self.made = {folder}

    def take(self, call):
        path = call.path
        if not path.startswith(self.folder) or path.endswith(" (deleted)"):
            return
        if call.name in CHANGES:
            self.files.add(path)
        elif call.name == "fsync":
            self.files.discard(path)
            self.folders.discard(path)
        elif call.name in MAKES and path not in self.made:  # a file without a name is made in a folder of this path
            self.folders.add(os.path.dirname(path))
            if call.name.startswith("mkdir"):
                self.made.add(path)
        elif call.name.startswith("rename") or (call.name == "unlink" and os.path.basename(path) == JOURNAL):
            self.folders.add(os.path.dirname(path))  # what else is removed may come back


@faults.needs_shim
class SyncTest(ProgramTest):
    def setUp(self):
        super().setUp()
        os.mkdir(self.path("work"))

    def check(self, *command):
        """Runs the command, which changes what is below work/."""
        work = self.path("work")
        state = Unsynced(work)
        renamed = synced = 0
        for call in calls_of(*command):
            if call.name.startswith("rename") and call.path.startswith(work):
                renamed += 1
                self.assertEqual(state.files, set(), f"not synced before the rename to {call.path}")
                if os.path.basename(call.path) in ("out", JOURNAL):
                    hidden = {path for path in state.folders if "/." in path}
                    self.assertEqual(hidden, set(), f"not synced before the rename to {call.path}")
            if call.name in CHANGES and os.path.dirname(call.path) == work and not call.path.endswith(" (deleted)"):
                self.assertNotIn(work, state.folders, f"{call.path} is changed before the journal is on the disk")
            synced += call.name == "fsync"
            state.take(call)
        for left in (state.files, state.folders):
            self.assertEqual({path for path in left if os.path.exists(path)}, set(), "not synced at the end")
        self.assertGreater(renamed, 0)
        self.assertGreater(synced, 0)

    def test_revert_into_a_new_folder(self):
        EXPERTS.write(self.path("in"))
        self.check("revert", self.path("in"), "-o", self.path("work/out"))

    def test_revert_into_a_new_folder_below_new_folders(self):
        EXPERTS.write(self.path("in"))
        self.check("revert", self.path("in"), "-o", self.path("work/a/b/out"))

    def test_apply(self):
        EXPERTS.write(self.path("in"))
        self.check("apply", self.path("in"), "-o", self.path("work/out"))

    def test_cut_and_stacked_weights_in_place(self):
        EXPERTS.write(self.path("work"))
        self.check("revert", self.path("work"), "--in-place")

    def test_permuted_weights_in_place(self):
        PERMUTED.write(self.path("work"))
        self.check("revert", self.path("work"), "--in-place", *PERMUTED.arguments(self.folder))

    def test_more_files_than_may_be_open(self):
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        resource.setrlimit(resource.RLIMIT_NOFILE, (32, before[1]))
        tensors = [bf16(f"model.layers.{layer}.mlp.gate.weight", 2, 4096) for layer in range(40)]
        write_checkpoint(self.path("in"), mixtral_config(), tensors, shards=40)
        self.check("revert", self.path("in"), "-o", self.path("work/out"))
        os.rename(self.path("work"), self.path("done"))
        write_checkpoint(self.path("work"), mixtral_config(), tensors, shards=40)
        self.check("revert", self.path("work"), "--in-place", "--reflink", "never")

    def test_quantize_and_dequantize(self):
        write_checkpoint(self.path("hub"), llama_config(), decoder(), shards=2)
        self.check("quantize", self.path("hub"), "-o", self.path("work/out"), "--recipe", WEIGHT_ONLY)
        os.rename(self.path("work/out"), self.path("quantized"))
        self.check("dequantize", self.path("quantized"), "-o", self.path("work/out"))


if __name__ == "__main__":
    unittest.main()
