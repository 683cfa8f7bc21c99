"""quantport: names, scales and configs of quantized checkpoints, on files and on models in memory.

Importing it needs neither torch nor numpy nor transformers.
"""
from __future__ import annotations

from quantport import _core
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
    revert,
    rules,
    transformers_versions,
    verify,
)
from quantport.state_dict import QuantportWarning, revert_state_dict

__version__ = _core.version()

__all__ = [
    "__version__",
    "apply",
    "CancelledError",
    "dequantize",
    "diff",
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
    "plan_quantize",
    "plan_revert",
    "Problem",
    "QuantConversionUnsupportedError",
    "quantize",
    "QuantportError",
    "QuantportWarning",
    "recover",
    "ReferenceMismatchError",
    "revert",
    "revert_state_dict",
    "rules",
    "transformers_versions",
    "UnfinishedChangeError",
    "UnknownArchitectureError",
    "UnknownVersionError",
    "UnsupportedRecipeError",
    "VerificationError",
    "verify",
]
