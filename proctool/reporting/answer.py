"""The report's first sentence: the answer to the recipe's question, with what is missing to be sure of it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from proctool.reporting.compare import ArmResult
from proctool.reporting.diagnose import DiagnosticResult
from proctool.reporting.verdict import Controlled, is_clear, joined, percent, seeds_said, with_interval

ENOUGH = 3
"""With this many seeds, an unclear difference is a finding; with fewer, it is a reason to run more seeds."""

_NO_CONTROL = "No control was run, so the scale of the weights alone may explain it."


def answer(
    title: str,
    results: Sequence[ArmResult],
    controls: Sequence[Controlled],
    diagnostics: Sequence[Sequence[DiagnosticResult]],
    control_arms: dict[str, str],
) -> str | None:
    """One or two sentences about the best arm; None where there is nothing to compare.

    `control_arms` gives the word for each arm that is a control ("shuffled"). The answer is about pretraining; if the
    experiment has none, about the first diagnostic.
    """
    asked = re.match(r"(does|do|is|are|can|will)\b", title.strip(), re.IGNORECASE) is not None
    arms = [each for each in results if not each.is_baseline and each.arm not in control_arms]
    if arms:
        best = max(arms, key=lambda each: each.gain.value)
        return _of_losses(best, results[0].arm, [each for each in controls if each.control.of == best.arm], asked)
    for group in diagnostics:
        if any(not each.is_baseline and each.arm not in control_arms for each in group):
            return _of_accuracies(group, control_arms, asked)
    return None


def _of_losses(best: ArmResult, baseline: str, controls: Sequence[Controlled], asked: bool) -> str:
    better = best.gain.value > 0
    amount = with_interval(best.gain if better else best.gain.negated, 1, 3, "")
    ends = f"{best.arm} ends {amount} nats per token {'better' if better else 'worse'} than {baseline}"
    seeds = f"({seeds_said(best.seeds)})"
    if not is_clear(best.gain, best.target_loss):
        return _unsettled(ends, best.seeds, best.better, asked)
    rivals = [each for each in controls if each.margin is not None and each.control.kind != "longer"]
    if len(best.seeds) == 1:
        more = "two more seeds" if rivals else "two more seeds and its controls"
        return f"Seen in one seed only: {ends}. Run {more} before you rely on it."
    if not better:
        return f"{_start('No', asked)}{ends} {seeds}."
    if not rivals:
        return f"{_start('Yes', asked)}{ends} {seeds}. {_NO_CONTROL}"
    closest = min(rivals, key=lambda each: each.margin.value if each.margin else 0.0)
    margin, words = closest.margin, closest.control.words
    assert margin is not None
    if is_clear(margin, best.target_loss) and margin.value > 0:
        left = with_interval(margin, 1, 3, "")
        return f"{_start('Yes', asked)}{ends}, and {left} better than its {words}, the closest control {seeds}."
    as_well = "did better" if is_clear(margin, best.target_loss) else "did as well"
    return f"Not because of the warm-up data: {ends}, but its {words} {as_well} {seeds}."


def _unsettled(ends: str, seeds: Sequence[int], better: int, asked: bool) -> str:
    if len(seeds) == 1:
        return f"One seed cannot settle it: {ends}. Run two more seeds."
    count = f"better in {better} of {len(seeds)} seeds"
    if len(seeds) < ENOUGH:
        return f"Two seeds cannot settle it: {ends}, {count}. Run a third seed."
    return f"{_start('No difference is shown', asked)}{ends}, {count}: the interval includes zero."


def _of_accuracies(group: Sequence[DiagnosticResult], control_arms: dict[str, str], asked: bool) -> str:
    base = [each for each in group if each.is_baseline]
    arms = [each for each in group if not each.is_baseline and each.arm not in control_arms]
    best = max(arms, key=lambda each: each.difference.value)
    where = f" where {base[0].arm} reaches {percent(base[0].accuracy.value, 1)}" if base else ""
    reaches = f"{best.arm} reaches {percent(best.accuracy.value, 1)} on {best.diagnostic}{where}"
    seeds = f"({seeds_said(best.seeds)})"
    if not best.differs:
        if len(best.seeds) < ENOUGH:
            return (
                f"Not settled: {reaches} {seeds}. Run {'two more seeds' if len(best.seeds) == 1 else 'a third seed'}."
            )
        return f"{_start('No difference is shown', asked)}{reaches} {seeds}."
    if best.difference.value < 0:
        return f"{_start('No', asked)}{reaches} {seeds}."
    controls = [each for each in group if each.arm in control_arms]
    if not controls:
        return f"{_start('Yes', asked)}{reaches} {seeds}. {_NO_CONTROL}"
    names = joined(list(dict.fromkeys(control_arms[each.arm] for each in controls)), "and")
    low, high = (percent(end(each.accuracy.value for each in controls)) for end in (min, max))
    span = low if low == high else f"{low} to {high}"
    close = [each for each in controls if each.accuracy.value >= 0.5 * (best.accuracy.value + base[0].accuracy.value)]
    if base and close:
        nearest = max(close, key=lambda each: each.accuracy.value)
        reached = percent(nearest.accuracy.value, 1)
        return f"Not because of the warm-up data: {reaches}, but the control {nearest.arm} reaches {reached} {seeds}."
    return f"{_start('Yes', asked)}{reaches}; {names} controls reach {span} {seeds}."


def _start(word: str, asked: bool) -> str:
    """`Yes: ` before the answer to a yes-or-no question; nothing otherwise."""
    return f"{word}: " if asked or word.startswith("No d") else ""
