"""Where in a row the loss of arms differs: parts of the final loss, paired with the baseline's over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from proctool.loss_parts import LossParts
from proctool.reporting.compare import Arms, Run
from proctool.reporting.interval import Estimate, estimate

MEAN = "mean"
ICL = "ICL score"


@dataclass(frozen=True)
class PartResult:
    """One part of the final loss of an arm, in nats per token."""

    part: str
    """mean, ICL score, copyable (n=3), positions 64-127, ..."""
    value: Estimate
    gain: Estimate | None
    """The baseline's loss minus the arm's; of the in-context-learning score, the arm's minus the baseline's. So it is
    positive if the arm is better. None for the baseline."""


@dataclass(frozen=True)
class ArmParts:
    """The parts of one arm's final loss."""

    arm: str
    seeds: tuple[int, ...]
    parts: tuple[PartResult, ...]
    induction_steps: tuple[int | None, ...] | None
    """By seed, the step at which induction heads form, None if they do not; None as a whole if heads are not
    tracked."""


def loss_parts(arms: Arms, baseline: str) -> list[ArmParts]:
    """Each arm's parts, the baseline first; without arms whose runs do not record them. Empty for a single arm."""
    known = {arm: {seed: run for seed, run in runs.items() if run.loss_parts} for arm, runs in arms.items()}
    base = known.pop(baseline, {})
    found = [_paired(base, base, baseline, is_baseline=True)] if base else []
    found += [_paired(base, runs, arm) for arm, runs in known.items() if runs.keys() & base.keys()]
    return found if len(found) > 1 else []


def _paired(base: Mapping[int, Run], arm: Mapping[int, Run], name: str, is_baseline: bool = False) -> ArmParts:
    seeds = tuple(sorted(base.keys() & arm.keys()))
    pairs = [(_by_name(base[seed].loss_parts), _by_name(arm[seed].loss_parts)) for seed in seeds]
    parts = []
    for part in pairs[0][0]:
        if all(part in of and part in mine for of, mine in pairs):
            sign = -1 if part == ICL else 1
            gains = [sign * (of[part] - mine[part]) for of, mine in pairs]
            value = estimate([mine[part] for _, mine in pairs])
            parts.append(PartResult(part, value, None if is_baseline else estimate(gains)))
    formed = [arm[seed].induction for seed in seeds]
    steps = tuple(each.step for each in formed if each is not None)
    return ArmParts(name, seeds, tuple(parts), steps if len(steps) == len(seeds) else None)


def _by_name(parts: LossParts | None) -> dict[str, float]:
    """The numbers that are compared, in the order in which they are shown."""
    if parts is None:
        return {}
    found: dict[str, float | None] = {MEAN: parts.loss, ICL: parts.icl_score}
    for each in reversed(parts.ngrams):  # long n-grams first: bigrams of bytes repeat everywhere
        found |= {f"copyable (n={each.n})": each.copyable.loss, f"other (n={each.n})": each.other.loss}
    for band in dict.fromkeys((*parts.bands[:1], *parts.bands[-1:])):
        found[f"{'position' if band.first == band.last else 'positions'} {band.name}"] = band.loss
    return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}
