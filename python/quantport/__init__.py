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
from quantport.state_dict import QuantportWarning, revert_state_dict

__version__ = _core.version()
