"""`proctool run RECIPE`: plan an experiment's stages, run what is missing, report."""

from __future__ import annotations

import json
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from proctool.cli.display import say
from proctool.errors import RunError
from proctool.outputs import Output, require_safe
from proctool.paths import AS_PATH

if TYPE_CHECKING:
    from proctool.experiment.execute import Display, Failure
    from proctool.experiment.graph import Plan


class Scheduler(StrEnum):
    """What `--emit` writes for."""

    MAKE = "make"
    SLURM = "slurm"


def _print_schema(wanted: bool) -> None:
    if wanted:
        from proctool.recipe.schema import recipe_schema

        print(json.dumps(recipe_schema(), indent=2))
        raise typer.Exit


def run(
    recipe: Annotated[
        Path, typer.Argument(help="A YAML file, or a name from `proctool recipes list`.", show_default=False, **AS_PATH)
    ],
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Parallel stages (default: one per core up to 4; 1 on accelerators).")
    ] = None,
    runs: Annotated[Path, typer.Option("--runs", help="Parent folder of the experiment's folder.", **AS_PATH)] = Path(
        "runs"
    ),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the stages and their costs; run nothing.")] = False,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Try the whole recipe with tiny stages, in about a minute.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Allow more than 200 runs, or more than 4 epochs in a ladder.")
    ] = False,
    emit: Annotated[
        Scheduler | None,
        typer.Option(help="Run nothing: print a Makefile, or write job arrays for Slurm.", show_default=False),
    ] = None,
    schema: Annotated[
        bool,
        typer.Option(
            "--schema", callback=_print_schema, is_eager=True, help="Print the JSON schema of recipes and exit."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")] = False,
) -> None:
    """Run every unfinished stage of an experiment, then compare and report.

    The same command resumes after an interruption. After a change to the recipe, only stages whose settings changed
    run again. Stages that another experiment under the same --runs has finished are reused.
    """
    from proctool.experiment.graph import plan
    from proctool.experiment.inputs import check_inputs
    from proctool.experiment.ladder import require_text
    from proctool.experiment.record import require_experiment_folder, write_record
    from proctool.experiment.selection import require_few_runs
    from proctool.recipe import load_recipe
    from proctool.recipe.library import recipe_path
    from proctool.recipe.smoke import smoke as smaller

    file = recipe_path(recipe)
    loaded = load_recipe(file)
    if smoke:
        loaded = smaller(loaded)
    planned = plan(loaded, runs / loaded.name)
    require_experiment_folder(planned)
    for note in check_inputs(planned, quick=dry_run or emit is not None):
        say(f"run: {note}")
    if dry_run:
        from proctool.cli.dry_run import show_plan

        show_plan(planned, as_json)
        return
    require_few_runs(planned, yes or smoke)
    require_text(planned, yes or smoke)
    words = ["proctool", "run", str(recipe), *(["--smoke"] if smoke else [])]
    command = shlex.join([*words, *([] if runs == Path("runs") else ["--runs", str(runs)])])
    source = file.read_text(encoding="utf-8")
    if emit is Scheduler.SLURM:
        require_safe([Output(planned.root / "slurm" / "submit.sh", "--runs", "script", makes_folder=True)])
    write_record(planned, source, command, smoke=smoke)
    if emit is not None:
        if loaded.stop_hopeless:
            say("run: stop_hopeless has no effect on scripts; they run every seed")
        _emit(planned, emit)
        return
    failures = _try_out(planned) if smoke else execute_stages(planned, f"`{command}`", jobs)
    if planned.missing() and len(failures) == len(planned.stages):
        raise RunError("all stages failed; see the messages above")
    from proctool.cli.report import Form, show_report

    show_report(planned.root, form=Form.JSON if as_json else Form.TERMINAL)
    if failures:
        names = ", ".join(failure.stage.name for failure in failures)
        raise RunError(
            f"{len(failures)} of {len(planned.stages)} stages failed ({names}); "
            "run the command again when the cause is mended"
        )


def _emit(planned: Plan, scheduler: Scheduler) -> None:
    from proctool import artifact
    from proctool.experiment import emit
    from proctool.experiment.adopt import adopt
    from proctool.experiment.execute import alone_in

    with alone_in(planned.root):
        adopt(planned)
        emit.stamp(planned)
    if scheduler is Scheduler.MAKE:
        print(emit.makefile(planned), end="")
        return
    files = emit.slurm(planned)
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with artifact.replacing(path) as file:
            file.write(text.encode(errors="surrogateescape"))  # names of files as they are
    print(f"bash {shlex.quote(str(planned.root / 'slurm' / 'submit.sh'))}")


def _display() -> Display:
    from rich.console import Console

    from proctool.experiment.progress import LiveDisplay, PlainDisplay

    console = Console(stderr=True)
    return LiveDisplay(console) if console.is_terminal else PlainDisplay(sys.stderr)


def execute_stages(planned: Plan, resume_with: str, jobs: int | None) -> list[Failure]:
    """Run what is missing, each stage in its own process, and show progress; returns the failures."""
    from proctool.experiment import launch
    from proctool.experiment.execute import default_jobs, execute

    with _display() as display:
        return execute(
            planned,
            jobs=jobs or default_jobs(planned.recipe.launch.processes),
            display=display,
            command=launch.PROCTOOL,
            resume_with=resume_with,
        )


def _try_out(planned: Plan) -> list[Failure]:
    """Run tiny stages one after the other in this process: starting a process for each would take most of the time."""
    from proctool.cli.main import app
    from proctool.experiment.in_process import execute_here

    with _display() as display:
        return execute_here(planned, lambda words: app(words, standalone_mode=False), display)
