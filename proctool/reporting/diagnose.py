"""Diagnostics compared: final accuracy against the baseline's and against guessing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from proctool.reporting.interval import Estimate, estimate
from proctool.reporting.measured import Score

# A two-sided 95 % interval of a normal.
_Z = 1.96


@dataclass(frozen=True)
class Spread:
    """Standard deviations of final accuracy: between seeds (donors), and between runs of one seed.

    From a one-way analysis of variance with random effects. The spread between runs includes what differs by the
    validation samples; the spread between seeds does not.
    """

    runs: int
    """From each start; the fewest if they differ. A start with one run counts for neither deviation."""
    between: float | None
    """None with fewer than two seeds."""
    within: float


@dataclass(frozen=True)
class DiagnosticResult:
    """One arm's accuracy at the end of a diagnostic."""

    diagnostic: str
    arm: str
    seeds: tuple[int, ...]
    accuracy: Estimate
    difference: Estimate
    """The arm's accuracy minus the baseline's, paired by seed."""
    noise: float
    """Half-width of the difference's 95 % interval due to the finite validation sets; 0 if unknown."""
    chance: float | None
    is_baseline: bool
    runs: tuple[tuple[float, ...], ...] = ()
    """The final accuracy of each run, by seed in the order of `seeds`."""
    spread: Spread | None = None
    """If a seed has several runs: how much of the spread they explain."""

    @property
    def differs(self) -> bool:
        """Whether the arm differs from the baseline: by the interval over seeds, or with one seed by the noise."""
        if self.difference.low is not None:
            return self.difference.excludes_zero
        return abs(self.difference.value) > max(self.noise, 0.01)

    @property
    def at_floor(self) -> bool:
        """Whether it is no better than guessing, within the noise."""
        return self.chance is not None and self.accuracy.value <= self.chance + max(self.noise, 0.01)


def diagnose(
    name: str, scores: Mapping[str, Mapping[int, Score]], baseline: str, chance: float | None
) -> list[DiagnosticResult]:
    """Each arm's accuracy against the baseline's, which comes first; only seeds that both have count."""
    base = scores.get(baseline, {})
    results = []
    for arm in sorted(scores, key=lambda each: each != baseline):
        seeds = tuple(seed for seed in sorted(scores[arm]) if seed in base and scores[arm][seed].accuracy)
        seeds = tuple(seed for seed in seeds if base[seed].accuracy)
        if not seeds:
            continue
        mine = [scores[arm][seed].accuracy[-1] for seed in seeds]
        theirs = [base[seed].accuracy[-1] for seed in seeds]
        runs = tuple(scores[arm][seed].runs or (scores[arm][seed].accuracy[-1],) for seed in seeds)
        results.append(
            DiagnosticResult(
                diagnostic=name,
                arm=arm,
                seeds=seeds,
                accuracy=estimate(mine, shares=True),
                difference=_within(estimate([a - b for a, b in zip(mine, theirs, strict=True)])),
                noise=_noise([*mine, *theirs], [scores[arm][seed].samples for seed in seeds]),
                chance=chance,
                is_baseline=arm == baseline,
                runs=runs,
                spread=spread(runs),
            )
        )
    return results


def spread(runs: Sequence[Sequence[float]]) -> Spread | None:
    """The spread of the accuracies of `runs`, a group for each seed; None if no group has two."""
    several = [each for each in runs if len(each) > 1]
    if not several:
        return None
    within = fmean(variance(each) for each in several)
    between = None
    if len(several) > 1:
        of_means = variance([fmean(each) for each in several])
        between = math.sqrt(max(0.0, of_means - within * fmean(1 / len(each) for each in several)))
    return Spread(min(map(len, runs)), between, math.sqrt(within))


def _within(difference: Estimate) -> Estimate:
    """No difference of two shares is larger than 1."""
    if difference.low is None or difference.high is None:
        return difference
    return dataclasses.replace(difference, low=max(-1.0, difference.low), high=min(1.0, difference.high))


def _noise(accuracies: list[float], samples: list[int | None]) -> float:
    """Binomial, for the difference of two means over seeds."""
    counted = [count for count in samples if count]
    if len(counted) < len(samples):
        return 0.0
    p = sum(accuracies) / len(accuracies)
    return _Z * math.sqrt(2 * p * (1 - p) / sum(counted))
