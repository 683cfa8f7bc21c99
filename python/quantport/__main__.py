"""The command line: ``python -m quantport``, and the script ``quantport``."""
from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

from quantport import _core


def main() -> NoReturn:
    """Run the program with this process' arguments, and exit with its status."""
    _forget_signals_of_python()
    arguments = ["quantport", *sys.argv[1:]]
    sys.exit(_core.run_program([os.fsencode(argument) for argument in arguments]))


def _forget_signals_of_python() -> None:
    """Python ignores SIGPIPE and SIGXFSZ and handles SIGINT; a program is stopped by them until it says otherwise."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and not ignored, as below nohup
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    for name in ("SIGPIPE", "SIGXFSZ"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)


if __name__ == "__main__":
    main()
