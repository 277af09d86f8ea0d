"""What a warm-up saves: curves of held-out loss against corpus tokens, compared arm by arm, paired over seeds.

*Tokens to a loss*: the first crossing of the curve's running minimum, so that noise after a crossing does not undo it.
Between two measurements loss is taken as linear in log tokens, the shape of learning curves (linear in tokens where the
first measurement is at 0 tokens). *Saved* is 1 - (arm's tokens to the baseline's final loss) / (baseline's tokens to
it): the substitutive gain. Both curves follow their whole schedule, and the arm crosses before its learning rate has
fallen as far as the baseline's, so a run planned for the shorter budget would do somewhat better. *Gain* is the
baseline's loss minus the arm's at equal corpus tokens: the additive gain, positive where the arm is better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from proctool.reporting.interval import Estimate, estimate


@dataclass(frozen=True, eq=False)
class Curve:
    """Held-out loss (nats per token) against corpus tokens; both (n,), tokens rising, n >= 1."""

    tokens: NDArray[np.float64]
    loss: NDArray[np.float64]

    @property
    def final(self) -> float:
        """The last measurement."""
        return float(self.loss[-1])

    def tokens_to(self, loss: float) -> float | None:
        """Corpus tokens after which the running minimum first reaches `loss`; None where it never does."""
        best = np.minimum.accumulate(self.loss)  # (n,)
        if best[-1] > loss:
            return None
        after = int(np.argmax(best <= loss))
        if after == 0:
            return float(self.tokens[0])
        (t0, t1), (l0, l1) = self.tokens[after - 1 : after + 1], best[after - 1 : after + 1]
        share = (l0 - loss) / (l0 - l1)
        return float(t0 + share * (t1 - t0) if t0 <= 0 else t0 * (t1 / t0) ** share)

    def loss_at(self, tokens: float) -> float:
        """The loss after `tokens` corpus tokens (within the measured range), interpolated as in `tokens_to`."""
        if self.tokens[0] > 0:
            return float(np.interp(math.log(tokens), np.log(self.tokens), self.loss))
        return float(np.interp(tokens, self.tokens, self.loss))


@dataclass(frozen=True)
class Run:
    """One arm with one seed."""

    curve: Curve
    warmup_tokens: float = 0.0
    flops: float | None = None
    """Floating-point operations of the whole pretraining."""
    warmup_flops: float | None = 0.0


@dataclass(frozen=True)
class ArmResult:
    """An arm against the baseline, over the seeds that both have. Shares are fractions of the baseline's."""

    arm: str
    seeds: tuple[int, ...]
    final_loss: Estimate
    target_loss: float
    """The baseline's final loss, mean over seeds; each seed is compared with its own."""
    gain: Estimate
    """Baseline's loss minus the arm's at equal corpus tokens, in nats per token."""
    reached: int
    """Seeds in which the arm reaches the baseline's final loss."""
    tokens: Estimate | None
    """Corpus tokens to that loss. None, as below, where a seed never reaches it."""
    saved: Estimate | None
    saved_total: Estimate | None
    """With the warm-up's own tokens counted as spent."""
    saved_flops: Estimate | None
    """With the warm-up's own operations counted as spent."""
    warmup_tokens: float
    is_baseline: bool = False


def compare(arms: Mapping[str, Mapping[int, Run]], baseline: str) -> list[ArmResult]:
    """Each arm (runs by seed) against the arm `baseline`, which comes first; without a common seed it is left out."""
    results = [_against(arms[baseline], arms[baseline], baseline, is_baseline=True)]
    for name, runs in arms.items():
        if name != baseline and runs.keys() & arms[baseline].keys():
            results.append(_against(arms[baseline], runs, name))
    return results


def _against(base: Mapping[int, Run], arm: Mapping[int, Run], name: str, is_baseline: bool = False) -> ArmResult:
    seeds = tuple(sorted(base.keys() & arm.keys()))
    pairs = [(base[seed], arm[seed]) for seed in seeds]
    targets = [of.curve.final for of, _ in pairs]
    needed = [run.curve.tokens_to(target) for (_, run), target in zip(pairs, targets, strict=True)]
    reached = [tokens for tokens in needed if tokens is not None]
    tokens = saved = total = flops = None
    if len(reached) == len(seeds):
        tokens = estimate(reached)
        spent = [of.curve.tokens_to(target) or 0.0 for (of, _), target in zip(pairs, targets, strict=True)]
        saved = _shares(reached, spent)
        total = _shares([used + run.warmup_tokens for used, (_, run) in zip(reached, pairs, strict=True)], spent)
        flops = _saved_flops(pairs, reached, spent)
    return ArmResult(
        arm=name,
        seeds=seeds,
        final_loss=estimate([run.curve.final for _, run in pairs]),
        target_loss=fmean(targets),
        gain=estimate([_gain(of.curve, run.curve) for of, run in pairs]),
        reached=len(reached),
        tokens=tokens,
        saved=saved,
        saved_total=total,
        saved_flops=flops,
        warmup_tokens=fmean(run.warmup_tokens for _, run in pairs),
        is_baseline=is_baseline,
    )


def _shares(used: Sequence[float], of: Sequence[float]) -> Estimate | None:
    if min(of) <= 0:
        return None  # the baseline was at its final loss before it had seen a token
    return estimate([1 - mine / theirs for mine, theirs in zip(used, of, strict=True)])


def _saved_flops(pairs: Sequence[tuple[Run, Run]], used: Sequence[float], of: Sequence[float]) -> Estimate | None:
    mine, theirs = [], []
    for (base, run), tokens, base_tokens in zip(pairs, used, of, strict=True):
        if base.flops is None or run.flops is None or run.warmup_flops is None:
            return None
        mine.append(run.flops * tokens / run.curve.tokens[-1] + run.warmup_flops)
        theirs.append(base.flops * base_tokens / base.curve.tokens[-1])
    return _shares(mine, theirs)


def _gain(base: Curve, arm: Curve) -> float:
    equal = min(float(base.tokens[-1]), float(arm.tokens[-1]))
    return base.loss_at(equal) - arm.loss_at(equal)
