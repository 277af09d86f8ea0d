"""Results as Rich tables."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from proctool.columns import GAP, fitting, left_out, shrunk

if TYPE_CHECKING:
    from rich.console import Console

_WORDS = 24
"""Characters that a column of words keeps; longer cells continue on the next line."""
_FILE_WIDTH = 160
"""Width where the output is not a terminal and COLUMNS is not set."""


def console(*, stderr: bool = False) -> Console:
    """A Rich console. In a file or a pipe its width does not depend on any terminal: it is COLUMNS, or 160."""
    from rich.console import Console

    made = Console(stderr=stderr)
    columns = os.environ.get("COLUMNS", "")
    if not (columns.isdecimal() and int(columns)):  # Rich takes a COLUMNS of 0 as the width
        made.width = shutil.get_terminal_size().columns if made.is_terminal else _FILE_WIDTH
    return made


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
    from rich.table import Table
    from rich.text import Text

    screen = console(stderr=stderr)
    shown = [["–" if value is None else str(value) for value in row] for row in rows]
    cells = dict(zip(columns, zip(columns, *shown, strict=True), strict=True))
    full = {name: max(map(len, cells[name])) for name in columns}
    # Numbers need one line. Words may continue on the next line, but none is split unless it is longer than a line.
    longest = {name: max(len(word) for cell in cells[name] for word in cell.split() or [""]) for name in columns}
    least = {
        name: full[name] if columns[name] == "right" else min(longest[name], max(1, screen.width - GAP))
        for name in columns
    }
    kept = fitting({name: max(least[name], min(full[name], _WORDS)) for name in columns}, screen.width, drop)
    widths = shrunk({name: full[name] for name in kept}, least, screen.width)
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for name in kept:
        if columns[name] == "right":
            table.add_column(name, justify="right", no_wrap=True, min_width=full[name])
        else:
            table.add_column(name, overflow="fold", width=widths[name])
    for row in shown:
        table.add_row(*(Text(cell) for name, cell in zip(columns, row, strict=True) if name in kept))
    screen.print(table)
    if (said := left_out(full, kept)) is not None:
        screen.print(said, style="dim", highlight=False, markup=False)
