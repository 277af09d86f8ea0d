"""`proctool compare RUN RUN...`: pretraining runs against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Run folders of `proctool pretrain`, each FOLDER or NAME=FOLDER; one NAME several times is one arm "
            "with several seeds.",
            show_default=False,
        ),
    ],
    baseline: Annotated[
        str | None, typer.Option(help="The name that others are compared with.", show_default="the first")
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write an HTML page with the curves here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable result on standard output.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Table and verdicts in Markdown.")] = False,
) -> None:
    """Compare pretraining runs: tokens to the baseline's final loss, tokens saved, gain at equal tokens."""
    from proctool.cli.report import print_comparison
    from proctool.reporting.experiment import load_runs
    from proctool.reporting.report import build_report

    built = build_report(load_runs(runs, baseline))
    if html is not None:
        from proctool.reporting.page import write_page

        write_page(built, html)
    if as_json:
        from proctool.cli.display import emit

        emit(built.as_json())
    else:
        print_comparison(built, markdown=markdown)
