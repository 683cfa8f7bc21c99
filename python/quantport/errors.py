"""What the library reports as errors: one exception class for each kind, with the kind's name."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from quantport import _core


@dataclass(frozen=True)
class Problem:
    """One problem: what is wrong, where, and what to do about it. Empty fields do not apply.

    ``kind`` is the name of the exception class. ``str`` is the line that the command line prints after the kind:
    "file: tensor: message (hint)", control characters escaped.
    """

    kind: str
    message: str
    file: str = ""
    tensor: str = ""
    hint: str = ""

    def __str__(self) -> str:
        return _core.problem_line(self.message, self.file, self.tensor, self.hint)


class QuantportError(Exception):
    """Base of all errors of the library. ``errors`` holds every problem that was found, and ``str`` lists them.

    Where problems of several kinds were found, the class is that of the first one which is not of an unsupported
    conversion (``QuantConversionUnsupportedError``, ``NameCollisionError``, ``MissingCompanionError``), and that of
    the first one where all are: who keeps a model's names because it can't be converted must not take a disk that is
    full for that.
    """

    errors: tuple[Problem, ...]

    def __init__(self, errors: Iterable[Problem] | str) -> None:
        if isinstance(errors, str):
            errors = (Problem(type(self).__name__, errors),)
        self.errors = tuple(errors)
        super().__init__(self.errors)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.errors)


class IoError(QuantportError, OSError):
    """The operating system refused: a missing file, a full disk, a permission."""


class InvalidHeaderError(QuantportError):
    """A safetensors file that breaks the format."""


class InvalidIndexError(QuantportError):
    """model.safetensors.index.json contradicts the files beside it."""


class InvalidConfigError(QuantportError):
    """config.json or hf_quant_config.json can't be read as what it should be."""


class InvalidMappingError(QuantportError):
    """A conversion mapping is malformed."""


class InvalidRecipeError(QuantportError):
    """A quantization recipe is malformed."""


class UnsupportedRecipeError(QuantportError):
    """A recipe, or what it asks for a module, can't be carried out."""


class UnknownVersionError(QuantportError):
    """No mapping of that transformers version is built in."""


class UnknownArchitectureError(QuantportError):
    """The registry has no such model class."""


class QuantConversionUnsupportedError(QuantportError):
    """A transform can't be carried through a stored layout."""


class MissingCompanionError(QuantportError):
    """A quantized weight without a scale it needs."""


class NameCollisionError(QuantportError):
    """Two tensors would get one name."""


class UndecidedNamesError(QuantportError):
    """Other hub names would load to the same tensors, and nothing says which of them the hub has."""


class ReferenceMismatchError(QuantportError):
    """The result contradicts the reference checkpoint."""


class VerificationError(QuantportError):
    """What was written is not what was planned."""


class OutputExistsError(QuantportError, FileExistsError):
    """The target is there already."""


class LinkedFileError(QuantportError, OSError):
    """A symbolic link, or a file with other names, that is not to be changed unasked."""


class LockedError(QuantportError, OSError):
    """Another process is changing the folder."""


class UnfinishedChangeError(QuantportError, OSError):
    """A change in place was interrupted: ``recover`` finishes it or takes it back."""


class CancelledError(QuantportError):
    """The caller asked to stop. Ctrl-C raises KeyboardInterrupt instead."""


_UNSUPPORTED = ("QuantConversionUnsupportedError", "NameCollisionError", "MissingCompanionError", "UndecidedNamesError")


def exception_of(problems: list[Problem]) -> QuantportError:
    """The exception for a list of problems; which class, QuantportError tells."""
    decisive = next((problem for problem in problems if problem.kind not in _UNSUPPORTED), problems[0])
    kinds = {cls.__name__: cls for cls in QuantportError.__subclasses__()}
    return kinds.get(decisive.kind, QuantportError)(problems)
