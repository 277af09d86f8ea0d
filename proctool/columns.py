"""Which columns of a table fit a terminal: narrow terminals lose whole columns, never characters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_GAP = 3
"""Characters between two columns: a divider with a space on each side."""


def fitting(widths: Mapping[str, int], room: int, drop: Sequence[str] = ()) -> list[str]:
    """The columns that fit `room` characters, in their order.

    `widths` gives the characters that each column needs. Columns in `drop` go first, in that order, then the others
    from the right. The first column always stays.
    """
    kept = list(widths)
    for name in (*(each for each in drop if each in widths), *reversed([*widths])):
        if sum(widths[each] + _GAP for each in kept) <= room or len(kept) == 1:
            break
        if name in kept[1:]:
            kept.remove(name)
    return kept


def left_out(widths: Mapping[str, int], kept: Sequence[str]) -> str | None:
    """A line about the columns that were dropped; None if none was."""
    names = [name for name in widths if name not in kept]
    return f"not shown in this narrow terminal: {', '.join(names)}" if names else None
