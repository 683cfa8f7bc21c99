"""What the operations on files return.

Every report has typed attributes; ``repr`` is a short text for people, ``str`` is what the command line prints on standard
output, and ``to_dict`` gives what it prints with ``--json``. Names of dtypes are those of safetensors ("F8_E4M3"), shapes are
lists of integers, sizes are in bytes.
"""
from __future__ import annotations

import copy
import json
import shutil
from dataclasses import dataclass, field
from typing import Any, TypeVar

from quantport._json_values import from_json
from quantport._kept_texts import KeptTexts
from quantport._report_warning import ReportWarning
from quantport._engine_parts import EngineFinding, EngineReport
from quantport._rules_parts import ExplainedName, MappingVersion, NameDifference, NameStep, RuleComparison, SubModel
from quantport.errors import Problem

R = TypeVar("R", bound="Report")


class Report:
    """Base of all reports. Copied or pickled, one keeps its texts in the layout that is the default."""

    _native: Any
    _values: dict[str, Any]

    @classmethod
    def _of(cls: type[R], native: Any) -> R:
        values = json.loads(native.json())
        report = from_json(cls, values)
        report._set(native, values)
        return report

    def _set(self, native: Any, values: dict[str, Any]) -> None:
        self._native = native
        self._values = values

    def to_dict(self) -> dict[str, Any]:
        """The report as the command line's ``--json`` has it: a new dict of dicts, lists, strings, numbers and None."""
        return copy.deepcopy(self._values)

    def _native_texts(self) -> dict[str, str]:
        return {"text": self.text()}

    def __getstate__(self) -> dict[str, Any]:
        kept = self._native is None or isinstance(self._native, KeptTexts)
        return {**self.__dict__, "_native": self._native if kept else KeptTexts(self._native_texts())}

    def text(self) -> str:
        """What the command line prints on standard output."""
        return str(self._native.text())

    def __str__(self) -> str:
        return self.text().rstrip("\n")

    def __repr__(self) -> str:
        return str(self)


# ---- revert, apply, recover


@dataclass(frozen=True)
class FileChange:
    """What became of one file of a checkpoint that was changed in place.

    ``method`` is "untouched", "header", "inserted", "cloned", "copied", "removed" or "config"; ``reason`` says of "copied"
    why the file could not be changed where it lies.
    """

    name: str
    method: str
    reason: str


@dataclass(frozen=True)
class DroppedTensor:
    """A tensor that the hub checkpoint has and the export lacks; ``kind`` is "tied", "buffer", "mtp" or "other"."""

    name: str
    kind: str
    carried: bool


@dataclass(frozen=True)
class RescaledTensor:
    """What re-expressing a tensor under a common scale cost, over the elements that were rounded again."""

    name: str
    scalar: str
    elements: int
    changed: int
    rms_relative: float
    largest_relative: float


@dataclass(repr=False, eq=False)
class RevertReport(Report):
    """What ``revert`` or ``apply`` did. ``outcome`` is "reverted", "applied", "copied" or "kept_names"."""

    outcome: str
    architecture: str
    mapping: str
    input_tensors: int
    output_tensors: int
    renamed: int
    cut: int
    files: int
    bytes: int
    cloned_bytes: int
    changed_files: list[FileChange]
    ambiguous: int
    ambiguous_examples: list[str]
    ambiguous_transforms: list[str]
    published: str
    rules_differ: int
    rules_differ_examples: list[str]
    only_in_reference: list[str]
    dropped: list[DroppedTensor]
    rescaled: list[RescaledTensor]
    left_out: list[str]
    notes: list[str]
    warnings: list[ReportWarning]
    unsupported: list[Problem]

    def text(self) -> str:
        """What was done, in one line; of a plan, what would be."""
        if self._native is not None:
            return str(self._native.text())
        return (f"{self.architecture} by {self.mapping}: {self.input_tensors} tensors would become {self.output_tensors}, "
                f"{self.renamed} renamed, {self.cut} cut or fused\n")


