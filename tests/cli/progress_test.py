"""What a run shows while it works: a line that is redrawn on a terminal, and how it ends."""
import os
import pty
import select
import signal
import subprocess
import time
import unittest

import faults
from faults import EXPERTS, calls_of, faulty
from program import PROGRAM, ProgramTest


def read_all(descriptor):
    """What a terminal shows until its last writer is gone."""
    text = b""
    while select.select([descriptor], [], [], 20)[0]:
        try:
            part = os.read(descriptor, 65536)
        except OSError:
            break
        if not part:
            break
        text += part
    return text.decode()


@faults.needs_shim
class ProgressTest(ProgramTest):
    def setUp(self):
        super().setUp()
        EXPERTS.write(self.path("in"))
        self.command = ["revert", self.path("in"), "-o", self.path("out"), *EXPERTS.arguments(self.folder),
                        "--threads", "1"]

    def shown(self, *more):
        """The terminal's content of a run that pauses for longer than the line takes to be drawn again."""
        writes = [c.number for c in calls_of(*self.command[:3], self.path("counted"), *self.command[4:])
                  if c.name == "pwrite"]
        master, slave = pty.openpty()
        process = subprocess.Popen([PROGRAM, *self.command, *more], stderr=slave, stdout=subprocess.DEVNULL,
                                   env={**os.environ, **faulty(f"stop:{writes[1]}")})
        os.close(slave)
        os.waitpid(process.pid, os.WUNTRACED)
        time.sleep(0.2)
        process.send_signal(signal.SIGCONT)
        text = read_all(master)
        os.close(master)
        self.assertEqual(process.wait(), 0)
        return text

    def test_a_terminal_shows_bytes_rate_and_time_left_and_is_cleared(self):
        text = self.shown()
        self.assertRegex(text, r"\r\x1b\[K[\d.]+ k?B of [\d.]+ kB  [\d.]+ [kMG]?B/s  \d+ s left")
        self.assertRegex(text, r"\r\x1b\[K[^\r]*$")

    def test_quiet_and_json_show_none(self):
        for flag in ("--quiet", "--json"):
            with self.subTest(flag):
                self.setUp()
                self.assertNotIn("left", self.shown(flag))


if __name__ == "__main__":
    unittest.main()
