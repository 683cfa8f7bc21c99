"""`python -m quantport` and the console script are the program: output, exit statuses and signals."""
import os
import signal
import subprocess
import sys
import unittest

from package import EXPORT, HUB, PROGRAM, PackageTest, write_large_checkpoint

SCRIPT = os.path.join(os.path.dirname(sys.executable), "quantport")
FACES = ([PROGRAM], [sys.executable, "-m", "quantport"], [SCRIPT])


class ProgramTest(PackageTest):
    def assert_alike(self, *arguments, **options):
        """All faces print and return the same; the outcome."""
        outcomes = []
        for number, face in enumerate(FACES):
            filled = [argument.replace("OUT", self.path(f"out{number}")) for argument in arguments]
            run = subprocess.run([*face, *filled], capture_output=True, timeout=120, **options)
            outcomes.append((run.returncode, run.stdout, run.stderr.replace(self.path(f"out{number}").encode(), b"OUT")))
        self.assertEqual(outcomes[1], outcomes[0])
        self.assertEqual(outcomes[2], outcomes[0])
        return outcomes[0]

    def test_help_and_version(self):
        for arguments in (["--version"], ["--help"], ["revert", "--help"], ["quantize", "--list-recipes"]):
            with self.subTest(arguments):
                self.assertEqual(self.assert_alike(*arguments)[0], 0)

    def test_usage_errors(self):
        for arguments in ([], ["reverse"], ["revert"], ["revert", "--threads", "0", "x"], ["verify", EXPORT]):
            with self.subTest(arguments):
                self.assertEqual(self.assert_alike(*arguments)[0], 2)

    def test_what_succeeds_and_what_fails(self):
        self.assertEqual(self.assert_alike("revert", EXPORT, "-o", "OUT", "--reference", HUB)[0], 0)
        self.assertEqual(self.assert_alike("verify", EXPORT, "--reference", HUB)[0], 1)
        self.assertEqual(self.assert_alike("inspect", self.path("missing"), "--json")[0], 1)

    def test_arguments_that_are_no_utf_8(self):
        status, _, errors = self.assert_alike("inspect", os.fsdecode(b"/\xff\xfe"))
        self.assertEqual(status, 1)
        self.assertIn(b"\\xff\\xfe", errors)

    def test_a_full_disk_is_an_error(self):
        outcomes = []
        for face in FACES:
            with open("/dev/full", "wb") as full:
                run = subprocess.run([*face, "inspect", EXPORT], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
            outcomes.append((run.returncode, run.stderr))
        self.assertEqual(outcomes, [outcomes[0]] * 3)
        self.assertIn("can't print", outcomes[0][1])

    def test_a_reader_that_goes_away_ends_it_as_it_ends_programs(self):
        for face in FACES:
            with self.subTest(face):
                read, write = os.pipe()
                os.close(read)
                run = subprocess.run([*face, "rules", EXPORT, "--json"], stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
                os.close(write)
                self.assertEqual((run.returncode, run.stderr), (-signal.SIGPIPE, ""))

    def test_signals_stop_a_copy_with_their_exit_status(self):
        write_large_checkpoint(self.path("in"), 512 << 20)
        for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            for face in FACES:
                with self.subTest(f"{number.name} {face}"):
                    process = subprocess.Popen([*face, "revert", self.path("in"), "-o", self.path("out"), "--threads", "1"],
                                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                    while process.poll() is None and not any(name != "in" for name in os.listdir(self.folder)):
                        pass  # until it has begun to write
                    process.send_signal(number)
                    output, errors = process.communicate(timeout=60)
                    self.assertEqual((process.returncode, output, errors), (status, "", "interrupted: nothing was left at the output\n"))
                    self.assertEqual(os.listdir(self.folder), ["in"])


if __name__ == "__main__":
    unittest.main()
