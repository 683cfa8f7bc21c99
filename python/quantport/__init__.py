"""quantport: names, scales and configs of quantized checkpoints, on files and on models in memory.

Importing it needs neither torch nor numpy nor transformers.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

from quantport import _core
from quantport.calibration_report import CalibrationError, CalibrationReport, ExpertsReport
from quantport.errors import (
    CancelledError,
    InvalidConfigError,
    InvalidHeaderError,
    InvalidIndexError,
    InvalidMappingError,
    InvalidRecipeError,
    IoError,
    LinkedFileError,
    LockedError,
    MissingCompanionError,
    NameCollisionError,
    OutputExistsError,
    Problem,
    QuantConversionUnsupportedError,
    QuantportError,
    ReferenceMismatchError,
    UnfinishedChangeError,
    UnknownArchitectureError,
    UnknownVersionError,
    UnsupportedRecipeError,
    VerificationError,
)
from quantport.patching import patch

if TYPE_CHECKING:
    from quantport.calibration import calibrate

__version__ = _core.version()


def __getattr__(name: str) -> object:
    """What needs torch is imported when it is asked for."""
    if name == "calibrate":
        from quantport.calibration import calibrate

        return calibrate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
