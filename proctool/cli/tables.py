"""Results as Rich tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def show(
    columns: Mapping[str, str], rows: Iterable[Sequence[Any]], title: str | None = None, *, stderr: bool = False
) -> None:
    """Print a table; `columns` gives each header and how it is justified ("left" or "right")."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
    shown = [["–" if value is None else str(value) for value in row] for row in rows]
    cells = list(zip(columns, *shown, strict=True))
    for number, (name, justify) in enumerate(columns.items()):
        if justify == "right":  # numbers are shown whole; names give way
            table.add_column(name, justify="right", no_wrap=True, min_width=max(map(len, cells[number]), default=0))
        else:
            table.add_column(name, overflow="fold")
    for row in shown:
        table.add_row(*map(Text, row))
    console = Console(stderr=stderr)
    if not console.is_terminal:  # nothing is cut off in a file
        console = Console(stderr=stderr, width=160)
    console.print(table)
