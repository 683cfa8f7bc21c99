"""Containers of fused experts, found by structure, and the linear calls inside them.

A container keeps its experts in 3-D parameters, `[experts, out, in]`, and calls `torch.nn.functional.linear` twice for
each expert that has tokens. Which class it is, and what it computes between the two calls, makes no difference.
"""
from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

import torch


@dataclass
class ExpertContainer:
    """A module with fused experts: `first` is `gate_up_proj`, or `up_proj` where there is no gate."""

    name: str
    module: torch.nn.Module
    first: str

    @property
    def experts(self) -> int:
        return len(self.stacked("down_proj"))

    def stacked(self, projection: str) -> torch.Tensor:
        """The 3-D parameter of a projection."""
        parameter = getattr(self.module, projection)
        assert isinstance(parameter, torch.Tensor)
        return parameter

    @property
    def class_name(self) -> str:
        return type(self.module).__name__

    @property
    def projections(self) -> tuple[str, str]:
        return self.first, "down_proj"


def _is_stacked(parameter: Any) -> bool:
    return isinstance(parameter, torch.Tensor) and parameter.dim() == 3


def first_projection(module: torch.nn.Module) -> Optional[str]:
    """`gate_up_proj` or `up_proj` of a container of fused experts; None for any other module."""
    if not hasattr(module, "num_experts") or not _is_stacked(getattr(module, "down_proj", None)):
        return None
    gate_up = getattr(module, "gate_up_proj", None)
    if _is_stacked(gate_up):
        return "gate_up_proj"
    if gate_up is None and getattr(module, "gate_proj", None) is None and _is_stacked(getattr(module, "up_proj", None)):
        return "up_proj"
    return None


def find_expert_containers(model: torch.nn.Module) -> list[ExpertContainer]:
    """All containers of fused experts in `model`, by their names in memory."""
    found = []
    for name, module in model.named_modules():
        first = first_projection(module)
        if first is not None:
            found.append(ExpertContainer(name, module, first))
    return found


class ExpertCall:
    """One forward call of a container: says of each linear in it which projection of which expert it computes.

    A weight is told by the storage that it is a view of, so that other linears between the two (an adapter's, say) do
    not mislead. Where the container copies its weights first, shapes and the order of calls decide, and which expert
    it is stays unknown.
    """

    def __init__(self, container: ExpertContainer):
        self.container = container
        self._down_is_next = False

    def place(self, weight: torch.Tensor) -> Optional[tuple[str, Optional[int]]]:
        """The projection and the expert (None: unknown) that `weight` belongs to; None for other weights."""
        for projection in self.container.projections:
            expert = self._expert_by_storage(self.container.stacked(projection), weight)
            if expert is not None:
                return projection, expert
        return self._place_by_shape(weight)

    @staticmethod
    def _expert_by_storage(stacked: torch.Tensor, weight: torch.Tensor) -> Optional[int]:
        if weight.dim() != 2 or stacked.device != weight.device or stacked.stride(0) == 0:
            return None
        if weight.untyped_storage().data_ptr() != stacked.untyped_storage().data_ptr():
            return None
        expert = (weight.storage_offset() - stacked.storage_offset()) // stacked.stride(0)
        return expert if 0 <= expert < stacked.shape[0] else None

    def _place_by_shape(self, weight: torch.Tensor) -> Optional[tuple[str, Optional[int]]]:
        alike = [name for name in self.container.projections
                 if weight.shape == self.container.stacked(name).shape[1:]]
        if not alike or isinstance(weight, torch.nn.Parameter):
            return None  # a parameter is a linear's own weight, not one of a stack
        projection = alike[0] if len(alike) == 1 else self.container.projections[self._down_is_next]
        self._down_is_next = projection != "down_proj"
        return projection, None


def _configs(config: Any) -> Iterator[Any]:
    """`config` and the configs inside it that say how experts are computed, parents first."""
    if not hasattr(config, "_experts_implementation"):
        return
    yield config
    for key in getattr(config, "sub_configs", None) or ():
        yield from _configs(getattr(config, key, None))


@contextlib.contextmanager
def eager_experts(containers: list[ExpertContainer]) -> Iterator[None]:
    """Lets every container compute expert by expert, with `linear`, instead of with grouped or batched products."""
    roots = {id(config): config for config in (getattr(c.module, "config", None) for c in containers)
             if config is not None}
    saved = [(config, config._experts_implementation) for root in roots.values() for config in _configs(root)]
    try:
        for config, _ in saved:
            config._experts_implementation = "eager"
        yield
    finally:
        for config, implementation in saved:  # setting a parent sets its children: theirs come after it
            config._experts_implementation = implementation
