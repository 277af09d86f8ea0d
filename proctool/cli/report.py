"""`proctool report FOLDER`: the table, the verdicts and the page of an experiment, from what its folder holds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from proctool.reporting.report import Report

PAGE = "report.html"


def report(
    folder: Annotated[Path, typer.Argument(help="An experiment's folder, such as runs/demo.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the page goes.", show_default="FOLDER/report.html")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable result on standard output.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Table and verdicts in Markdown.")] = False,
) -> None:
    """Rebuild an experiment's table, verdicts, HTML page and figures; unfinished stages are left out and named."""
    show_report(folder, as_json=as_json, markdown=markdown, output=output)


def show_report(folder: Path, *, as_json: bool, markdown: bool, output: Path | None = None) -> None:
    """Write the page (and figures where matplotlib is there) and print the comparison."""
    from proctool.reporting.experiment import load_experiment
    from proctool.reporting.figures import figures_available, write_figures
    from proctool.reporting.page import write_page
    from proctool.reporting.report import build_report

    built = build_report(load_experiment(folder))
    page = write_page(built, output or folder / PAGE)
    figures = write_figures(built, page.parent / "figures") if figures_available() else []
    if as_json:
        from proctool.cli.display import emit

        emit({**built.as_json(), "page": str(page), "figures": [str(each) for each in figures]})
        return
    print_comparison(built, markdown=markdown)
    if built.experiment.missing:
        print(f"not complete, left out: {', '.join(built.experiment.missing)}", file=sys.stderr)
    if figures:
        print(f"figures: {figures[0].parent}", file=sys.stderr)
    print(f"page: {page}", file=sys.stderr if markdown else sys.stdout)


def print_comparison(built: Report, *, markdown: bool) -> None:
    """The table and the verdicts on standard output."""
    from rich.console import Console

    from proctool.reporting.table import markdown as as_markdown
    from proctool.reporting.table import terminal_table

    if markdown:
        print(as_markdown(built))
        return
    console = Console()
    console.print(terminal_table(built))
    for sentence in built.verdicts or ["Nothing to compare yet."]:
        console.print(sentence, highlight=False, markup=False, soft_wrap=not console.is_terminal)
