"""Diagnostics over seeds: for each init, means with intervals of the final scores and of the curve."""

from __future__ import annotations

from collections.abc import Sequence

from proctool.reporting.interval import estimate
from proctool.results import CurvePoint, DiagnosticRun, DiagnosticSummary, MeanPoint, MeanScores, RunScores, SeedMean


def summarise(runs: Sequence[DiagnosticRun]) -> list[DiagnosticSummary]:
    """A summary of each init over its seeds, in the order of the inits.

    A run that stopped early (`--until`) keeps its last evaluation for later steps. With a curriculum, the curve starts
    when all runs have reached the full size.
    """
    by_init: dict[str, list[DiagnosticRun]] = {}
    for run in runs:
        by_init.setdefault(run.init, []).append(run)
    return [_summary(found) for found in by_init.values()]


def _summary(runs: Sequence[DiagnosticRun]) -> DiagnosticSummary:
    any_run = runs[0]
    begin = max(run.curve[0].step for run in runs)
    steps = sorted({point.step for run in runs for point in run.curve if point.step >= begin})
    return DiagnosticSummary(
        diagnostic=any_run.diagnostic,
        task=any_run.task,
        init=any_run.init,
        init_content=any_run.init_content,
        seeds=tuple(run.seed for run in runs),
        scores={scoring: MeanScores(**_means([run.scores[scoring] for run in runs])) for scoring in any_run.scores},
        curve=tuple(MeanPoint(step=step, **_means([_at(run, step) for run in runs])) for step in steps),
        held_out=any_run.held_out,
        versions=any_run.versions,
    )


def _at(run: DiagnosticRun, step: int) -> CurvePoint:
    return [point for point in run.curve if point.step <= step][-1]


def _means(scores: Sequence[RunScores] | Sequence[CurvePoint]) -> dict[str, SeedMean]:
    return {
        "accuracy": _mean([each.accuracy for each in scores]),
        "exact_match": _mean([each.exact_match for each in scores]),
    }


def _mean(values: Sequence[float]) -> SeedMean:
    found = estimate(values, shares=True)
    return SeedMean(mean=found.value, low=found.low, high=found.high, n=found.n, method=found.method)
