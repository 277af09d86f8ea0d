"""Results as Rich tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from proctool.columns import GAP, fitting, left_out, shrunk

_WORDS = 24
"""Characters that a column of words keeps; longer cells continue on the next line."""
_FILE_WIDTH = 160
"""Width where the output is not a terminal."""


def show(
    columns: Mapping[str, str],
    rows: Iterable[Sequence[Any]],
    title: str | None = None,
    *,
    stderr: bool = False,
    drop: Sequence[str] = (),
) -> None:
    """Print a table; `columns` gives each header and how it is justified ("left" or "right").

    A narrow terminal gets fewer columns: those in `drop` go first, then the others from the right. A line names them.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(stderr=stderr)
    if not console.is_terminal:
        console = Console(stderr=stderr, width=_FILE_WIDTH)
    shown = [["–" if value is None else str(value) for value in row] for row in rows]
    cells = dict(zip(columns, zip(columns, *shown, strict=True), strict=True))
    full = {name: max(map(len, cells[name])) for name in columns}
    # Numbers need one line. Words may continue on the next line, but none is split unless it is longer than a line.
    longest = {name: max(len(word) for cell in cells[name] for word in cell.split() or [""]) for name in columns}
    least = {
        name: full[name] if columns[name] == "right" else min(longest[name], max(1, console.width - GAP))
        for name in columns
    }
    kept = fitting({name: max(least[name], min(full[name], _WORDS)) for name in columns}, console.width, drop)
    widths = shrunk({name: full[name] for name in kept}, least, console.width)
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for name in kept:
        if columns[name] == "right":
            table.add_column(name, justify="right", no_wrap=True, min_width=full[name])
        else:
            table.add_column(name, overflow="fold", width=widths[name])
    for row in shown:
        table.add_row(*(Text(cell) for name, cell in zip(columns, row, strict=True) if name in kept))
    console.print(table)
    if (said := left_out(full, kept)) is not None:
        console.print(said, style="dim", highlight=False, markup=False)
