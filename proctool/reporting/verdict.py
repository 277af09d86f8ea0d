"""The answer in plain sentences, with no more confidence than the seeds give."""

from __future__ import annotations

from collections.abc import Sequence

from proctool.reporting.compare import ArmResult
from proctool.reporting.diagnose import DiagnosticResult
from proctool.reporting.interval import Estimate

_SMALL = 0.03
"""Savings below this share are not told from none on the word of a single seed."""


def percent(share: float, digits: int = 0) -> str:
    """0.3 -> 30 %."""
    text = f"{100 * share:.{digits}f}"
    return f"{'0' if float(text) == 0 else text} %".replace("-", "\N{MINUS SIGN}")


def with_interval(found: Estimate, scale: float = 1.0, digits: int = 0, unit: str = " %") -> str:
    """31 % [27, 35], or 31 % alone where there is no interval."""
    numbers = [found.value] if found.low is None or found.high is None else [found.value, found.low, found.high]
    mean, *ends = [_number(each * scale, digits) for each in numbers]
    return f"{mean}{unit} [{ends[0]}, {ends[1]}]" if ends else f"{mean}{unit}"


def seeds_said(seeds: Sequence[int]) -> str:
    """How many seeds stand behind a number."""
    return "1 seed, so no interval" if len(seeds) == 1 else f"{len(seeds)} seeds"


def savings_verdict(result: ArmResult, baseline: str) -> str:
    """One arm against the baseline, in one or two sentences."""
    arm, target = result.arm, f"{baseline}'s final loss of {result.target_loss:.3f}"
    seeds = seeds_said(result.seeds)
    if result.saved is None:
        ends = f"it ends at {result.final_loss.value:.3f} nats per token, {_gain(result)}"
        if result.reached == 0:
            return f"{arm} never reaches {target}: {ends} ({seeds})."
        return f"{arm} reaches {target} in {result.reached} of {len(result.seeds)} seeds; on average {ends} ({seeds})."
    saved = result.saved
    amount = f"{with_interval(saved, 100)} of corpus tokens to reach {target} ({seeds})"
    clear = saved.excludes_zero if saved.low is not None else abs(saved.value) >= _SMALL
    if not clear:
        why = "the interval includes none at all" if saved.low is not None else "one seed cannot tell that from none"
        return f"No effect of {arm} is visible: it saves {amount}; {why}."
    if saved.value < 0:
        worse = with_interval(Estimate(-saved.value, _neg(saved.high), _neg(saved.low), saved.n, saved.method), 100)
        return f"{arm} costs {worse} more corpus tokens to reach {target} ({seeds})."
    said = f"{arm} saves {amount}."
    if result.saved_total is not None and result.warmup_tokens:
        said += f" Counting the warm-up's own tokens it saves {with_interval(result.saved_total, 100)}"
        if result.saved_flops is not None:
            said += f", and {with_interval(result.saved_flops, 100)} of the computation"
        said += "."
    return said


def diagnostic_verdict(results: Sequence[DiagnosticResult], baseline: str) -> str:
    """One diagnostic over all arms."""
    name = results[0].diagnostic
    others = [each for each in results if not each.is_baseline]
    guessing = f" (guessing gives {percent(results[0].chance)})" if results[0].chance is not None else ""
    seeds = seeds_said(results[0].seeds)
    if all(each.at_floor for each in results):
        return f"{name}: every arm stays at the floor{guessing}, so it shows nothing at this budget ({seeds})."
    base = [each for each in results if each.is_baseline]
    parts = [f"{baseline} ends at {percent(base[0].accuracy.value, 1)}"] if base else []
    for each in others:
        word = "" if each.differs else ", not told from it"
        parts.append(f"{each.arm} at {percent(each.accuracy.value, 1)}{word}")
    said = f"{name}: {', '.join(parts)}{guessing} ({seeds})."
    if others and not any(each.differs for each in others):
        said += " No effect of any warm-up shows here."
    return said


def verdicts(
    results: Sequence[ArmResult], diagnostics: Sequence[Sequence[DiagnosticResult]], baseline: str
) -> list[str]:
    """Every sentence, the arms' first."""
    said = [savings_verdict(each, baseline) for each in results if not each.is_baseline]
    said += [diagnostic_verdict(each, baseline) for each in diagnostics if each]
    return said


def _gain(result: ArmResult) -> str:
    return f"{abs(result.gain.value):.3f} {'better' if result.gain.value > 0 else 'worse'}"


def _number(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return (text.lstrip("-") if float(text) == 0 else text).replace("-", "\N{MINUS SIGN}")


def _neg(value: float | None) -> float | None:
    return None if value is None else -value
