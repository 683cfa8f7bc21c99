"""What a report of verify says of an engine."""
from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineFinding:
    """What a check of an engine found; ``problem`` is false where the checkpoint loads all the same."""

    check: str
    problem: bool
    unchecked: bool
    file: str
    subject: str
    reason: str
    remedy: str


@dataclass(frozen=True)
class EngineReport:
    """Whether an engine loads a checkpoint. ``held``: the checks were held to the engine itself, not to its source.
    ``complete``: all that the engine reads was checked; else findings that are ``unchecked`` say what was not."""

    engine: str
    version: str
    held: bool
    complete: bool
    findings: list[EngineFinding]
