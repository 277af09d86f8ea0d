"""What fits a terminal: narrow ones lose whole columns of a table and break lines between words, never within them."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import TextIO

GAP = 3
"""Characters between two columns: a divider with a space on each side."""


def fitting(widths: Mapping[str, int], room: int, drop: Sequence[str] = ()) -> list[str]:
    """The columns that fit `room` characters, in their order.

    `widths` gives the characters that each column needs. Columns in `drop` go first, in that order, then the others
    from the right. The first column always stays.
    """
    kept = list(widths)
    for name in (*(each for each in drop if each in widths), *reversed([*widths])):
        if sum(widths[each] + GAP for each in kept) <= room or len(kept) == 1:
            break
        if name in kept[1:]:
            kept.remove(name)
    return kept


def shrunk(widths: Mapping[str, int], least: Mapping[str, int], room: int) -> dict[str, int]:
    """Widths of columns that share `room` characters: the widest are narrowed first, none below its `least`."""
    found = dict(widths)
    while sum(found.values()) + GAP * len(found) > room:
        wide = [name for name in found if found[name] > least[name]]
        if not wide:
            break
        found[max(wide, key=lambda name: found[name])] -= 1
    return found


def left_out(widths: Mapping[str, int], kept: Sequence[str]) -> str | None:
    """A line about the columns that were dropped; None if none was."""
    names = [name for name in widths if name not in kept]
    return f"not shown in this narrow terminal: {', '.join(names)}" if names else None


def wrapped(text: str, stream: TextIO, hanging: int = 2) -> str:
    """`text` with line breaks between words if `stream` is a terminal; a file or a pipe gets long lines.

    Lines after the first are indented by `hanging` spaces. A word longer than the terminal keeps its characters.
    """
    if not stream.isatty():
        return text
    return textwrap.fill(
        text, shutil.get_terminal_size().columns, subsequent_indent=" " * hanging, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
