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
            help="Run folders of `proctool pretrain` or `eval`, each FOLDER or NAME=FOLDER: one NAME several times is "
            "one arm with several seeds (with one seed several times: several budgets). Or one experiment's folder.",
            show_default=False,
        ),
    ],
    baseline: Annotated[
        str | None, typer.Option(help="The name that others are compared with.", show_default="the first")
    ] = None,
    loss: Annotated[
        float | None,
        typer.Option(help="The loss to be reached, in nats per token.", show_default="the baseline's final one"),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write an HTML page with the curves here.", **AS_PATH)
    ] = None,
    form: Annotated[Form, typer.Option("--format", help="How the result is written.")] = Form.TERMINAL,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Compare runs: tokens to the baseline's final loss, tokens and computation saved, gain at equal tokens."""
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
