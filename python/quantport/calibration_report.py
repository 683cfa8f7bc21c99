"""What a calibration saw. Needs no torch."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Optional

from quantport.errors import QuantportError

_SHOWN = 8


class CalibrationError(QuantportError):
    """A calibration that can't be made: no batches, or activations that are not finite."""


@dataclass
class ExpertsReport:
    """One container of experts: how many tokens (rows) reached each. `tokens` is None where that can't be told."""

    name: str
    class_name: str
    experts: int
    tokens: Optional[list[int]]

    @property
    def unseen(self) -> list[int]:
        """The experts that no token reached."""
        return [] if self.tokens is None else [i for i, count in enumerate(self.tokens) if count == 0]

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "class": self.class_name, "experts": self.experts, "tokens": self.tokens,
                "unseen": self.unseen}


@dataclass(repr=False)
class CalibrationReport:
    """What `calibrate` saw: `print` it, or take `to_dict()`."""

    path: str
    batches: int
    seconds: float
    linears: int
    attentions: int
    containers: list[ExpertsReport] = field(default_factory=list)
    unseen_modules: list[str] = field(default_factory=list)

    @property
    def unseen_experts(self) -> int:
        """The number of experts that no token reached, of all containers."""
        return sum(len(container.unseen) for container in self.containers)

    def to_dict(self) -> dict[str, Any]:
        return {"path": self.path, "batches": self.batches, "seconds": self.seconds, "linears": self.linears,
                "attentions": self.attentions, "containers": [c.to_dict() for c in self.containers],
                "unseen_experts": self.unseen_experts, "unseen_modules": list(self.unseen_modules)}

    def __repr__(self) -> str:
        lines = [f"calibration {self.path}: {count_of(self.batches, 'batch', 'batches')}, inputs of "
                 f"{count_of(self.linears, 'linear')}, K and V of {count_of(self.attentions, 'attention')}, "
                 f"{self.seconds:.1f} s"]
        if self.containers:
            experts = sum(c.experts for c in self.containers)
            lines.append(f"  {count_of(experts, 'expert')} in {count_of(len(self.containers), 'container')}, "
                         f"{self.unseen_experts} of them saw no token")
        for container in self.containers:
            if container.tokens is None:
                lines.append(f"  {container.name} ({container.class_name}): which expert saw tokens is unknown")
            elif container.unseen:
                lines.append(f"  {container.name} ({container.class_name}, {count_of(container.experts, 'expert')}): "
                             f"no token reached {listed(map(str, container.unseen))}")
        if self.unseen_modules:
            lines.append(f"  nothing reached {count_of(len(self.unseen_modules), 'module')}: "
                         f"{listed(self.unseen_modules)}")
        return "\n".join(lines)


def count_of(number: int, one: str, more: Optional[str] = None) -> str:
    return f"{number} {one if number == 1 else more or one + 's'}"


def listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
