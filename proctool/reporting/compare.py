"""What a warm-up saves: curves of validation loss against corpus tokens, compared arm by arm, paired over seeds.

*Tokens to a loss*: where the curve's running minimum first crosses the loss, so noise after the crossing does not
matter. Between two measurements, loss is interpolated linearly in log tokens, the shape of learning curves (linearly in
tokens from a measurement at 0 tokens to the next). *Saved* is 1 - (arm's tokens to the baseline's final loss) /
(baseline's tokens to it). If an arm was trained once, its schedule continues after the crossing: its learning rate is
still higher than the baseline's was at the end, so a run planned for the shorter budget would do somewhat better. If an
arm was trained with several budgets, each with its own schedule, the crossing is found among their final losses.
*Gain* is the baseline's loss minus the arm's at equal corpus tokens: the additive gain, positive if the arm is better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from proctool.loss_parts import InductionHeads, LossParts
from proctool.reporting.interval import Estimate, estimate


@dataclass(frozen=True, eq=False)
class Curve:
    """Validation loss (nats per token, or another measure) against tokens; both (n,), tokens rising, n >= 1."""

    tokens: NDArray[np.float64]
    loss: NDArray[np.float64]

    @property
    def final(self) -> float:
        """The last measurement."""
        return float(self.loss[-1])

    @property
    def end(self) -> float:
        """Tokens at the last measurement."""
        return float(self.tokens[-1])

    def tokens_to(self, loss: float) -> float | None:
        """Corpus tokens at which the running minimum first reaches `loss`; None if it never does."""
        best = np.minimum.accumulate(self.loss)  # (n,)
        if best[-1] > loss:
            return None
        after = int(np.argmax(best <= loss))
        if after == 0:
            return float(self.tokens[0])
        (t0, t1), (l0, l1) = self.tokens[after - 1 : after + 1], best[after - 1 : after + 1]
        share = (l0 - loss) / (l0 - l1)
        return float(t0 + share * (t1 - t0) if t0 <= 0 else t0 * (t1 / t0) ** share)  # linear from 0 alone

    def loss_at(self, tokens: float) -> float:
        """The loss after `tokens` corpus tokens (within the measured range), interpolated as in `tokens_to`."""
        after = int(np.searchsorted(self.tokens, tokens))
        if after == 0 or after == len(self.tokens):
            return float(self.loss[0] if after == 0 else self.loss[-1])
        t0, t1 = self.tokens[after - 1 : after + 1]
        share = (tokens - t0) / (t1 - t0) if t0 <= 0 else math.log(tokens / t0) / math.log(t1 / t0)
        return float(self.loss[after - 1] + share * (self.loss[after] - self.loss[after - 1]))


@dataclass(frozen=True)
class Run:
    """One arm with one seed."""

    curve: Curve
    """Of the run with the largest budget."""
    warmup_tokens: float | None = 0.0
    """None if not known; so are the FLOPs."""
    flops: float | None = None
    """Floating-point operations of the whole pretraining."""
    warmup_flops: float | None = 0.0
    by_budget: Curve | None = None
    """Final losses against budgets, if it was trained with several."""
    tokens_per_step: float | None = None
    """Of the run with the largest budget."""
    mixed_tokens: float = 0.0
    """Those of its tokens that are of procedural rows among corpus rows."""
    shares: Mapping[str, Curve] = field(default_factory=dict)
    """What else was measured on the validation text, by name ("accuracy", "exact_match"), against tokens."""
    loss_parts: LossParts | None = None
    """The parts of the final loss, if recorded."""
    induction: InductionHeads | None = None
    """When induction heads form, if heads are tracked."""

    @property
    def compared(self) -> Curve:
        """The curve that tokens to a loss are read from: the budgets' final losses, else the one run."""
        return self.by_budget or self.curve

    def starts_at(self, loss: float) -> bool:
        """Whether it is at `loss` at its first measurement already, so that the exact crossing is not known."""
        return bool(self.compared.loss[0] <= loss)

    def flops_to(self, tokens: float) -> float | None:
        """FLOPs up to `tokens` corpus tokens, including the warm-up's; None if not known."""
        if self.flops is None or self.warmup_flops is None:
            return None
        return self.flops * tokens / self.curve.end + self.warmup_flops


class InPerplexity:
    """The losses of a result as perplexities."""

    final_loss: Estimate
    gain: Estimate

    @property
    def perplexity(self) -> Estimate | None:
        """exp of the final loss: over seeds, the geometric mean."""
        return self.final_loss.exponential

    @property
    def perplexity_ratio(self) -> Estimate | None:
        """The arm's perplexity over the baseline's at equal tokens: below 1 if the arm is better."""
        return self.gain.negated.exponential


