"""Warnings of reports, as values."""
from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReportWarning:
    """What may not be what one wants, though nothing is wrong in what was written.

    ``id`` names the kind, ``count`` the modules or tensors it is about, ``names`` the first three of them, ``remedy`` what to
    do. ``str`` is the line that the command line prints.
    """

    id: str
    text: str
    count: int
    names: list[str]
    remedy: str

    def __str__(self) -> str:
        line = self.text
        if self.count:
            more = ", ..." if self.count > len(self.names) else ""
            line += f" ({self.count}: {', '.join(self.names)}{more})"
        return f"{line}; {self.remedy}" if self.remedy else line
