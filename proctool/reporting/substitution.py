"""The substitutive curve: corpus tokens needed for the same loss, against procedural tokens.

Arms that differ only in the length of their warm-up form one curve. It starts at the baseline, which uses no procedural
tokens. The *rate of substitution* of a point is the number of corpus tokens that each procedural token replaces, on
average since the baseline; the *marginal* rate is the slope between a point and the one before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from proctool.reporting.compare import Arms, Run
from proctool.reporting.controls import Start
from proctool.reporting.interval import Estimate, estimate


@dataclass(frozen=True)
class Point:
    """One arm on a substitutive curve."""

    arm: str
    procedural: float
    """Tokens of its warm-up."""
    corpus: Estimate | None
    """Corpus tokens to the target loss; like the fields below, None if a seed never reaches it."""
    rate: Estimate | None
    """Corpus tokens replaced per procedural token, since the baseline."""
    marginal: Estimate | None
    """The same since the point before. None for the first point, and after a point that is `at_least`."""
    needed: tuple[float, ...] | None
    """Corpus tokens by seed."""
    reached: int
    """Seeds that reach the target loss."""
    at_least: bool = False
    """Whether a seed is at the target at its first measurement already: `corpus` is an upper bound, the rates are lower
    bounds."""


@dataclass(frozen=True)
class Substitution:
    """One warm-up in several lengths, shortest first."""

    task: str
    points: tuple[Point, ...]
    seeds: tuple[int, ...]
    corpus_alone: Estimate
    """Corpus tokens that the baseline needs."""
    alone: tuple[float, ...]
    """The same by seed."""

    @property
    def has_lengths(self) -> bool:
        """Whether there is more than one length of warm-up, so that it is a curve."""
        return len(self.points) > 1


def substitute(arms: Arms, starts: Mapping[str, Start], baseline: str, loss: float | None = None) -> list[Substitution]:
    """A curve for each treatment among the warmed arms; `loss` as for `compare`."""
    families: dict[tuple[str, ...], list[str]] = {}
    for name, runs in arms.items():
        warmed = name != baseline and all(run.warmup_tokens for run in runs.values())
        if warmed and name in starts and not starts[name].corpora:  # text is not procedural
            families.setdefault(starts[name].treatment, []).append(name)
    found = [_curve(arms, names, " + ".join(starts[names[0]].tasks), baseline, loss) for names in families.values()]
    return [each for each in found if each is not None]


def _curve(arms: Arms, names: Sequence[str], task: str, baseline: str, loss: float | None) -> Substitution | None:
    """The curve over the seeds that all its arms share with the baseline, so that slopes are paired."""
    base = arms[baseline]
    seeds = sorted(base.keys() & set.intersection(*(set(arms[name]) for name in names)))
    found = {name: _needed(arms[name], base, seeds, loss) for name in (baseline, *names)}
    needed = {name: each if len(each) == len(seeds) else None for name, each in found.items()}
    alone = needed[baseline]
    if not seeds or alone is None:
        return None
    lengths = {name: fmean(arms[name][seed].warmup_tokens or 0 for seed in seeds) for name in names}
    points: list[Point] = []
    before, spent_before, known = alone, 0.0, True
    for name in sorted(names, key=lambda each: lengths[each]):
        mine, spent, reached = needed[name], lengths[name], len(found[name])
        marginal = None
        at_least = mine is not None and any(
            arms[name][seed].starts_at(base[seed].compared.final if loss is None else loss) for seed in seeds
        )
        if mine is not None and spent > spent_before and known:
            marginal = _slope(before, mine, spent - spent_before)
        points.append(
            Point(
                arm=name,
                procedural=spent,
                corpus=None if mine is None else estimate(mine),
                rate=None if mine is None else _slope(alone, mine, spent),
                marginal=marginal if points else None,
                needed=None if mine is None else tuple(mine),
                reached=reached,
                at_least=at_least,
            )
        )
        if mine is not None:
            before, spent_before, known = mine, spent, not at_least
    return Substitution(task, tuple(points), tuple(seeds), estimate(alone), tuple(alone))


def _needed(runs: Mapping[int, Run], base: Mapping[int, Run], seeds: Sequence[int], loss: float | None) -> list[float]:
    """Of the seeds that reach the target loss."""
    found = [runs[seed].compared.tokens_to(base[seed].compared.final if loss is None else loss) for seed in seeds]
    return [tokens for tokens in found if tokens is not None]


def _slope(before: Sequence[float], after: Sequence[float], spent: float) -> Estimate:
    """Corpus tokens saved per procedural token, paired by seed."""
    return estimate([(one - other) / spent for one, other in zip(before, after, strict=True)])
