"""quantport: names, scales and configs of quantized checkpoints, on files and on models in memory.

Importing it needs neither torch nor numpy nor transformers.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

import atexit as _atexit

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
    UndecidedNamesError,
    UnknownArchitectureError,
    UnknownVersionError,
    UnsupportedRecipeError,
    VerificationError,
)
from quantport.files import (
    apply,
    dequantize,
    diff,
    inspect,
    list_recipes,
    plan_quantize,
    plan_revert,
    quantize,
    recover,
    repair,
    revert,
    rules,
    transformers_versions,
    verify,
)
from quantport.patching import patch
from quantport.state_dict import QuantportWarning, revert_state_dict

if TYPE_CHECKING:
    from quantport.calibration import calibrate as calibrate

__version__ = _core.version()

_atexit.register(_core.stop_all)

__all__ = [
    "__version__",
    "apply",
    "CalibrationError",
    "CalibrationReport",
    "CancelledError",
    "dequantize",
    "diff",
    "ExpertsReport",
    "inspect",
    "InvalidConfigError",
    "InvalidHeaderError",
    "InvalidIndexError",
    "InvalidMappingError",
    "InvalidRecipeError",
    "IoError",
    "LinkedFileError",
    "list_recipes",
    "LockedError",
    "MissingCompanionError",
    "NameCollisionError",
    "OutputExistsError",
    "patch",
    "plan_quantize",
    "plan_revert",
    "Problem",
    "QuantConversionUnsupportedError",
    "quantize",
    "QuantportError",
    "QuantportWarning",
    "recover",
    "ReferenceMismatchError",
    "repair",
    "revert",
    "revert_state_dict",
    "rules",
    "transformers_versions",
    "UnfinishedChangeError",
    "UndecidedNamesError",
    "UnknownArchitectureError",
    "UnknownVersionError",
    "UnsupportedRecipeError",
    "VerificationError",
    "verify",
]


def __getattr__(name: str) -> object:
    """What needs torch is imported when it is asked for; so `import *` leaves it out."""
    if name == "calibrate":
        from quantport.calibration import calibrate

        return calibrate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
