"""`proctool run RECIPE`: plan an experiment's stages, run what is missing, report."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from proctool.errors import CorpusError, OptionError, RunError
from proctool.units import format_count

if TYPE_CHECKING:
    from proctool.experiment.execute import Failure
    from proctool.experiment.graph import Plan


def run(
    recipe: Annotated[Path, typer.Argument(help="The experiment: a YAML file.", show_default=False)],
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Stages at a time (default: one per core up to 4; 1 with an accelerator).")
    ] = None,
    runs: Annotated[Path, typer.Option("--runs", help="Folder in which the experiment's folder is made.")] = Path(
        "runs"
    ),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the stages and what they cost; run nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable result on standard output.")] = False,
) -> None:
    """Run an experiment: every arm and seed, as far as it is not done yet; then compare and report.

    Interrupted, the same command goes on. After a change to the recipe only what means something else is run.
    """
    from proctool.experiment.graph import plan
    from proctool.recipe import load_recipe

    loaded = load_recipe(recipe)
    planned = plan(loaded, runs / loaded.name)
    _check_corpora(planned)
    if dry_run:
        _show_plan(planned, as_json)
        return
    command = shlex.join(["proctool", "run", str(recipe), *([] if runs == Path("runs") else ["--runs", str(runs)])])
    failures = _execute(planned, recipe.read_text(encoding="utf-8"), command, jobs)
    if planned.missing() and len(failures) == len(planned.stages):
        raise RunError("every stage failed; see above")
    from proctool.cli.report import show_report

    show_report(planned.root, as_json=as_json, markdown=False)
    if failures:
        names = ", ".join(failure.stage.name for failure in failures)
        raise RunError(f"{len(failures)} of {len(planned.stages)} stages failed ({names}); run again to retry them")


def _execute(planned: Plan, source: str, command: str, jobs: int | None) -> list[Failure]:
    from rich.console import Console

    from proctool.experiment.execute import PROCTOOL, default_jobs, execute
    from proctool.experiment.progress import LiveDisplay, PlainDisplay
    from proctool.experiment.record import write_record

    write_record(planned, source, command)
    console = Console(stderr=True)
    display = LiveDisplay(console) if console.is_terminal else PlainDisplay(sys.stderr)
    with display:
        return execute(
            planned, jobs=jobs or default_jobs(), display=display, command=PROCTOOL, resume_with=f"`{command}`"
        )


def _check_corpora(planned: Plan) -> None:
    """A misspelt corpus or tokenizer is caught before anything is trained. Raises OptionError."""
    from proctool.corpora import open_corpus
    from proctool.training.options import PretrainOptions

    for name in {stage.options.corpus for stage in planned.stages if isinstance(stage.options, PretrainOptions)}:
        try:
            open_corpus(name)
        except CorpusError as error:
            raise OptionError(f"corpus: {error}") from None


def _show_plan(planned: Plan, as_json: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from proctool.cli.display import emit

    stages = [(stage, stage.state(planned.root)) for stage in planned.stages]
    if as_json:
        emit(
            {
                "name": planned.recipe.name,
                "folder": str(planned.root),
                "stages": [_as_json(*each, planned) for each in stages],
            }
        )
        return
    console = Console(soft_wrap=True)
    table = Table("stage", "key", "state", header_style="bold", border_style="dim")
    for head in ("steps", "tokens"):
        table.add_column(head, justify="right")
    table.add_column("starts from")
    for stage, state in stages:
        cells = (stage.name, stage.key[:8], state, str(stage.steps), format_count(stage.tokens))
        table.add_row(
            *cells, stage.donor.name if stage.donor else "fresh weights", style="dim" if state == "done" else ""
        )
    console.print(table)
    todo = [stage for stage, state in stages if state != "done"]
    tokens = format_count(sum(stage.tokens for stage in todo))
    console.print(f"{len(todo)} of {len(stages)} stages to run, {tokens} tokens in all; nothing was run")
    for stage in todo:
        print(shlex.join(["proctool", *stage.argv(planned.root)]))


def _as_json(stage: Any, state: str, planned: Plan) -> dict[str, Any]:
    return {
        "name": stage.name,
        "key": stage.key,
        "state": state,
        "steps": stage.steps,
        "tokens": stage.tokens,
        "parents": [parent.key for parent in stage.parents],
        "folder": str(stage.folder(planned.root)),
        "command": ["proctool", *stage.argv(planned.root)],
    }
