"""Benchmarks of the pretrained models, by task and arm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from proctool.reporting.interval import Estimate, estimate

Results = Mapping[str, Mapping[str, float]]
"""A benchmark of one model: by task, then metric; that of a standard error has _stderr in its name."""
BySeed = Mapping[int, Results]

_SHOWN = ("acc_norm", "acc", "exact_match", "f1")
"""The first of these metrics that a task has is shown, otherwise the task's first metric. acc_norm is accuracy by the
likelihood per byte, the usual one where answers differ in length."""
SHARES = (*_SHOWN, "accuracy")
"""Metrics from 0 to 1."""


@dataclass(frozen=True)
class EvaluationResult:
    """One arm's score on one task of a benchmark."""

    evaluation: str
    """The benchmark's name in the recipe."""
    task: str
    metric: str
    arm: str
    seeds: tuple[int, ...]
    value: Estimate
    """Over seeds; the interval says how seeds differ, not how many samples the task has."""
    gain: Estimate | None
    """The arm's score minus the baseline's, paired by seed; None for the baseline, or without a common seed."""


def evaluation_results(evaluations: Mapping[str, Mapping[str, BySeed]], baseline: str) -> list[list[EvaluationResult]]:
    """The results of each benchmark, task by task, the baseline first."""
    found = [_results(name, arms, baseline) for name, arms in evaluations.items()]
    return [each for each in found if each]


def _results(name: str, arms: Mapping[str, BySeed], baseline: str) -> list[EvaluationResult]:
    order = sorted(arms, key=lambda arm: arm != baseline)
    tasks = dict.fromkeys(task for arm in order for results in arms[arm].values() for task in results)
    made = []
    for task in tasks:
        metric = next((each for arm in order if (each := _metric(arms[arm], task))), None)
        values = {arm: _values(arms[arm], task, metric) for arm in order} if metric else {}
        base = values.get(baseline, {})
        for arm, mine in values.items():
            if mine:
                paired = [mine[seed] - base[seed] for seed in mine if seed in base and arm != baseline]
                gain = estimate(paired) if paired else None
                assert metric is not None
                made.append(
                    EvaluationResult(
                        name,
                        task,
                        metric,
                        arm,
                        tuple(mine),
                        estimate(list(mine.values()), shares=metric in SHARES),
                        gain,
                    )
                )
    return made


def _metric(by_seed: BySeed, task: str) -> str | None:
    known = [metric for results in by_seed.values() for metric in results.get(task, {}) if "_stderr" not in metric]
    return next((each for each in _SHOWN if each in known), next(iter(known), None))


def _values(by_seed: BySeed, task: str, metric: str | None) -> dict[int, float]:
    found = {seed: results.get(task, {}).get(metric or "") for seed, results in sorted(by_seed.items())}
    return {seed: value for seed, value in found.items() if value is not None}
