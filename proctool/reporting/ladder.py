"""How a gain changes with the size of the model: gains by rung, a fit, and what it says of a larger model.

Each seed has its own fit, so the interval of a prediction is that of a mean over seeds. Two forms are fitted: a line in
the logarithm of the parameters, and, if every gain is positive, a power law. The prediction's interval covers both.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from proctool.reporting.compare import Run, gains_by_seed
from proctool.reporting.interval import Estimate, estimate
from proctool.reporting.record import LadderTarget
from proctool.reporting.verdict import with_interval
from proctool.units import format_count

_FAR = 100
"""Above this many times the widest rung's parameters, a prediction is called a guess."""


@dataclass(frozen=True)
class RungGain:
    """The gain of an arm over the baseline at one width."""

    width: int
    parameters: int
    """Without embeddings."""
    tokens: float
    """Corpus tokens."""
    gain: Estimate


@dataclass(frozen=True)
class ArmLadder:
    """One arm over all rungs, for the seeds that every rung has."""

    arm: str
    rungs: tuple[RungGain, ...]
    slope: Estimate
    """Change of the gain when parameters (and tokens) grow tenfold, in nats per token."""
    expected: Estimate | None
    """The gain at the target; None without a target."""
    power_law: bool
    """Whether `expected` also covers a power law."""


@dataclass(frozen=True)
class Rung:
    """One width: its size, and the runs by arm and seed."""

    width: int
    parameters: int
    runs: Mapping[str, Mapping[int, Run]]


def ladders(rungs: Sequence[Rung], baseline: str, target: LadderTarget | None) -> list[ArmLadder]:
    """The ladder of each arm that at least two rungs have measured. `rungs` are narrowest first."""
    names = dict.fromkeys(arm for rung in rungs for arm in rung.runs if arm != baseline)
    made = (_ladder(arm, rungs, baseline, target) for arm in names)
    return [each for each in made if each is not None]


def _ladder(arm: str, rungs: Sequence[Rung], baseline: str, target: LadderTarget | None) -> ArmLadder | None:
    found = [
        (rung, gains_by_seed(rung.runs[baseline], rung.runs[arm]))
        for rung in rungs
        if arm in rung.runs and baseline in rung.runs
    ]
    found = [(rung, gains) for rung, gains in found if gains]
    seeds = sorted(set.intersection(*(set(gains) for _, gains in found))) if found else []
    if len(found) < 2 or not seeds:
        return None
    sizes = np.log10([rung.parameters for rung, _ in found])  # (rungs,)
    gains = np.array([[by_seed[seed] for _, by_seed in found] for seed in seeds])  # (seeds, rungs)
    expected = None
    power_law = bool((gains > 0).all())
    if target is not None:
        at = math.log10(target.parameters)
        expected = _predicted(sizes, gains, at, lambda each: each)
        if power_law:
            other = _predicted(sizes, np.log(gains), at, math.exp)
            expected = _covering(expected, other)
    return ArmLadder(
        arm,
        tuple(
            RungGain(
                rung.width,
                rung.parameters,
                max(run.compared.end for run in rung.runs[arm].values()),
                estimate(list(by_seed.values())),
            )
            for rung, by_seed in found
        ),
        estimate([float(np.polyfit(sizes, each, 1)[0]) for each in gains]),
        expected,
        power_law,
    )


def _predicted(sizes: np.ndarray, values: np.ndarray, at: float, back: Callable[[float], float]) -> Estimate:
    """The mean over seeds of each seed's line at the size `at`."""
    found = estimate([float(np.polyval(np.polyfit(sizes, each, 1), at)) for each in values])
    low, high = (None if end is None else back(end) for end in (found.low, found.high))
    return dataclasses.replace(found, value=back(found.value), low=low, high=high)


def _covering(one: Estimate, other: Estimate) -> Estimate:
    """The mean of two predictions, with an interval that covers both; none if they have none."""
    ends = [end for each in (one, other) for end in (each.low, each.high) if end is not None]
    low, high = (min(ends), max(ends)) if ends else (None, None)
    return dataclasses.replace(one, value=(one.value + other.value) / 2, low=low, high=high)


def ladder_verdict(ladder: ArmLadder, target: LadderTarget | None) -> str:
    """One arm's ladder in words."""
    first, last = ladder.rungs[0], ladder.rungs[-1]
    said = (
        f"{ladder.arm}: from width {first.width} to {last.width} its gain goes from {_nats(first.gain)} to "
        f"{_nats(last.gain)} nats per token, {_nats(ladder.slope)} for ten times the parameters"
    )
    if ladder.slope.low is not None and not ladder.slope.excludes_zero:
        said += " (no clear trend)"
    if target is None or ladder.expected is None:
        return f"{said}."
    found, size = ladder.expected, format_count(target.parameters)
    expects = f"about {_plain(found.value)}"
    if found.low is not None and found.high is not None:
        expects = f"{_plain(found.low)} to {_plain(found.high)}"
    far = target.parameters / last.parameters
    return (
        f"{said}. At {target.model} ({size} parameters without embeddings, {far:,.0f} times the widest rung) we expect "
        f"a gain of {expects} nats per token, if the trend goes on."
    ) + (" That is so far beyond the ladder that only its sign is worth anything." if far > _FAR else "")


def _nats(found: Estimate) -> str:
    return with_interval(found, 1, 3, "")


def _plain(value: float) -> str:
    text = f"{value:.3f}"
    return (text.lstrip("-") if float(text) == 0 else text).replace("-", "\N{MINUS SIGN}")