@dataclass(frozen=True)
class SourceRange:
    """A range of bytes in a file of the export; ``offset`` is from the file's beginning."""

    file: str
    tensor: str
    offset: int
    bytes: int


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor of the output and where its bytes come from.

    ``computed`` is "" for bytes copied as they are, else how they differ from the sources': "reordered", "rescaled",
    "padded" or "stated".
    """

    file: str
    name: str
    dtype: str
    shape: list[int]
    offset: int
    bytes: int
    layout: str
    sources: list[SourceRange]
    computed: str


@dataclass(repr=False, eq=False)
class RevertPlan(Report):
    """What ``revert`` would do. ``revert`` is its report so far, ``configs`` maps file names to their new text."""

    revert: RevertReport
    tensors: list[PlannedTensor]
    configs: dict[str, str]

    def _set(self, native: Any, values: dict[str, Any]) -> None:
        super()._set(native, values)
        self.revert._set(None, values["revert"])

    def __repr__(self) -> str:
        return repr(self.revert)


@dataclass(repr=False, eq=False)
class RepairReport(Report):
    """What ``repair`` did: what common global scales cost in ``rescaled``, and all else that was wrong in ``mended``."""

    rescaled: list[RescaledTensor]
    mended: list[str]
    tensors: int
    files: int
    bytes: int
    cloned_bytes: int
    changed_files: list[FileChange]
    notes: list[str]


@dataclass(repr=False, eq=False)
class RecoverReport(Report):
    """What ``recover`` found and did. ``outcome`` is "nothing", "finished", "undone" or "leftovers"."""

    outcome: str
    files: int


# ---- verify, inspect, diff, rules


@dataclass(repr=False, eq=False)
class VerifyReport(Report):
    """Whether a checkpoint agrees with its reference: ``verified``, and every disagreement in ``problems``.

    ``engine`` is what an engine makes of it, whose problems are among them."""

    verified: bool
    mapping: str
    reference: str
    tensors: int
    compared: int
    shapes: bool
    shapes_compared: int
    problems: list[Problem]
    notes: list[str]
    warnings: list[ReportWarning]
    engine: EngineReport | None


@dataclass(frozen=True)
class LayoutTotal:
    """All weights of one layout; ``elements`` are logical."""

    layout: str
    weights: int
    elements: int
    bytes: int


@dataclass(frozen=True)
class Module:
    """A module with stored weights; ``shape`` is logical, ``misfit`` says of an "unrecognized" one what fits no format."""

    name: str
    layout: str
    shape: list[int]
    bytes: int
    tensors: list[str]
    misfit: str = ""


@dataclass(repr=False, eq=False)
class InspectReport(Report):
    """What a checkpoint is made of."""

    architecture: str
    quantization: str
    files: int
    tensors: int
    bytes: int
    bytes_by_dtype: dict[str, int]
    totals: list[LayoutTotal]
    modules: list[Module]
    notes: list[str]
    warnings: list[ReportWarning]
    problems: list[Problem]

    def text(self, *, modules: bool = False, depth: int = 0, width: int | None = None) -> str:
        """The modules as a tree and totals, as the command line prints them.

        ``modules``: a line for each module instead of the tree. ``depth``: levels of the tree, by default as many as fit in
        200 lines. ``width``: characters of a line, by default the terminal's.
        """
        columns = shutil.get_terminal_size((100, 24)).columns if width is None else width
        return str(self._native.text(modules, depth, columns))

    def __repr__(self) -> str:
        return str(self).rpartition("\n\n")[2]


@dataclass(frozen=True)
class TensorForm:
    """dtype and shape as stored."""

    dtype: str
    shape: list[int]


@dataclass(frozen=True)
class TensorDiff:
    """A tensor that differs.

    ``kind`` is "only_in_a", "only_in_b", "dtype", "shape", "content" or "not_compared"; ``differing_bytes`` and ``first``, the
    index of the first element that differs, are of "content".
    """

    kind: str
    name: str
    a: TensorForm | None
    b: TensorForm | None
    differing_bytes: int = 0
    first: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class FileDiff:
    """A difference in a file without tensors: of the whole file, or of the JSON value at ``path``.

    ``kind`` is "only_in_a", "only_in_b" or "content"; a side that lacks the value has None.
    """

    kind: str
    file: str
    path: str = ""
    a: Any = None
    b: Any = None


@dataclass(repr=False, eq=False)
class DiffReport(Report):
    """How two checkpoints differ; ``same`` where they do not."""

    same: bool
    a: str
    b: str
    data: bool
    equal_tensors: int
    equal_files: int
    compared_bytes: int
    tensors: list[TensorDiff]
    files: list[FileDiff]
    notes: list[str]

    def text(self, *, all: bool = False) -> str:
        """Each kind of difference with up to five examples, or with every one."""
        return str(self._native.text(all))

    def __repr__(self) -> str:
        return str(self).rpartition("\n")[2]


@dataclass(repr=False, eq=False)
class RulesReport(Report):
    """The mapping that applies to a checkpoint; ``transforms`` are in the form of mapping files, in load order.

    ``unmapped`` says why nothing is known of a model; it has no transforms then.
    """

    architecture: str
    mapping: MappingVersion
    pattern_rules: int
    submodels: list[SubModel]
    transforms: list[dict[str, Any]]
    unmapped: str = ""
    notes: list[str] = field(default_factory=list)
    names: list[ExplainedName] = field(default_factory=list)
    reference: RuleComparison | None = None

    def __repr__(self) -> str:
        if self.unmapped:
            return f"{self.architecture}, no mapping: {self.unmapped}"
        return (f"{self.architecture}, mapping of {self.mapping.version}: {len(self.transforms)} transforms in "
                f"{len(self.submodels)} sub-models")


# ---- quantize, dequantize


@dataclass(frozen=True)
class FormatTotal:
    """All weights of one format ("" for dequantized); ``sqnr_db`` is over all elements, infinite without errors.

    ``cast_blocks`` are those of MXFP4 weights whose powers of two became the scales of NVFP4, and ``exact_blocks`` those of
    them that kept their numbers.
    """

    format: str
    weights: int
    bytes_before: int
    bytes_after: int
    sqnr_db: float
    cast_blocks: int
    exact_blocks: int


@dataclass(frozen=True)
class ModuleFormat:
    """What the recipe says of one module in memory, and the hub's modules it is made of.

    ``kind`` is "linear", "experts", "convolution", "embedding", "attention" or "router"; ``format`` is None where it stays as
    it is; ``experts`` counts those of a container.
    """

    name: str
    kind: str
    format: str | None
    block_size: int
    experts: int
    hub: list[str]


@dataclass(frozen=True)
class QuantizedWeight:
    """What became of one matrix of ``shape`` [rows, columns].

    ``sqnr_db`` is 10 log10 of the sum of squares over the sum of squared errors, infinite without errors; ``max_error`` is of
    one element; ``clipped_share`` is of elements beyond what their scale can express; ``cast_blocks`` and ``exact_blocks`` are
    as in ``FormatTotal``.
    """

    name: str
    in_memory: str
    format: str
    shape: list[int]
    bytes_before: int
    bytes_after: int
    sqnr_db: float
    max_error: float
    clipped_share: float
    cast_blocks: int
    exact_blocks: int


@dataclass(repr=False, eq=False)
class QuantizeReport(Report):
    """What ``quantize`` or ``dequantize`` did; ``weights`` begins with those that lost most."""

    recipe: str
    architecture: str
    mapping: str
    kv_cache: str | None
    exclude_modules: list[str]
    input_tensors: int
    output_tensors: int
    bytes_before: int
    bytes: int
    files: int
    cloned_bytes: int
    totals: list[FormatTotal]
    modules: list[ModuleFormat]
    weights: list[QuantizedWeight]
    left_out: list[str]
    notes: list[str]
    warnings: list[ReportWarning]

    def text(self, *, most: int = 10) -> str:
        """The ``most`` weights that lost most and the totals by format as tables, and what was done."""
        return f"{self._native.text(most)}{self._native.summary()}"

    def _native_texts(self) -> dict[str, str]:
        native = self._native
        return {"text": native.text(10), "summary": native.summary(), "plan_text": native.plan_text()}

    def __repr__(self) -> str:
        return str(self._native.summary()).rstrip("\n")


@dataclass(repr=False, eq=False)
class QuantizePlan(QuantizeReport):
    """What ``quantize`` would do: ``modules`` is filled, ``weights`` has no errors yet."""

    def text(self, *, most: int = 10) -> str:
        """A line for each module."""
        return str(self._native.plan_text())

    def __repr__(self) -> str:
        return (f"{self.recipe}: {self.bytes_before:,} bytes in {self.input_tensors} tensors would become {self.bytes:,} bytes in "
                f"{self.output_tensors} tensors and {self.files} files")


@dataclass(frozen=True)
class Recipe:
    """A recipe or preset by name; ``refused`` says why it can't be carried out, and is None where it can."""

    name: str
    description: str
    refused: str | None


@dataclass(repr=False, eq=False)
class RecipeList(Report):
    """The built-in recipes, and the presets for ``kv_cache``."""

    recipes: list[Recipe]
    kv_caches: list[Recipe]

    def __repr__(self) -> str:
        return f"{len(self.recipes)} recipes, {len(self.kv_caches)} KV cache presets"
