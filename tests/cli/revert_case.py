"""What the tests of `quantport revert` have in common."""
from program import ProgramTest, read_checkpoint, run, write_checkpoint


class RevertTest(ProgramTest):
    def revert(self, config, tensors, *args, shards=1):
        write_checkpoint(self.path("in"), config, tensors, shards)
        result = run("revert", self.path("in"), "-o", self.path("out"), *args)
        self.assert_done(result)
        return read_checkpoint(self.path("out"))

    def assert_tensors(self, got, want):
        self.assertEqual(sorted(got), sorted(want))
        for name, value in want.items():
            self.assertEqual(got[name][:2], value[:2], name)
            self.assertEqual(got[name][2], value[2], f"{name}: other bytes")
