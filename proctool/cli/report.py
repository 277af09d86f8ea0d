"""`proctool report FOLDER`: the tables, the verdicts, the figures and the page of an experiment."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from proctool.cli import tables
from proctool.outputs import Output, require_safe
from proctool.paths import AS_PATH

if TYPE_CHECKING:
    from proctool.reporting.report import Report

PAGE = "report.html"
_NOTHING = "Nothing to compare yet."


class Form(StrEnum):
    """How a result is written on standard output."""

    TERMINAL = "terminal"
    MARKDOWN = "markdown"
    LATEX = "latex"
    CSV = "csv"
    JSON = "json"


def report(
    folder: Annotated[
        Path, typer.Argument(help="An experiment's folder, such as runs/demo.", show_default=False, **AS_PATH)
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="HTML page to write (default: FOLDER/report.html).", **AS_PATH),
    ] = None,
    form: Annotated[Form, typer.Option("--format", help="Output format of the tables.")] = Form.TERMINAL,
    figures: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Figure formats: png, svg, pdf, or none (default: png if matplotlib is installed).",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Rebuild an experiment's tables, verdicts, HTML page and figures; list unfinished stages."""
    show_report(folder, form=Form.JSON if as_json else form, output=output, figures=figures)


def show_report(
    folder: Path, *, form: Form = Form.TERMINAL, output: Path | None = None, figures: str | None = None
) -> None:
    """Write the page and the figures, and print the comparison."""
    from proctool.reporting.experiment import load_experiment
    from proctool.reporting.figures import figure_kinds, figure_paths, write_figures
    from proctool.reporting.page import write_page
    from proctool.reporting.report import build_report

    kinds = figure_kinds(figures)  # a wrong kind is an error before anything is written
    experiment = load_experiment(folder)  # a wrong folder is said before the page in it
    page = output or folder / PAGE
    require_safe([Output(page, "--output", "page")])
    built = build_report(experiment)
    if page.parent != folder:
        drawings = figure_paths(built, page.parent / "figures", kinds)
        require_safe([Output(each, "--output", "figure", makes_folder=True) for each in drawings])
    write_page(built, page)
    drawn = write_figures(built, page.parent / "figures", kinds)
    print_report(built, form, {"page": str(page), "figures": [str(each) for each in drawn]})
    if form is Form.JSON:
        return
    if built.experiment.missing:
        print(f"left out, because not finished: {', '.join(built.experiment.missing)}", file=sys.stderr)
    if drawn:
        print(f"figures: {drawn[0].parent}", file=sys.stderr)
    print(f"page: {page}", file=sys.stdout if form is Form.TERMINAL else sys.stderr)


def print_report(built: Report, form: Form, more: dict[str, Any] | None = None) -> None:
    """The comparison on standard output; `more` goes with it for machines."""
    from proctool.reporting import render

    if form is Form.JSON:
        from proctool.cli.display import emit

        emit({**built.as_json(), **(more or {})})
        return
    if form is not Form.TERMINAL:
        text = {Form.MARKDOWN: render.markdown, Form.LATEX: render.latex, Form.CSV: render.tidy_csv}[form](built)
        print(text, end="" if text.endswith("\n") else "\n")
        return
    console = tables.console()
    if built.warning:
        console.print(built.warning, style="bold", highlight=False, markup=False, soft_wrap=not console.is_terminal)
    for table in render.terminal_tables(built, console.width):
        console.print(table)
    console.print()  # a caption would run into the first sentence
    for sentence in built.sentences or [_NOTHING]:
        console.print(sentence, highlight=False, markup=False, soft_wrap=not console.is_terminal)
    for remark in built.experiment.remarks:
        console.print(remark, style="dim", highlight=False, markup=False, soft_wrap=not console.is_terminal)
