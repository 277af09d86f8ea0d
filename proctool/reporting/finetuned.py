"""Fine-tuned models compared: whether an arm's gain remains after fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from proctool.reporting.compare import InPerplexity, Run, gain
from proctool.reporting.interval import Estimate, estimate


@dataclass(frozen=True)
class FinetuneResult(InPerplexity):
    """One arm's validation loss at the end of fine-tuning, in nats per token of the fine-tuning corpus."""

    finetune: str
    arm: str
    seeds: tuple[int, ...]
    """Seeds that the baseline has too."""
    final_loss: Estimate
    gain: Estimate
    """The baseline's loss minus the arm's at equal fine-tuning tokens, paired by seed."""
    is_baseline: bool


def compare_finetunes(name: str, arms: Mapping[str, Mapping[int, Run]], baseline: str) -> list[FinetuneResult]:
    """Each arm against the baseline, which comes first; only seeds that both have count."""
    base = arms.get(baseline, {})
    results = []
    for arm in sorted(arms, key=lambda each: each != baseline):
        seeds = tuple(sorted(arms[arm].keys() & base.keys()))
        if seeds:
            final = estimate([arms[arm][seed].curve.final for seed in seeds])
            results.append(FinetuneResult(name, arm, seeds, final, gain(base, arms[arm]), arm == baseline))
    return results


def by_finetune(
    finetunes: Mapping[str, Mapping[str, Mapping[int, Run]]], baseline: str
) -> list[Sequence[FinetuneResult]]:
    """The results of each fine-tuning that the baseline has too."""
    found = [compare_finetunes(name, arms, baseline) for name, arms in finetunes.items()]
    return [each for each in found if each]
