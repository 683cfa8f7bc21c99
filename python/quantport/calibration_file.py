"""The calibration file that `quantport quantize --calibration` reads. Needs neither torch nor numpy."""
from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Mapping
from typing import Union


def check_target(path: str) -> None:
    """Raises OSError where a file at `path` could not be written, before any work is done for it."""
    if not os.path.basename(path):
        raise FileNotFoundError(f"{path!r} names no file: name the one that is to be written")
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{folder} is not there: make it before calibrating")
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a folder: name the file that is to be written in it")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder} can't be written to")


def write_calibration(path: Union[str, "os.PathLike[str]"], amax: Mapping[str, float]) -> None:
    """Writes a safetensors file with an F32 scalar for each entry, all of it or nothing."""
    path = os.fspath(path)
    names = sorted(amax)
    header = {name: {"dtype": "F32", "shape": [], "data_offsets": [4 * i, 4 * i + 4]} for i, name in enumerate(names)}
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    beside = f"{path}.{os.getpid()}.tmp"
    try:
        with open(beside, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.write(struct.pack(f"<{len(names)}f", *(amax[name] for name in names)))
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise
