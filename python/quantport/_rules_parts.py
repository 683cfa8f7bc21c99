"""What a report of rules is made of."""
from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class MappingVersion:
    """Whose mapping it is ("transformers 5.17.0") and why that one."""

    version: str
    reason: str


@dataclass(frozen=True)
class SubModel:
    """One sub-model as transformers composes it; the root's path is ""."""

    path: str
    class_name: str = field(metadata={"json": "class"})
    model_type: str


@dataclass(frozen=True)
class NameStep:
    """One transform at work on a name; ``pattern`` is the one of its patterns that matched."""

    transform: str
    pattern: str
    before: str
    after: str


@dataclass(frozen=True)
class ExplainedName:
    """What the mapping makes of a name, taken for an in-memory name (``saved``) and for a hub name (``loaded``)."""

    name: str
    parameter: str
    saved: list[NameStep]
    loaded: list[NameStep]


@dataclass(frozen=True)
class NameDifference:
    """A tensor for which the rules alone give another name than the reference has."""

    in_memory: str
    by_reference: str
    by_rule: str


@dataclass(frozen=True)
class RuleComparison:
    """Where the reference's names and the rules alone differ."""

    already_hub: bool
    differences: list[NameDifference]
    unused_transforms: list[str]
