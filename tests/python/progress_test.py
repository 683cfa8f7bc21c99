"""Progress, the GIL, and stopping: by Ctrl-C and by a callable that raises."""
import io
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import unittest
from unittest import mock

import quantport
from package import EXPORT, HUB, RECIPE, PackageTest, write_large_checkpoint
from quantport import progress as progress_module

SIZE = 512 << 20  # long enough to be met in the middle: 0.2 s at the speed of memory

COPY = """
import sys, quantport
def say(done, total):
    if done < total:
        print("copying", flush=True)
quantport.revert(sys.argv[1], sys.argv[2], reflink="never", threads=1, progress=say)
"""


class LargeTest(PackageTest):
    def setUp(self):
        super().setUp()
        write_large_checkpoint(self.path("in"), SIZE)

    def copy(self, progress):
        return quantport.revert(self.path("in"), self.path("out"), reflink="never", threads=1, progress=progress)

    def assert_nothing_was_left(self):
        self.assertEqual(os.listdir(self.folder), ["in"])

    def test_a_callable_gets_bytes_done_and_in_all_in_the_calling_thread(self):
        calls = []
        self.copy(lambda done, total: calls.append((done, total, threading.get_ident())))
        (total,) = {total for _, total, _ in calls}
        self.assertGreaterEqual(total, SIZE)  # headers count
        self.assertEqual({thread for *_, thread in calls}, {threading.get_ident()})
        done = [done for done, *_ in calls]
        self.assertEqual(done, sorted(set(done)))
        self.assertEqual(done[-1], total)
        self.assertGreater(len(done), 1)

    def test_what_a_callable_raises_stops_the_copy_and_comes_out(self):
        error = RuntimeError("enough")

        def stop(done, total):
            raise error

        try:
            self.copy(stop)
        except RuntimeError as caught:
            self.assertIs(caught, error)
            self.assertEqual(traceback.extract_tb(caught.__traceback__)[-1].name, "stop")
        else:
            self.fail("nothing was raised")
        self.assert_nothing_was_left()

    def test_what_went_wrong_besides_is_the_cause(self):
        def break_the_source_and_raise(done, total):
            os.truncate(self.path("in", "model.safetensors"), 1000)
            time.sleep(1)  # the copy runs into it
            raise ZeroDivisionError

        try:
            self.copy(break_the_source_and_raise)
        except ZeroDivisionError as caught:
            self.assertIsInstance(caught.__cause__, quantport.QuantportError)
            self.assertIn("model.safetensors", str(caught.__cause__))
        else:
            self.fail("nothing was raised")
        self.assert_nothing_was_left()

    def test_a_signal_stops_the_copy(self):
        with self.assertRaises(KeyboardInterrupt):
            self.copy(lambda done, total: done < total and os.kill(os.getpid(), signal.SIGINT))
        self.assert_nothing_was_left()

    def test_ctrl_c_ends_a_process_with_keyboard_interrupt(self):
        process = subprocess.Popen([sys.executable, "-c", COPY, self.path("in"), self.path("out")], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        self.assertEqual(process.stdout.readline(), "copying\n")
        process.send_signal(signal.SIGINT)
        _, text = process.communicate(timeout=60)
        self.assertEqual(process.returncode, -signal.SIGINT)
        self.assertTrue(text.endswith("KeyboardInterrupt\n"), text)
        self.assert_nothing_was_left()

    def test_a_handler_of_ones_own_that_does_not_raise_lets_it_go_on(self):
        seen = []
        before = signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
        self.addCleanup(signal.signal, signal.SIGUSR1, before)
        self.copy(lambda done, total: seen or os.kill(os.getpid(), signal.SIGUSR1))
        self.assertEqual(seen, [signal.SIGUSR1])
        self.assertTrue(os.path.exists(self.path("out", "model.safetensors")))

    def test_other_threads_run_meanwhile(self):
        ticks, over = [], threading.Event()

        def tick():
            while not over.is_set():
                ticks.append(time.monotonic())
                time.sleep(0.001)

        thread = threading.Thread(target=tick)
        thread.start()
        self.copy(False)
        over.set()
        thread.join()
        self.assertGreater(len(ticks), 20)

    def test_it_works_in_other_threads_and_a_signal_leaves_those_alone(self):
        results = []
        thread = threading.Thread(target=lambda: results.append(self.copy(lambda done, total: started.set())))
        started = threading.Event()
        thread.start()
        started.wait(30)
        with self.assertRaises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        thread.join()
        self.assertEqual(results[0].output_tensors, 1)

    def test_what_raises_in_another_thread_stops_that_one(self):
        raised = []

        def work():
            try:
                self.copy(lambda done, total: 1 / 0)
            except ZeroDivisionError as error:
                raised.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        self.assertEqual(len(raised), 1)
        self.assert_nothing_was_left()

    def test_a_daemon_thread_is_stopped_before_the_interpreter_ends(self):
        code = """
import sys, threading, time, quantport
def copy():
    while True:
        quantport.revert(sys.argv[1], sys.argv[2], reflink="never", threads=1, progress=False)
threading.Thread(target=copy, daemon=True).start()
time.sleep(0.3)
"""
        done = self.python(code, self.path("in"), self.path("out"))
        self.assertEqual((done.returncode, done.stdout), (0, ""), done.stderr)
        self.assertLessEqual(set(os.listdir(self.folder)), {"in", "out"})

    def test_quantizing_ends_with_all_bytes(self):
        calls = []
        quantport.quantize(HUB, self.path("quantized"), RECIPE, progress=lambda done, total: calls.append((done, total)))
        self.assertEqual(calls[-1][0], calls[-1][1])

    def test_diff_is_stopped_as_well(self):
        write_large_checkpoint(self.path("other"), SIZE)
        with self.assertRaises(ZeroDivisionError):
            quantport.diff(self.path("in"), self.path("other"), threads=1, progress=lambda done, total: 1 / 0)


class ArgumentTest(PackageTest):
    def shown(self, progress, terminal=False, tqdm=True):
        """What an operation writes to standard error."""
        stream = io.StringIO()
        stream.isatty = lambda: terminal
        blocked = {} if tqdm else {"tqdm": None, "tqdm.auto": None}
        with mock.patch.object(sys, "stderr", stream), mock.patch.dict(sys.modules, blocked), \
                mock.patch.object(progress_module, "_LINE_SECONDS", 0.0):
            quantport.revert(EXPORT, self.path(f"out{len(os.listdir(self.folder))}"), progress=progress)
        return stream.getvalue()

    def test_true_shows_a_bar_of_tqdm(self):
        self.assertRegex(self.shown(True), r"revert: 100%.*\| \d+k/\d+k")

    def test_true_without_tqdm_writes_lines(self):
        self.assertRegex(self.shown(True, tqdm=False), r"^(revert: [\d.]+ of [\d.]+ GB\n)+$")

    def test_none_shows_a_bar_on_a_terminal_only(self):
        self.assertIn("revert: 100%", self.shown(None, terminal=True))
        self.assertEqual(self.shown(None), "")
        self.assertEqual(self.shown(None, terminal=True, tqdm=False), "")

    def test_false_shows_nothing(self):
        self.assertEqual(self.shown(False, terminal=True), "")


if __name__ == "__main__":
    unittest.main()