@dataclass(frozen=True)
class ArmResult(InPerplexity):
    """An arm against the baseline, over the seeds that both have. Shares are fractions of the baseline's."""

    arm: str
    seeds: tuple[int, ...]
    final_loss: Estimate
    target_loss: float
    """The loss to reach: the baseline's final loss (mean over seeds; each seed has its own), or a given one."""
    gain: Estimate
    """Baseline's loss minus the arm's at equal corpus tokens, in nats per token."""
    reached: int
    """Seeds in which the arm reaches the target."""
    tokens: Estimate | None
    """Corpus tokens to the target. This and the next three are None if a seed never reaches it."""
    saved: Estimate | None
    """Also None if the baseline does not reach a given target."""
    saved_total: Estimate | None
    """Including the warm-up's own tokens."""
    saved_flops: Estimate | None
    """Including the warm-up's own FLOPs."""
    warmup_tokens: float | None
    is_baseline: bool = False
    at_least: bool = False
    """Whether a seed is at the target at its first measurement already, so that more may be saved."""
    given_loss: bool = False
    """Whether the target was given, rather than the baseline's final loss."""
    better: int = 0
    """Seeds in which the arm is better than the baseline at equal corpus tokens."""


Arms = Mapping[str, Mapping[int, Run]]
"""Runs by arm and seed."""


def compare(arms: Arms, baseline: str, loss: float | None = None) -> list[ArmResult]:
    """Each arm against the arm `baseline`, which comes first; an arm without a common seed is left out.

    `loss`: the target, in nats per token; by default the final loss of each seed's baseline.
    """
    results = [_against(arms[baseline], arms[baseline], baseline, loss, is_baseline=True)]
    for name, runs in arms.items():
        if name != baseline and runs.keys() & arms[baseline].keys():
            results.append(_against(arms[baseline], runs, name, loss))
    return results


def _against(
    base: Mapping[int, Run], arm: Mapping[int, Run], name: str, loss: float | None, is_baseline: bool = False
) -> ArmResult:
    seeds = tuple(sorted(base.keys() & arm.keys()))
    pairs = [(base[seed], arm[seed]) for seed in seeds]
    targets = [of.compared.final if loss is None else loss for of, _ in pairs]
    needed = [run.compared.tokens_to(target) for (_, run), target in zip(pairs, targets, strict=True)]
    spent = [of.compared.tokens_to(target) for (of, _), target in zip(pairs, targets, strict=True)]
    reached = [tokens for tokens in needed if tokens is not None]
    saved = total = flops = None
    everywhere = len(reached) == len(seeds)
    if everywhere and all(spent):  # None: never reached; 0: at the target before the first token
        theirs = [tokens for tokens in spent if tokens is not None]
        saved = _shares(reached, theirs)
        warm = [run.warmup_tokens for _, run in pairs if run.warmup_tokens is not None]
        if len(warm) == len(pairs):
            total = _shares([used + more for used, more in zip(reached, warm, strict=True)], theirs)
        flops = _saved_flops(pairs, reached, theirs)
    return ArmResult(
        arm=name,
        seeds=seeds,
        final_loss=estimate([run.compared.final for _, run in pairs]),
        target_loss=fmean(targets),
        gain=gain(base, arm),
        reached=len(reached),
        tokens=estimate(reached) if everywhere else None,
        saved=saved,
        saved_total=total,
        saved_flops=flops,
        warmup_tokens=_mean([run.warmup_tokens for _, run in pairs]),
        is_baseline=is_baseline,
        at_least=everywhere and any(run.starts_at(at) for (_, run), at in zip(pairs, targets, strict=True)),
        given_loss=loss is not None,
        better=sum(each > 0 for each in gains_by_seed(base, arm).values()),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


def _shares(used: Sequence[float], of: Sequence[float]) -> Estimate:
    return estimate([1 - mine / theirs for mine, theirs in zip(used, of, strict=True)])


def _saved_flops(pairs: Sequence[tuple[Run, Run]], used: Sequence[float], of: Sequence[float]) -> Estimate | None:
    mine = [run.flops_to(tokens) for (_, run), tokens in zip(pairs, used, strict=True)]
    theirs = [base.flops_to(tokens) for (base, _), tokens in zip(pairs, of, strict=True)]
    known = [(one, other) for one, other in zip(mine, theirs, strict=True) if one is not None and other]
    if len(known) < len(pairs):
        return None
    return estimate([1 - one / other for one, other in known])


def gain(base: Mapping[int, Run], arm: Mapping[int, Run]) -> Estimate:
    """The loss of `base` minus that of `arm` at equal corpus tokens, paired over the seeds that both have."""
    return estimate(list(gains_by_seed(base, arm).values()))


def gains_by_seed(base: Mapping[int, Run], arm: Mapping[int, Run]) -> dict[int, float]:
    """`gain` for each seed that both have."""
    found = {}
    for seed in sorted(base.keys() & arm.keys()):
        mine, theirs = arm[seed].compared, base[seed].compared
        equal = min(theirs.end, mine.end)
        found[seed] = theirs.loss_at(equal) - mine.loss_at(equal)
    return found


def margin(arm: Mapping[int, Run], control: Mapping[int, Run]) -> Estimate | None:
    """The control's final loss minus the arm's, in nats per token, paired over common seeds; None without any.

    Each at its own end: a control that trained on more corpus instead of a warm-up keeps all of it.
    """
    seeds = sorted(arm.keys() & control.keys())
    return estimate([control[seed].compared.final - arm[seed].compared.final for seed in seeds]) if seeds else None
