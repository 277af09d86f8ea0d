"""The answer in plain sentences, with no more confidence than the seeds give."""

from __future__ import annotations

from collections.abc import Sequence

from proctool.reporting.compare import ArmResult
from proctool.reporting.diagnose import DiagnosticResult
from proctool.reporting.interval import Estimate

_SMALL = 0.03
"""Savings below this share are not told from none on the word of a single seed."""
_SMALL_LOSS = 0.005
"""So are differences in loss below this share of it."""


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
        return _unreached(result, target, seeds)
    saved = result.saved
    amount = f"{with_interval(saved, 100)} of corpus tokens to reach {target} ({seeds})"
    clear = saved.excludes_zero if saved.low is not None else abs(saved.value) >= _SMALL
    if not clear:
        return f"No effect of {arm} is visible: it saves {amount}; {_unclear(saved)}."
    if saved.value < 0:
        return f"{arm} needs {with_interval(_negated(saved), 100)} more corpus tokens to reach {target} ({seeds})."
    said = f"{arm} saves {amount}."
    if result.saved_total is None or not result.warmup_tokens:
        return said
    flops = result.saved_flops
    said += f" Counting the warm-up's own tokens it {_spent(result.saved_total)}"
    if flops is not None and abs(flops.value - result.saved_total.value) >= 0.01:
        said += f"; in computation it {_spent(flops)}"
    return f"{said}."


def _unreached(result: ArmResult, target: str, seeds: str) -> str:
    gain = result.gain
    better = gain.value > 0
    ends = (
        f"ends at {result.final_loss.value:.3f} nats per token, "
        f"{with_interval(gain if better else _negated(gain), 1, 3, '')} {'better' if better else 'worse'}"
    )
    never = result.reached == 0
    reaches = (
        f"never reaches {target}" if never else f"reaches {target} in {result.reached} of {len(result.seeds)} seeds"
    )
    clear = gain.excludes_zero if gain.low is not None else abs(gain.value) >= _SMALL_LOSS * result.target_loss
    if not clear:
        return f"No effect of {result.arm} is visible: it {reaches} and {ends} ({seeds}); {_unclear(gain)}."
    return f"{result.arm} {reaches}: it {ends} ({seeds})."


def _unclear(found: Estimate) -> str:
    return "the interval includes zero" if found.low is not None else "one seed cannot tell that from none"


def _spent(saved: Estimate) -> str:
    """ "saves 20 %", or "spends 16 % more"."""
    return (
        f"saves {with_interval(saved, 100)}"
        if saved.value >= 0
        else f"spends {with_interval(_negated(saved), 100)} more"
    )


def diagnostic_verdict(results: Sequence[DiagnosticResult], baseline: str) -> str:
    """One diagnostic over all arms."""
    name = results[0].diagnostic
    others = [each for each in results if not each.is_baseline]
    known = f"guessing gives {percent(results[0].chance)}; " if results[0].chance is not None else ""
    basis = f"({known}{seeds_said(results[0].seeds)})"
    if all(each.at_floor for each in results):
        return f"{name}: every arm stays at the floor, so it shows nothing at this budget {basis}."
    base = [each for each in results if each.is_baseline]
    parts = [f"{baseline} ends at {percent(base[0].accuracy.value, 1)}"] if base else []
    parts += [f"{each.arm} at {percent(each.accuracy.value, 1)}" for each in others]
    said = f"{name}: {', '.join(parts)} {basis}."
    alike = [each.arm for each in others if not each.differs]
    if others and len(alike) == len(others):
        return f"{said} No effect of any warm-up is established: the differences are within the noise."
    return f"{said} No effect of {_listed(alike)} is established: within the noise." if alike else said


def verdicts(
    results: Sequence[ArmResult], diagnostics: Sequence[Sequence[DiagnosticResult]], baseline: str
) -> list[str]:
    """Every sentence, the arms' first."""
    said = [savings_verdict(each, baseline) for each in results if not each.is_baseline]
    said += [diagnostic_verdict(each, baseline) for each in diagnostics if each]
    return said


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _number(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return (text.lstrip("-") if float(text) == 0 else text).replace("-", "\N{MINUS SIGN}")


def _negated(found: Estimate) -> Estimate:
    low, high = (None if end is None else -end for end in (found.high, found.low))
    return Estimate(-found.value, low, high, found.n, found.method)
