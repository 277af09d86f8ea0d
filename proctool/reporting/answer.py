"""The report's first sentence: the answer to the recipe's question, with what is missing to be sure of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from proctool.reporting.compare import ArmResult
from proctool.reporting.diagnose import DiagnosticResult
from proctool.reporting.interval import Estimate
from proctool.reporting.verdict import Controlled, is_clear, percent, seeds_said, with_interval

ENOUGH = 3
"""With this many seeds, an unclear difference is a finding; with fewer, it is a reason to run more seeds."""

_SAME, _PART = 0.8, 0.2
"""Shares of an arm's rise in accuracy over the baseline. A control that reaches the first did the same as the arm; one
that reaches the second explains a part of the rise."""

_NO_CONTROL = "{} has no control, so the scale of the weights alone may explain it."


def answer(
    title: str,
    results: Sequence[ArmResult],
    controls: Sequence[Controlled],
    diagnostics: Sequence[Sequence[DiagnosticResult]],
    control_arms: dict[str, str],
    about: str | None = None,
) -> str | None:
    """One or two sentences about the best arm; None where there is nothing to compare.

    `control_arms` gives the word for each arm that is a control ("shuffled"). The answer is about what the recipe asks
    about: a diagnostic, or pretraining. By default, and if that has no results, it is about pretraining; if the
    experiment has none, about the first diagnostic.
    """
    asked = re.match(r"(does|do|is|are|can|will)\b", title.strip(), re.IGNORECASE) is not None
    arms = [each for each in results if not each.is_baseline and each.arm not in control_arms]
    chosen = [group for group in diagnostics if any(each.diagnostic == about for each in group)]
    if arms and not chosen:
        best = max(arms, key=lambda each: each.gain.value)
        return _of_losses(best, results[0].arm, [each for each in controls if each.control.of == best.arm], asked)
    for group in chosen or diagnostics:
        if any(not each.is_baseline and each.arm not in control_arms for each in group):
            return _of_accuracies(group, control_arms, asked)
    return None


@dataclass(frozen=True)
class _Rival:
    """What the best arm is compared with: the baseline, or a control of the arm."""

    arm: str
    subject: str
    margin: Estimate
    """Its final loss minus the arm's, in nats per token."""
    kind: str | None = None
    """The kind of control."""


def _of_losses(best: ArmResult, baseline: str, controls: Sequence[Controlled], asked: bool) -> str:
    """The best arm against the strongest of the baseline and its controls: the one with the lowest loss."""
    rivals = [_Rival(baseline, baseline, best.gain)]
    rivals += [
        _Rival(each.control.arm, each.control.subject, each.margin, each.control.kind)
        for each in controls
        if each.margin
    ]
    strongest = min(rivals, key=lambda each: each.margin.value)
    margin, seeds = strongest.margin, f"({seeds_said(best.seeds)})"
    better = margin.value > 0
    amount = with_interval(margin if better else margin.negated, 1, 3, "")
    ends = f"{best.arm} ends {amount} nats per token {'better' if better else 'worse'} than {strongest.arm}"
    if len(rivals) > 1:
        ends += ", the best control" if strongest.arm != baseline else ", which did better than every control"
    clear = is_clear(margin, best.target_loss)
    if not clear and len(best.seeds) < ENOUGH:
        return _unsettled(ends, best)
    if len(best.seeds) == 1:
        more = "two more seeds" if len(rivals) > 1 else "two more seeds and its controls"
        return f"Seen in one seed only: {ends}. Run {more} before you rely on it."
    if strongest.arm == baseline and not clear:
        return f"{_start('No difference is shown', asked)}{ends}, {_counted(best)}: the interval includes zero."
    if strongest.arm == baseline and not better:
        return f"{_start('No', asked)}{ends} {seeds}."
    if len(rivals) == 1:
        return f"{_start('Yes', asked)}{ends} {seeds}. {_NO_CONTROL.format(best.arm)}"
    if clear and better:
        said = f"{best.arm} is better than every control: {amount} nats per token better than {strongest.arm}"
        return f"{_start('Yes', asked)}{said}, the best of them {seeds}."
    did = "did better than" if clear else "did as well as"
    said = f"{_capital(strongest.subject)} {did} {best.arm}: {ends} {seeds}."
    others = [each for each in rivals[1:] if each.kind != "longer"]
    if strongest.kind == "longer" and others:  # it says what the warm-up costs, the others what it is due to
        said += f" {_of_others(min(others, key=lambda each: each.margin.value), best)}"
    return f"{said} {_against_baseline(best, baseline)}"


def _of_others(strongest: _Rival, best: ArmResult) -> str:
    """The best arm against the strongest of its other controls."""
    clear, better = is_clear(strongest.margin, best.target_loss), strongest.margin.value > 0
    amount = with_interval(strongest.margin if better else strongest.margin.negated, 1, 3, "")
    by = f"{best.arm} ends {amount} nats per token {'better' if better else 'worse'} than {strongest.arm}"
    if clear and better:
        return f"No other control did as well: {by}."
    return f"{_capital(strongest.subject)} did {'better too' if clear else 'as well'}: {by}."


def _against_baseline(best: ArmResult, baseline: str) -> str:
    better = best.gain.value > 0
    amount = with_interval(best.gain if better else best.gain.negated, 1, 3, "")
    doubt = "" if is_clear(best.gain, best.target_loss) else ", which is not significant"
    return f"Against {baseline}, {best.arm} ends {amount} nats per token {'better' if better else 'worse'}{doubt}."


def _unsettled(ends: str, best: ArmResult) -> str:
    if len(best.seeds) == 1:
        return f"One seed cannot settle it: {ends}. Run two more seeds."
    return f"Two seeds cannot settle it: {ends}. Run a third seed."


def _counted(best: ArmResult) -> str:
    return f"better in {best.better} of {len(best.seeds)} seeds"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _of_accuracies(group: Sequence[DiagnosticResult], control_arms: dict[str, str], asked: bool) -> str:
    base = [each for each in group if each.is_baseline]
    arms = [each for each in group if not each.is_baseline and each.arm not in control_arms]
    best = max(arms, key=lambda each: each.difference.value)
    floor = best.accuracy.value - best.difference.value  # the baseline's, over the seeds that both have
    where = f" where {base[0].arm} reaches {percent(floor, 1)}" if base else ""
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
        return f"{_start('Yes', asked)}{reaches} {seeds}. {_NO_CONTROL.format(best.arm)}"
    strongest = max(controls, key=lambda each: each.accuracy.value)
    reached = percent(strongest.accuracy.value, 1)
    share = strongest.difference.value / best.difference.value
    if base and share >= _PART:
        how = "Not" if share >= _SAME else "Only in part"
        return (
            f"{how} because of the warm-up data: {reaches}, but the control {strongest.arm} reaches {reached} {seeds}."
        )
    return f"{_start('Yes', asked)}{reaches}; {strongest.arm}, the best control, reaches {reached} {seeds}."


def _start(word: str, asked: bool) -> str:
    """`Yes: ` before the answer to a yes-or-no question; nothing otherwise."""
    return f"{word}: " if asked or word.startswith("No d") else ""
