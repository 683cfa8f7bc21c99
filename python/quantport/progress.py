"""How far a long operation is: a callable of one's own, tqdm's bar, or lines."""
from __future__ import annotations

import contextlib
import importlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

# Called with bytes done and bytes in all, in the thread that called the operation, at most 20 times a second. What it raises
# stops the operation, and comes out of it.
ProgressCallback = Callable[[int, int], object]

_LINE_SECONDS = 10.0  # as the command line writes them where it has no terminal


@contextlib.contextmanager
def reporting(progress: ProgressCallback | bool | None, what: str) -> Iterator[ProgressCallback | None]:
    """The callable that the engine gets for the argument ``progress`` of an operation.

    A callable is itself; True is tqdm's bar, or a line every ten seconds where tqdm is not installed; None is the bar where
    standard error is a terminal and tqdm is installed; False is nothing.
    """
    if callable(progress):
        yield progress
    elif progress is False or (progress is None and not _on_terminal()):
        yield None
    elif (bar_type := _tqdm()) is not None:
        bar = _Bar(bar_type, what)
        try:
            yield bar
        finally:
            bar.close()
    else:
        yield _Lines(what) if progress else None


def _on_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _tqdm() -> Any:
    try:
        return importlib.import_module("tqdm.auto").tqdm
    except ImportError:
        return None


class _Bar:
    """tqdm's bar, drawn once the size is known."""

    def __init__(self, bar_type: Any, what: str) -> None:
        self._type, self._what = bar_type, what
        self._bar: Any = None

    def __call__(self, done: int, total: int) -> None:
        if self._bar is None:
            self._bar = self._type(total=total, desc=self._what, unit="B", unit_scale=True)
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class _Lines:
    """A line on standard error every ten seconds."""

    def __init__(self, what: str) -> None:
        self._what, self._next = what, time.monotonic() + _LINE_SECONDS

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() < self._next or sys.stderr is None:
            return
        self._next = time.monotonic() + _LINE_SECONDS
        print(f"{self._what}: {done / 1e9:.2f} of {total / 1e9:.2f} GB", file=sys.stderr)
