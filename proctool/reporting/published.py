"""Published numbers next to those measured here, each under its own heading and never averaged together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from proctool.recipe import Published
from proctool.reporting.compare import ArmResult, Run
from proctool.reporting.experiment import Experiment
from proctool.reporting.interval import Estimate, estimate
from proctool.reporting.measured import Score
from proctool.reporting.verdict import with_interval
from proctool.units import format_count

SHARES = ("accuracy", "exact_match")
"""Measures that lie between 0 and 1."""


@dataclass(frozen=True)
class PublishedNumber:
    """One published number with the measurement for the same arm."""

    what: str
    section: str
    """Where it is published."""
    measure: str
    """loss (nats per token), perplexity, accuracy, exact_match (shares), or tokens to the baseline's final loss."""
    arm: str
    published: float
    here: Estimate | None
    """None if not measured, or if no run is as long as the published step."""
    step: int | None = None
    scoring: str | None = None
    """How it was scored here, if differently from the published number."""


def published_numbers(experiment: Experiment, results: Sequence[ArmResult]) -> list[PublishedNumber]:
    """Every number that the recipe quotes, in its order."""
    found = []
    for entry in experiment.record.published or ():
        for arm, value in entry.arms.items():
            found.append(
                PublishedNumber(
                    what=entry.what,
                    section=entry.section,
                    measure=entry.measure,
                    arm=arm,
                    published=float(value),
                    here=_here(experiment, {each.arm: each for each in results}, entry, arm),
                    step=entry.step,
                    scoring=_other_scoring(experiment, entry, arm),
                )
            )
    return found


def _other_scoring(experiment: Experiment, entry: Published, arm: str) -> str | None:
    """The published code scores arithmetic only by its official mask; see evaluation/scoring.py."""
    scores = experiment.scores.get(entry.diagnostic or "", {}).get(arm, {})
    return next((score.scoring for score in scores.values() if score.scoring not in (None, "official")), None)


def _here(experiment: Experiment, results: Mapping[str, ArmResult], entry: Published, arm: str) -> Estimate | None:
    measure, step = entry.measure, entry.step
    if measure == "tokens":
        return results[arm].tokens if arm in results else None
    if entry.diagnostic is not None:
        scores = experiment.scores.get(entry.diagnostic, {}).get(arm, {})
        return _mean([_scored(score, measure, step) for score in scores.values()], shares=True)
    runs = experiment.runs.get(arm, {}).values()
    if measure in SHARES:
        return _mean([_at(run, measure, step) for run in runs], shares=True)
    loss = _mean([_at(run, "loss", step) for run in runs], shares=False)
    return loss.exponential if loss is not None and measure == "perplexity" else loss


def _mean(values: Sequence[float | None], shares: bool) -> Estimate | None:
    known = [value for value in values if value is not None]
    return estimate(known, shares=shares) if known and len(known) == len(values) else None


def _at(run: Run, measure: str, step: int | None) -> float | None:
    """A run's measure at a training step, or at its end."""
    curve = run.curve if measure == "loss" else run.shares.get(measure)
    if curve is None:
        return None
    if step is None:
        return run.compared.final if measure == "loss" else curve.final
    if run.tokens_per_step is None or step * run.tokens_per_step > curve.end:
        return None
    return curve.loss_at(step * run.tokens_per_step)


def _scored(score: Score, measure: str, step: int | None) -> float | None:
    if not score.accuracy or (step is not None and step != score.steps):
        return None
    return score.exact_match if measure == "exact_match" else score.accuracy[-1]


def shown(measure: str, value: float | Estimate) -> str:
    """A published number, or one measured here, as text."""
    found = value if isinstance(value, Estimate) else Estimate(value, None, None, 1, None)
    match measure:
        case "loss":
            return with_interval(found, 1, 3, "")
        case "perplexity":
            return with_interval(found, 1, 2 if found.value < 10 else 1, "")
        case "tokens":
            return format_count(found.value)
        case _:
            return with_interval(found, 100, 1)
