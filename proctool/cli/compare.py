"""`proctool compare RUN RUN...`: runs against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from proctool.cli.report import Form
from proctool.outputs import Output, require_safe
from proctool.paths import AS_PATH


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Run folders of `proctool pretrain` or `eval`, as FOLDER or NAME=FOLDER, or one experiment's folder. "
            "Repeat a NAME to make one arm of several seeds, or of several budgets with one seed.",
            show_default=False,
        ),
    ],
    baseline: Annotated[str | None, typer.Option(help="Name of the run to compare with (default: the first).")] = None,
    loss: Annotated[
        float | None,
        typer.Option(help="Target loss in nats per token (default: the baseline's final loss)."),
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", help="HTML page with the curves to write.", **AS_PATH)] = None,
    form: Annotated[Form, typer.Option("--format", help="Output format.")] = Form.TERMINAL,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Compare runs: tokens to the baseline's final loss, tokens and compute saved, gain at equal tokens."""
    from proctool.cli.report import print_report
    from proctool.reporting.report import build_report
    from proctool.reporting.run_folders import load_runs

    if html is not None:
        require_safe([Output(html, "--html", "page")])
    built = build_report(load_runs(runs, baseline), loss)
    if html is not None:
        from proctool.reporting.page import write_page

        write_page(built, html)
    print_report(built, Form.JSON if as_json else form)
