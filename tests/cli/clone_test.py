"""Sharing blocks on file systems that can, made in an image and mounted: the unit tests of it run there, none skipped."""
import os
import shutil
import subprocess
import tempfile
import unittest

TESTS = os.environ.get("QUANTPORT_TESTS", "build/release/tests/quantport_tests")
IMAGE_BYTES = 320 << 20  # mkfs.xfs refuses less than 300 MiB
SUITES = "CloneTest.*:WriteFilesTest.*:CanCloneTest.*:DirectReaderTest.*:SourceFileTest.*:OutputFolderTest.*:OutputFileTest.*"


class CloneTest(unittest.TestCase):
    def mount(self, make, *options):
        if os.geteuid() != 0:
            self.skipTest("not root: no image can be mounted")
        for program in (make, "mount"):
            if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
                self.skipTest(f"no {program} here")
        folder = tempfile.mkdtemp(prefix="quantport-clone-")
        self.addCleanup(shutil.rmtree, folder)
        image, target = f"{folder}/image", f"{folder}/mounted"
        with open(image, "wb") as f:
            f.truncate(IMAGE_BYTES)
        os.mkdir(target)
        environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
        subprocess.run([make, "-q", *options, image], check=True, capture_output=True, env=environment)
        mounted = subprocess.run(["mount", "-o", "loop", image, target], capture_output=True, check=False, text=True)
        if mounted.returncode != 0:
            self.skipTest(f"mount is refused: {mounted.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", target], check=False, capture_output=True)
        return target

    def check(self, folder):
        result = subprocess.run([TESTS, f"--gtest_filter={SUITES}"], env={**os.environ, "TMPDIR": folder},
                                capture_output=True, text=True, check=False)
        self.assertEqual(result.returncode, 0, result.stdout[-5000:])
        for suite in SUITES.split(":"):  # a suite that was renamed would run no test, and pass
            self.assertRegex(result.stdout, rf"\d+ tests? from {suite.removesuffix('.*')}\b")
        self.assertIn("[       OK ] CloneTest.SharesAlignedBlocksAndCopiesTheEdges", result.stdout)
        self.assertIn("[       OK ] CloneTest.ChangesNoSourceThroughWhatItShares", result.stdout)

    def test_shares_blocks_on_xfs(self):
        self.check(self.mount("mkfs.xfs", "-m", "reflink=1"))

    def test_shares_blocks_on_xfs_with_blocks_smaller_than_pages(self):
        self.check(self.mount("mkfs.xfs", "-m", "reflink=1", "-b", "size=1024"))

    def test_shares_blocks_on_btrfs(self):
        self.check(self.mount("mkfs.btrfs"))


if __name__ == "__main__":
    unittest.main()
