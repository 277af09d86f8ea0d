"""The results in plain sentences, no more certain than the seeds allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from proctool.reporting.compare import ArmResult
from proctool.reporting.controls import ControlPair
from proctool.reporting.diagnose import DiagnosticResult
from proctool.reporting.finetuned import FinetuneResult
from proctool.reporting.interval import Estimate

_SMALL = 0.03
"""With a single seed, savings below this share count as none."""
_SMALL_LOSS = 0.005
"""With a single seed, differences below this share of the loss count as none."""
_LISTED = 5
"""With more arms than this, a sentence names only those that differ."""


@dataclass(frozen=True)
class Controlled:
    """A control compared with the arm that it is a control of."""

    control: ControlPair
    result: ArmResult
    """The control against the baseline."""
    margin: Estimate | None
    """The control's final loss minus the arm's, in nats per token."""


def percent(share: float, digits: int = 0) -> str:
    """0.3 -> 30 %."""
    text = f"{100 * share:.{digits}f}"
    return f"{'0' if float(text) == 0 else text} %".replace("-", "\N{MINUS SIGN}")


def with_interval(found: Estimate, scale: float = 1.0, digits: int = 0, unit: str = " %") -> str:
    """31 % [27, 35], or 31 % without an interval."""
    numbers = [found.value] if found.low is None or found.high is None else [found.value, found.low, found.high]
    mean, *ends = [_number(each * scale, digits) for each in numbers]
    return f"{mean}{unit} [{ends[0]}, {ends[1]}]" if ends else f"{mean}{unit}"


def seeds_said(seeds: Sequence[int]) -> str:
    """How many seeds a number is based on."""
    return "1 seed, so no interval" if len(seeds) == 1 else f"{len(seeds)} seeds"


def savings_verdict(result: ArmResult, baseline: str, controls: Sequence[Controlled] = ()) -> str:
    """One arm against the baseline and its controls, in a few sentences."""
    arm, target = result.arm, _target(result, baseline)
    seeds = seeds_said(result.seeds)
    beside = "".join(f"; {_control_saves(each)}" for each in _telling(controls))
    over = _over(controls)
    if result.saved is None:
        return _unreached(result, target, seeds, beside) + over
    saved = result.saved
    at_least = "at least " if result.at_least else ""
    amount = f"{at_least}{with_interval(saved, 100)} of corpus tokens to reach {target} ({seeds})"
    clear = saved.excludes_zero if saved.low is not None else abs(saved.value) >= _SMALL
    if not clear:
        return f"{arm} saves {amount}, but this is not significant: {_unclear(saved)}{beside}.{over}"
    if saved.value < 0:
        more = f"{with_interval(saved.negated, 100)} more corpus tokens to reach {target} ({seeds})"
        return f"{arm} needs {more}{beside}.{over}"
    said = f"{arm} saves {amount}{beside}."
    if result.saved_total is not None and result.warmup_tokens:
        flops = result.saved_flops
        said += f" Including warm-up tokens, it {_spent(result.saved_total)}"
        if flops is not None and abs(flops.value - result.saved_total.value) >= 0.01:
            said += f"; in FLOPs, it {_spent(flops)}"
        said += "."
    return said + over


def _target(result: ArmResult, baseline: str) -> str:
    loss = f"{result.target_loss:.3f}"
    return f"a loss of {loss}" if result.given_loss else f"{baseline}'s final loss of {loss}"


def _telling(controls: Sequence[Controlled]) -> list[Controlled]:
    """The first control and, if another one comes closer to the arm, that one too.

    A claim needs the strongest control, not the weakest. Controls that train on more corpus are not compared.
    """
    rivals = [each for each in controls if each.control.kind != "longer" and each.margin is not None]
    closest = min(rivals, key=lambda each: each.margin.value if each.margin else 0.0, default=None)
    return [*controls[:1], *([closest] if closest is not None and closest is not controls[0] else [])]


def _control_saves(each: Controlled) -> str:
    name, result = f"its {each.control.words}", each.result
    if result.saved is None:
        count = f"reaches it in {result.reached} of {len(result.seeds)} seeds" if result.reached else "never reaches it"
        return f"{name} {'reaches it' if result.tokens is not None else count}"
    if result.saved.value < 0 and (result.saved.excludes_zero or result.saved.low is None):
        return f"{name} needs {with_interval(result.saved.negated, 100)} more"
    return f"{name} saves {with_interval(result.saved, 100)}"


def _over(controls: Sequence[Controlled]) -> str:
    """How much better the arm ends than each control."""
    parts: list[str] = []
    for each in controls:
        left = each.margin
        if left is None:
            continue
        clear = is_clear(left, each.result.target_loss)
        better = left.value > 0
        amount = with_interval(left if better else left.negated, 1, 3, "" if parts else " nats per token")
        doubt = "" if clear else " (not significant)"
        parts.append(f"{amount} {'better' if better else 'worse'} than its {each.control.words}{doubt}")
    return f" It ends {joined(parts, 'and')}." if parts else ""


def _unreached(result: ArmResult, target: str, seeds: str, beside: str) -> str:
    gain = result.gain
    better = gain.value > 0
    ends = (
        f"ends at {result.final_loss.value:.3f} nats per token, "
        f"{with_interval(gain if better else gain.negated, 1, 3, '')} {'better' if better else 'worse'}"
    )
    if result.tokens is not None:
        return f"{result.arm} reaches {target}, which the baseline never does: it {ends} ({seeds}){beside}."
    never = result.reached == 0
    reaches = (
        f"never reaches {target}" if never else f"reaches {target} in {result.reached} of {len(result.seeds)} seeds"
    )
    if not is_clear(gain, result.target_loss):
        return f"{result.arm} {reaches} and {ends} ({seeds}), but this is not significant: {_unclear(gain)}{beside}."
    return f"{result.arm} {reaches}: it {ends} ({seeds}){beside}."


def _unclear(found: Estimate) -> str:
    return "the interval includes zero" if found.low is not None else "with one seed it may be chance"


def _spent(saved: Estimate) -> str:
    """ "saves 20 %", or "spends 16 % more"."""
    return (
        f"saves {with_interval(saved, 100)}" if saved.value >= 0 else f"spends {with_interval(saved.negated, 100)} more"
    )


def diagnostic_verdict(results: Sequence[DiagnosticResult], baseline: str) -> str:
    """One diagnostic over all arms."""
    name = results[0].diagnostic
    others = [each for each in results if not each.is_baseline]
    known = f"guessing gives {percent(results[0].chance)}; " if results[0].chance is not None else ""
    basis = f"({known}{seeds_said(results[0].seeds)})"
    if all(each.at_floor for each in results):
        return f"{name}: no arm is better than guessing, so it shows nothing at this budget {basis}."
    base = [each for each in results if each.is_baseline]
    parts = [f"{baseline} ends at {percent(base[0].accuracy.value, 1)}"] if base else []
    few = len(others) <= _LISTED
    parts += [f"{each.arm} at {percent(each.accuracy.value, 1)}" for each in others if few or each.differs]
    said = f"{name}: {', '.join(parts)} {basis}."
    alike = [each.arm for each in others if not each.differs]
    if others and len(alike) == len(others):
        return f"{said} No warm-up has a clear effect: the differences are within the noise."
    return f"{said} {joined(alike, 'and')}: no clear effect, within the noise." if alike else said


def finetune_verdict(results: Sequence[FinetuneResult], before: Sequence[ArmResult], baseline: str) -> str:
    """One fine-tuning over all arms: whose gain remains."""
    base, *others = results
    gains = {each.arm: each.gain for each in before}
    loss = base.final_loss.value
    said = [f"After fine-tuning on {base.finetune}, {baseline} ends at {loss:.3f} nats per token"]
    said[0] += f" ({seeds_said(base.seeds)})"
    for each in others:
        better = each.gain.value > 0
        amount = with_interval(each.gain if better else each.gain.negated, 1, 3, "")
        clear, had = is_clear(each.gain, loss), gains.get(each.arm)
        way = f"{each.arm} ends {amount} {'better' if better else 'worse'}"
        if len(each.seeds) < len(base.seeds):
            way += f" (only seeds {', '.join(map(str, each.seeds))})"
        if not clear:
            way += f", but this is not significant: {_unclear(each.gain)}"
        elif better and had is not None and had.value > 0 and is_clear(had, loss):
            way += f": its gain at the end of pretraining, {with_interval(had, 1, 3, '')}, remains"
        said.append(way)
    return ". ".join(said) + "."


def is_clear(found: Estimate, loss: float) -> bool:
    """Whether a difference in loss is clear: its interval excludes zero, or with one seed it exceeds _SMALL_LOSS."""
    return found.excludes_zero if found.low is not None else abs(found.value) >= _SMALL_LOSS * loss


def verdicts(
    results: Sequence[ArmResult],
    controls: Sequence[Controlled],
    diagnostics: Sequence[Sequence[DiagnosticResult]],
    baseline: str,
    finetunes: Sequence[Sequence[FinetuneResult]] = (),
) -> list[str]:
    """Every sentence, those of arms first; a control is part of the sentence of its arm."""
    told = {each.control.arm for each in controls}
    said = [
        savings_verdict(each, baseline, [one for one in controls if one.control.of == each.arm])
        for each in results
        if not each.is_baseline and each.arm not in told
    ]
    said += [finetune_verdict(each, results, baseline) for each in finetunes if each]
    return said + [diagnostic_verdict(each, baseline) for each in diagnostics if each]


def joined(parts: Sequence[str], last: str) -> str:
    """a, b `last` c."""
    return f" {last} ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


def _number(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return (text.lstrip("-") if float(text) == 0 else text).replace("-", "\N{MINUS SIGN}")
