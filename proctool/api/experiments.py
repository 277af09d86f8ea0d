"""Experiments from Python: run a recipe, read a folder's report."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Self

from proctool.arguments import count_of, path_of, truth_of
from proctool.errors import OptionError, RunError, notice

if TYPE_CHECKING:
    from proctool.experiment.execute import Progress
    from proctool.reporting.report import Report


class _Silent:
    """A display that shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def update(self, progress: Progress) -> None: ...


def run(
    recipe: str | Path, *, runs: str | Path = "runs", jobs: int | None = None, smoke: bool = False, yes: bool = False
) -> Report:
    """Run an experiment, as `proctool run RECIPE` does, and compare its arms.

    Finished stages are skipped, and an interrupted experiment resumes. Each stage is a process, `jobs` at a time
    (default: one per core, at most 4; 1 with an accelerator). `smoke` makes every stage tiny and runs all of them in
    this process. A sweep of more than 200 runs needs `yes`. The experiment's folder is created in `runs`. No page and
    no figures are written; `proctool report` writes them.

    Raises OptionError for an invalid recipe, RunError if a stage fails, Interrupted.
    """
    from proctool.cli.main import app
    from proctool.experiment import launch
    from proctool.experiment.execute import default_jobs, execute
    from proctool.experiment.graph import plan
    from proctool.experiment.in_process import execute_here
    from proctool.experiment.inputs import check_inputs
    from proctool.experiment.ladder import require_text
    from proctool.experiment.record import require_experiment_folder, write_record
    from proctool.experiment.selection import require_few_runs
    from proctool.recipe import load_recipe
    from proctool.recipe.smoke import smoke as smaller

    path, runs = path_of("recipe", recipe), path_of("runs", runs)
    smoke, yes = truth_of("smoke", smoke), truth_of("yes", yes)
    jobs = None if jobs is None else count_of("jobs", jobs, 1)
    if not path.is_file():
        raise OptionError(f"{path}: no such recipe file")
    loaded = load_recipe(path)
    if smoke:
        loaded = smaller(loaded)
    planned = plan(loaded, runs / loaded.name)
    require_experiment_folder(planned)
    for note in check_inputs(planned, quick=False):
        notice(note)
    require_few_runs(planned, yes or smoke)
    require_text(planned, yes or smoke)
    command = shlex.join(
        [
            "proctool",
            "run",
            str(path),
            *(["--smoke"] if smoke else []),
            *(["--runs", str(runs)] if str(runs) != "runs" else []),
        ]
    )
    write_record(planned, path.read_text(encoding="utf-8"), command, smoke=smoke)
    if smoke:
        failures = execute_here(planned, lambda words: app(words, standalone_mode=False), _Silent())
    else:
        jobs = jobs or default_jobs(planned.recipe.launch.processes)
        failures = execute(planned, jobs=jobs, display=_Silent(), command=launch.PROCTOOL)
    if failures:
        first = failures[0]
        raise RunError(
            f"{len(failures)} of {len(planned.stages)} stages failed; the first is {first.stage.name}: {first.error} "
            f"(log: {first.log}); run again when the cause is mended"
        )
    return report(planned.root)


def report(folder: str | Path) -> Report:
    """The results of an experiment so far: by arm, with verdicts and diagnostics. Nothing is written.

    Raises RunError if the folder is not an experiment, ArtifactError.
    """
    from proctool.reporting.experiment import load_experiment
    from proctool.reporting.report import build_report

    return build_report(load_experiment(path_of("folder", folder)))
