"""A diagnostic with several inits and seeds as an experiment: one arm per init, one stage per run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from proctool import config
from proctool.errors import OptionError, RunError
from proctool.evaluation.diagnostic_run import init_labels, run_diagnostic
from proctool.evaluation.options import DiagnosticOptions, diagnostic_task
from proctool.evaluation.summary import summarise
from proctool.experiment.graph import Plan, plan
from proctool.experiment.record import is_record, require_experiment_folder
from proctool.experiment.stage import Stage
from proctool.outputs import Output, reads_of, require_safe
from proctool.recipe import Arm, Recipe
from proctool.reporting.metrics import MetricsLog, read_metrics
from proctool.reporting.record import RECORD, read_record
from proctool.results import RESULTS, DiagnosticRun, ResultLine, read_results
from proctool.training.run_form import read_form
from proctool.training.run_place import artifact_path

_NOT_SHARED = ("init", "seed", "run_dir", "output", "resume", "extend")
"""Options that each run sets itself, or that a study does not use."""


@dataclasses.dataclass(frozen=True)
class StudyRun:
    """One init with one seed, as a stage of the study's plan."""

    init: str
    """The label of the init, also the name of its arm."""
    init_file: str | None
    stage: Stage
    folder: Path

    @property
    def options(self) -> DiagnosticOptions:
        """All options of the run."""
        assert isinstance(self.stage.options, DiagnosticOptions)
        return dataclasses.replace(self.stage.options, run_dir=self.folder)


def study_recipe(diagnostic: str, options: DiagnosticOptions, inits: Sequence[str], seeds: Sequence[int]) -> Recipe:
    """The recipe of a study. Arms have the labels of the inits as their names, with any characters.

    The baseline is the arm with fresh weights if there is one, else the first arm.
    """
    diagnostic_task(diagnostic, options)  # first, so that its errors name no place in a recipe: the user wrote none
    given = {
        each.name: config.plain(getattr(options, each.name))
        for each in dataclasses.fields(options)
        if each.name not in _NOT_SHARED and getattr(options, each.name) != each.default
    }
    arms = {
        label: Arm(init=None if init == "none" else init) for label, init in zip(init_labels(inits), inits, strict=True)
    }
    return Recipe(
        name=f"eval-{diagnostic}",
        title=f"How {diagnostic} is learned from each init",
        model=options.model,
        arms=arms,
        seeds=tuple(seeds),
        diagnostics={diagnostic: given},
        baseline=next((label for label, arm in arms.items() if arm.init is None), next(iter(arms))),
    )


def study_plan(diagnostic: str, options: DiagnosticOptions, inits: Sequence[str], seeds: Sequence[int]) -> Plan:
    """The plan of a study in `options.run_dir`. Raises RunError, ArtifactError, OptionError for what cannot be run."""
    if options.output is not None:
        raise OptionError("output: several runs cannot share one file; leave it out, and find each model in --run-dir")
    root = options.run_dir or Path("runs") / f"eval-{diagnostic}"
    planned = plan(study_recipe(diagnostic, options, inits, seeds), root)
    require_experiment_folder(planned, "--run-dir")
    if is_record(root / RECORD) and (name := read_record(root).name) != planned.recipe.name:
        raise RunError(f"{root}: is the folder of another experiment ({name}); choose another --run-dir")
    reads = [read for run in study_runs(planned) for read in reads_of(run.options)]
    require_safe([Output(root / RESULTS, "--run-dir", "results", makes_folder=True)], reads)
    if options.resume == "never":
        raise OptionError(
            f"resume: a study always keeps its finished runs; to start again, remove {root} or change --run-dir"
        )
    if options.extend:
        raise OptionError("extend: not supported for several runs; raise --steps, or extend a single run")
    return planned


def study_runs(planned: Plan) -> Iterator[StudyRun]:
    """The runs of a study: init by init, seed by seed."""
    for label, by_seed in planned.arms.items():
        for stages in by_seed.values():
            (stage,) = stages.diagnostics.values()
            yield StudyRun(label, planned.recipe.arms[label].init, stage, stage.folder(planned.root))


def study_results(planned: Plan) -> list[DiagnosticRun]:
    """The results of the finished runs. Raises RunError if a results file is damaged."""
    return [_result(run) for run in study_runs(planned) if run.stage.is_done(planned.root)]


def all_results(planned: Plan, found: Sequence[DiagnosticRun]) -> list[ResultLine]:
    """`found`, the runs that other commands finished in the study's folder, and the summaries of all of them.

    A summary is over runs that differ in the seed alone.
    """
    root, runs = planned.root, list(found)
    mine = {Path(run.run_dir).name for run in found}
    labels = {Path(run.run_dir).name: run.init for run in _readable(root / RESULTS)}
    for folder in sorted(each for each in root.iterdir() if each.is_dir() and each.name not in mine):
        log = MetricsLog(folder)
        log.update()
        for run in _readable(folder / RESULTS)[:1]:
            if run.diagnostic == found[0].diagnostic and log.end is not None and run.content == log.end.content:
                label = labels.get(folder.name, run.init)
                while any(each.init == label and each.init_content != run.init_content for each in runs):
                    label += "+"
                here: dict[str, Any] = {"init": label, "run_dir": str(folder), "artifact": str(artifact_path(folder))}
                runs.append(dataclasses.replace(run, **here))
    groups: dict[str, list[DiagnosticRun]] = {}
    for run in runs:
        groups.setdefault(f"{run.init} {_settings(Path(run.run_dir))}", []).append(run)
    return [*runs, *(summary for group in groups.values() for summary in summarise(group))]


def _readable(path: Path) -> list[DiagnosticRun]:
    """The runs in a file of results; none if it is missing or damaged, because it can be made again."""
    try:
        return [line for line in read_results(path) if isinstance(line, DiagnosticRun)]
    except (RunError, OSError):
        return []


def _settings(folder: Path) -> str:
    """The settings of a run without its seed."""
    found = {name: value for name, value in (read_form(folder) or {}).items() if name not in ("seed", "source.seed")}
    return json.dumps(found, sort_keys=True)


def _result(run: StudyRun) -> DiagnosticRun:
    here: dict[str, Any] = {  # the folder may come from another machine, and another init may have the same weights
        "init": run.init,
        "init_file": run.init_file,
        "run_dir": str(run.folder),
        "artifact": str(artifact_path(run.folder)),
    }
    end = read_metrics(run.folder).end
    path = run.folder / RESULTS
    for found in read_results(path) if path.exists() else ():
        if isinstance(found, DiagnosticRun) and end is not None and found.content == end.content:
            return dataclasses.replace(found, **here)
    # The run was killed after its last event and before it wrote its scores.
    return dataclasses.replace(run_diagnostic(run.stage.command[-1], run.options)[1], **here)
