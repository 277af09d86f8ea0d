"""Runs on disk as curves by arm and seed: an experiment's folder, or any pretraining run folders."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from proctool.errors import RunError
from proctool.reporting.compare import Curve, Run
from proctool.reporting.metrics import MetricsLog, read_metrics

RECORD = "experiment.json"


@dataclass(frozen=True, eq=False)
class Score:
    """One diagnostic from one arm with one seed: accuracy (share of targets right) on held-out samples."""

    tokens: tuple[int, ...]
    accuracy: tuple[float, ...]
    samples: int | None
    """Held-out samples scored: what sampling noise there is."""


@dataclass(frozen=True, eq=False)
class Experiment:
    """What has been measured so far. Only completed runs count; the rest is named in `missing`."""

    folder: Path | None
    record: Mapping[str, Any]
    """Title, baseline, recipe, environment, stages: see `experiment/record.py`. Sparse for ad-hoc comparisons."""
    baseline: str
    runs: dict[str, dict[int, Run]]
    """Pretraining by arm and seed."""
    scores: dict[str, dict[str, dict[int, Score]]]
    """Diagnostics by name, arm and seed."""
    chance: dict[str, float]
    """By diagnostic, the accuracy of guessing, where it is known."""
    missing: tuple[str, ...]
    """Stages that are not complete."""
    contents: dict[str, str]
    """Content hashes of artifacts, by stage key."""


def load_experiment(folder: Path) -> Experiment:
    """The experiment in a folder made by `proctool run`. Raises RunError."""
    record = _read_record(folder)
    logs: dict[str, MetricsLog] = {}
    for key, stage in record["stages"].items():
        logs[key] = MetricsLog(folder / stage["folder"])
        logs[key].update()
    runs: dict[str, dict[int, Run]] = {}
    scores: dict[str, dict[str, dict[int, Score]]] = {}
    for arm, by_seed in record["arms"].items():
        for written, measured in by_seed.items():
            seed = int(written)
            key = measured["pretrain"]
            if key is not None and logs[key].end is not None:
                donor = record["stages"][key]["donor"]
                run = _run(logs[key], logs[donor] if donor else None)
                if run is not None:
                    runs.setdefault(arm, {})[seed] = run
            for name, diagnostic in measured["diagnostics"].items():
                if logs[diagnostic].end is not None:
                    scored = _score(logs[diagnostic], record["stages"][diagnostic].get("eval_samples"))
                    scores.setdefault(name, {}).setdefault(arm, {})[seed] = scored
    return Experiment(
        folder=folder,
        record=record,
        baseline=record["baseline"],
        runs=runs,
        scores=scores,
        chance=record.get("chance", {}),
        missing=tuple(record["stages"][key]["name"] for key, log in logs.items() if log.end is None),
        contents={key: log.end["content"] for key, log in logs.items() if log.end and "content" in log.end},
    )


def _read_record(folder: Path) -> dict[str, Any]:
    path = folder / RECORD
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder")
    if not path.is_file():
        raise RunError(f"{folder}: not the folder of an experiment ({RECORD} is missing); `proctool run` makes one")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        known = record["format"] == 1 and {"stages", "arms", "baseline"} <= record.keys()
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise RunError(f"{path}: damaged, or from another version of proctool; run the recipe again to renew it")
    return record  # type: ignore[no-any-return]


def load_runs(named: Sequence[str], baseline: str | None) -> Experiment:
    """Pretraining run folders, each written FOLDER or NAME=FOLDER; one name several times is one arm, seed by seed.

    The first name is the baseline unless `baseline` names another. Raises RunError.
    """
    runs: dict[str, dict[int, Run]] = {}
    for each in named:
        name, folder = _named_folder(each)
        log = read_metrics(folder)
        if log.end is None:
            raise RunError(
                f"{folder}: this run is not complete (step {log.step} of {log.steps or '?'}); finish it first"
            )
        run = _run(log, None)
        if run is None:
            raise RunError(f"{log.path}: no held-out losses to compare")
        seeds = runs.setdefault(name, {})
        seed = _seed_of(folder, log, len(seeds))
        if seed in seeds:
            raise RunError(
                f"{folder}: {name} already has a run with seed {seed}; give it a name of its own: NAME={folder}"
            )
        seeds[seed] = run
    base = baseline or next(iter(runs))
    if base not in runs:
        raise RunError(f'baseline: no run is named "{base}" (there are: {", ".join(runs)})')
    for name, by_seed in runs.items():
        if not by_seed.keys() & runs[base].keys():
            raise RunError(
                f"{name} (seeds {_listed(by_seed)}) and {base} (seeds {_listed(runs[base])}) have no seed in common; "
                "runs are compared seed by seed"
            )
    return Experiment(None, {}, base, runs, {}, {}, (), {})


def _named_folder(written: str) -> tuple[str, Path]:
    name, equals, folder = written.partition("=")
    if equals and not Path(written).exists():
        return name, Path(folder)
    path = Path(written)
    # A stage's folder is called pretrain-ARM-s0-1a2b3c4d: the arm is what it is known by.
    found = re.fullmatch(r"pretrain-(.+)-s\d+-[0-9a-f]{8}", path.name)
    return (found[1] if found else path.name or str(path.resolve().name)), path


def _seed_of(folder: Path, log: MetricsLog, default: int) -> int:
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        settings = {}
    return int((log.start or {}).get("seed", settings.get("seed", default)))


def _listed(seeds: Mapping[int, Run]) -> str:
    return ", ".join(map(str, sorted(seeds)))


def _run(log: MetricsLog, donor: MetricsLog | None) -> Run | None:
    tokens, loss = log.measured("loss")
    if not tokens:
        return None
    curve = Curve(np.array(tokens, float), np.array(loss, float))
    if donor is None:
        start = log.start or {}
        return Run(curve, float(start.get("donor_tokens", 0)), flops_of(log), float(start.get("donor_flops", 0)))
    return Run(curve, float(donor.tokens), flops_of(log), flops_of(donor))


def flops_of(log: MetricsLog) -> float | None:
    """Operations of a completed run: as recorded, else 6 per parameter and token (Kaplan et al. 2020, section 2.1)."""
    for event in (log.end, log.start):
        if event and "flops" in event:
            return float(event["flops"])
    parameters = (log.start or {}).get("parameters")
    return 6.0 * parameters * log.tokens if parameters else None


def _score(log: MetricsLog, samples: int | None) -> Score:
    tokens, accuracy = log.measured("accuracy")
    return Score(tuple(tokens), tuple(accuracy), samples)
