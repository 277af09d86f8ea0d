"""The answer of a search: facts from the last measurement. words.py writes sentences from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from proctool.reporting.interval import Estimate, estimate
from proctool.search.space import Candidate, Cold

Verdict = Literal["recommend", "no gain", "scale", "text"]
"""recommend: better than cold and than fresh weights at the donor's scale. no gain: the interval includes no gain, or
only a loss. scale: fresh weights at the donor's scale do as well. text: the warm-up's tokens as more text do better."""


@dataclass(frozen=True)
class Confirmed:
    """A candidate, measured on fresh seeds and on rows that chose nothing."""

    candidate: Candidate
    gain: Estimate
    """Cold's loss less its own, in nats per token, paired by seed."""


@dataclass(frozen=True)
class Measured:
    """What the last measurement says of the winner."""

    winner: Confirmed
    others: tuple[Confirmed, ...]
    over_scale: Estimate | None
    """Gain over fresh weights at the donor's scale; None if that control was not run."""
    over_longer: Estimate | None
    """Gain over a cold start with the warm-up's tokens as more text."""

    @property
    def verdict(self) -> Verdict:
        """What to do."""
        gain = self.winner.gain
        if not gain.excludes_zero or gain.value <= 0:
            return "no gain"
        if self.over_scale is not None and not (self.over_scale.excludes_zero and self.over_scale.value > 0):
            return "scale"
        if self.over_longer is not None and self.over_longer.excludes_zero and self.over_longer.value < 0:
            return "text"
        return "recommend"


def measured(
    losses: Mapping[str, Mapping[int, float]],
    cold: str,
    candidates: Mapping[str, Candidate],
    scale: str,
    longer: str,
) -> Measured:
    """The facts from the losses by arm and seed; `scale` and `longer` name the controls of the winner.

    The first of `candidates` is the winner. It was chosen before, on other seeds and rows, so its interval needs no
    correction.
    """
    found = [Confirmed(each, _gain(losses[cold], losses[name])) for name, each in candidates.items()]
    first = losses[next(iter(candidates))]
    return Measured(
        winner=found[0],
        others=tuple(found[1:]),
        over_scale=_gain(losses[scale], first) if scale in losses else None,
        over_longer=_gain(losses[longer], first) if longer in losses else None,
    )


def _gain(base: Mapping[int, float], arm: Mapping[int, float]) -> Estimate:
    return estimate([base[seed] - arm[seed] for seed in sorted(base.keys() & arm.keys())])


@dataclass(frozen=True)
class Cost:
    """What the target's warm-up and pretraining cost, for one seed."""

    procedural_tokens: int
    procedural_flops: int
    corpus_tokens: int
    corpus_flops: int
    gpu: str | None = None
    gpus: int = 1
    warmup_seconds: float | None = None
    """On these GPUs."""
    pretrain_seconds: float | None = None


@dataclass(frozen=True)
class Answer:
    """Everything that a search found."""

    model: str
    corpus: str
    small: str
    """The widest small model, which measured the gain."""
    tokens: int
    """Corpus tokens of a trial."""
    rows: int
    """Validation rows of the last measurement."""
    seeds: tuple[int, ...]
    verdict: Verdict
    measured: Measured
    cold: Cold
    """The tuned cold start at the widest small model."""
    cold_rate: float
    cold_std: float
    """Its rate and standard deviation there."""
    std_gain: float | None
    """Nats that tuning the standard deviation gained cold at the narrowest small model, best rate against best rate."""
    by_width: tuple[tuple[int, float], ...]
    """The best gain of the search at each width: it chose, so it is too high."""
    cold_cells: int
    candidate_cells: int
    """Cells tried, stopped ones included."""
    seconds: float
    cost: Cost
    recipe: str
    """The recipe's file."""


def std_gain(found: Sequence[tuple[Cold, float]]) -> float | None:
    """The best loss with the default standard deviation less the best loss of all; None where it was not tried."""
    default = [loss for cold, loss in found if cold.std == 1.0]
    return min(default) - min(loss for _, loss in found) if default else None
