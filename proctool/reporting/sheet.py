"""One table of a report."""

from __future__ import annotations

from dataclasses import dataclass

NONE = "\N{EN DASH}"
"""A cell without a value."""


@dataclass(frozen=True)
class Sheet:
    """One table. Cells show intervals as `mean [low, high]`."""

    name: str
    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    words: int = 1
    """Columns at the left that hold words, not numbers."""
    drop: tuple[str, ...] = ()
    """Columns that a narrow terminal leaves out first."""
