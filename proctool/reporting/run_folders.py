"""Run folders outside an experiment, loaded as one: curves by given name and seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from proctool.errors import RunError
from proctool.paths import user_path
from proctool.reporting.compare import Run
from proctool.reporting.controls import Start
from proctool.reporting.experiment import Experiment, arm_of, load_experiment
from proctool.reporting.measured import (
    Score,
    Setting,
    Warmup,
    completed,
    joined,
    read_settings,
    run_of,
    score_of,
    setting_of,
    start_of,
    warmup_from_lineage,
)
from proctool.reporting.metrics import MetricsLog
from proctool.reporting.record import RECORD, ExperimentRecord
from proctool.training.run_place import RUN_SUFFIX


def load_runs(named: Sequence[str], baseline: str | None) -> Experiment:
    """Run folders of `pretrain` and `eval`, as FOLDER or NAME=FOLDER; or one experiment's folder.

    Runs of one name form one arm: of several seeds, and of several budgets if a seed repeats. The first name is the
    baseline unless `baseline` names another. Raises RunError, ArtifactError (a damaged file).
    """
    if len(named) == 1 and (user_path(named[0]) / RECORD).is_file():
        return _with_baseline(load_experiment(user_path(named[0])), baseline)
    found: dict[str, dict[int, list[tuple[Path, Run]]]] = {}
    scores: dict[str, dict[str, dict[int, Score]]] = {}
    starts: dict[str, Start] = {}
    warmups: dict[str, dict[int, Warmup]] = {}
    settings: dict[str, tuple[Path, Setting]] = {}
    first: dict[str, tuple[Path, Score]] = {}  # by diagnostic
    names: list[str] = []
    remarks: list[str] = []
    for each in named:
        name, folder = _named_folder(each)
        if (folder / RECORD).is_file():
            raise RunError(f"{folder}: is the folder of a whole experiment; give it alone, or give its run folders")
        log = completed(folder)
        names.append(name)
        diagnostic = _diagnostic_of(folder, log)
        warmup = warmup_from_lineage(folder, log)
        if warmup.tokens is None:
            remarks.append(
                f"{name}: the cost of its warm-up is unknown, because neither its model nor its donor exists."
            )
        starts.setdefault(name, start_of(log, warmup))
        warmups.setdefault(name, {}).setdefault(_seed_of(folder, log, len(warmups.get(name, {}))), warmup)
        if diagnostic is not None:
            score = _score(folder, log)
            by_seed = scores.setdefault(diagnostic, {}).setdefault(name, {})
            _keep(by_seed, _seed_of(folder, log, len(by_seed)), score, name, folder)
            _check_task(folder, score, *first.setdefault(diagnostic, (folder, score)))
            continue
        run = run_of(log, warmup)
        if run is None:
            raise RunError(f"{log.path}: has no validation loss to compare")
        of_arm = found.setdefault(name, {})
        of_arm.setdefault(_seed_of(folder, log, len(of_arm)), []).append((folder, run))
        settings.setdefault(str(folder), (folder, setting_of(log)))
    base = baseline or names[0]
    if base not in names:
        raise RunError(f'baseline: no run is named "{base}"; choose from {", ".join(dict.fromkeys(names))}')
    _check_settings(list(settings.values()))
    runs = {name: {seed: _one(name, seed, each) for seed, each in of.items()} for name, of in found.items()}
    _check_seeds(runs, base)
    for group in scores.values():
        _check_seeds(group, base)
    record = ExperimentRecord(baseline=base, stages={}, arms={})
    said = tuple(dict.fromkeys(remarks))
    return Experiment(None, record, base, runs, scores, starts=starts, warmups=warmups, remarks=said)


def _with_baseline(experiment: Experiment, baseline: str | None) -> Experiment:
    if baseline is None or baseline == experiment.baseline:
        return experiment
    if baseline not in experiment.arms:
        raise RunError(f'baseline: no arm is named "{baseline}"; choose from {", ".join(experiment.arms)}')
    return dataclasses.replace(experiment, baseline=baseline)


def _named_folder(written: str) -> tuple[str, Path]:
    name, equals, folder = written.partition("=")
    if equals and not user_path(written).exists():
        if not name:
            raise RunError(f"{written}: the name before = is empty; write NAME={folder}, or the folder alone")
        return name, user_path(folder)
    path = user_path(written)
    return arm_of(path) or (path.name or path.resolve().name).removesuffix(RUN_SUFFIX), path


def _diagnostic_of(folder: Path, log: MetricsLog) -> str | None:
    """The name of the diagnostic that a run is, None for pretraining. Raises RunError for anything else."""
    command = log.start.command if log.start is not None else ""
    if command in ("", "pretrain"):
        return None
    kind, _, name = command.partition(" ")
    if kind != "eval":
        raise RunError(f"{folder}: is a run of `proctool {command}`; only runs of pretrain and eval can be compared")
    return name


def _score(folder: Path, log: MetricsLog) -> Score:
    score = score_of(log, read_settings(folder).get("eval_samples"))
    if not score.accuracy:
        raise RunError(f"{log.path}: has no validation accuracy to compare")
    return score


def _keep(by_seed: dict[int, Any], seed: int, measured: Any, name: str, folder: Path) -> None:
    if seed in by_seed:
        raise RunError(f"{folder}: {name} already has a run with seed {seed}; give it its own name: NAME={folder}")
    by_seed[seed] = measured


def _one(name: str, seed: int, runs: Sequence[tuple[Path, Run]]) -> Run:
    """Runs with one seed as several budgets of it. Raises RunError where two have the same budget."""
    seen: dict[float, Run] = {}
    for folder, run in runs:
        if run.curve.end in seen:
            raise RunError(f"{folder}: {name} already has a run with seed {seed}; give it its own name: NAME={folder}")
        seen[run.curve.end] = run
    return joined(list(seen.values()))


def _seed_of(folder: Path, log: MetricsLog, default: int) -> int:
    if log.start is not None and log.start.seed is not None:
        return log.start.seed
    return int(read_settings(folder).get("seed", default))


def _check_settings(settings: Sequence[tuple[Path, Setting]]) -> None:
    if not settings:
        return
    first, expected = settings[0]
    for folder, setting in settings[1:]:
        differs = setting.differs(expected)
        if differs is not None:
            raise RunError(
                f"{folder}: losses are not comparable with those of {first}: it has {differs}; leave one out"
            )


def _check_task(folder: Path, score: Score, first: Path, expected: Score) -> None:
    differs = score.differs(expected)
    if differs is not None:
        raise RunError(
            f"{folder}: accuracies are not comparable with those of {first}: it has {differs}; leave one out"
        )


def _check_seeds(group: Mapping[str, Mapping[int, Any]], base: str) -> None:
    if not group:
        return
    if base not in group:
        raise RunError(f"baseline: {base} has no run to compare {' and '.join(group)} with; choose another --baseline")
    for name, by_seed in group.items():
        if not by_seed.keys() & group[base].keys():
            raise RunError(
                f"{name} (seeds {_listed(by_seed)}) and {base} (seeds {_listed(group[base])}) have no common seed; "
                "train them with the same seeds to compare them"
            )


def _listed(seeds: Mapping[int, Any]) -> str:
    return ", ".join(map(str, sorted(seeds)))
