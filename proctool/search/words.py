"""Sentences about a search's answer. Facts come from answer.py and are never parsed back."""

from __future__ import annotations

from proctool.reporting.interval import Estimate
from proctool.reporting.verdict import with_interval
from proctool.search.answer import Answer
from proctool.search.loop import Progress
from proctool.search.space import Candidate, short_task
from proctool.units import format_count, format_seconds


def first_sentence(answer: Answer) -> str:
    """What to do."""
    found = answer.measured
    gain, name = _gains(found.winner.gain), short_task(found.winner.candidate.task)
    match answer.verdict:
        case "recommend":
            return f"Worth a try: a warm-up on {name} {gain} over a tuned cold start."
        case "no gain":
            best = f"the best warm-up found, on {name}, {gain} against a tuned cold start"
            why = "it is worse" if found.winner.gain.excludes_zero else "the interval includes no gain"
            return f"Do not bother: {best}; {why}."
        case "scale":
            return (
                f"Do not bother with procedural data: a warm-up on {name} {gain} over a tuned cold start, but "
                "fresh weights at the same scale do as well."
            )
        case "text":
            return (
                f"Do not bother if you have more text: a warm-up on {name} {gain} over a tuned cold start, but "
                "as many more tokens of text gain more."
            )


def progress_line(progress: Progress) -> str:
    """A trial that ended."""
    of = "" if progress.of is None else f" of {progress.of}"
    best = ""
    if progress.best is not None:
        best = f", best gain {progress.best:+.3f}" if progress.is_gap else f", best loss {progress.best:.3f}"
    left = format_seconds(progress.seconds_left)
    return f"{progress.phase} {progress.shape}: {progress.ended}{of} trials{best}; about {left} left"


def candidate_words(candidate: Candidate) -> str:
    """A candidate in words."""
    carried = candidate.components.replace(",", ", ")
    return (
        f"{candidate.task}; procedural tokens {candidate.dose:.3g} x corpus tokens; carry {carried}; "
        f"embeddings {candidate.embeddings}; rate {candidate.rate:.3g} at width 64"
    )


def sentences(answer: Answer) -> list[str]:
    """The answer, line by line, the most important first."""
    found, cost = answer.measured, answer.cost
    lines = [first_sentence(answer)]
    lines.append(f"candidate: {candidate_words(found.winner.candidate)}")
    for estimate, rival in (
        (found.over_scale, "fresh weights at the donor's scale"),
        (found.over_longer, "cold with the warm-up's tokens as more text"),
    ):
        if estimate is not None:
            lines.append(f"against {rival}: {_gains(estimate)}")
    lines += [f"next candidate: {candidate_words(each.candidate)}: {_gains(each.gain)}" for each in found.others]
    lines.append(
        f"measured at {answer.small} with {format_count(answer.tokens)} corpus tokens, "
        f"on {len(answer.seeds)} fresh seeds and {answer.rows} fresh validation rows"
    )
    tuned = f"cold start: rate {answer.cold_rate:g}, standard deviation {answer.cold_std:g} at that width"
    if answer.std_gain is not None:
        tuned += f"; tuning the standard deviation alone gained {answer.std_gain:.3f} nats at the narrowest model"
    lines.append(tuned)
    if len(answer.by_width) > 1:
        gains = ", ".join(f"{gain:+.3f} at width {width}" for width, gain in answer.by_width)
        lines.append(f"best gain while searching, which is too high because it was chosen: {gains}")
    lines.append(
        f"cells tried: {answer.cold_cells} cold, {answer.candidate_cells} candidates, "
        f"in {format_seconds(answer.seconds)}"
    )
    share = cost.procedural_flops / cost.corpus_flops
    target = (
        f"cost at {answer.model}: a warm-up of {format_count(cost.procedural_tokens)} tokens and "
        f"{cost.procedural_flops:.2g} FLOPs, {share:.0%} on top of a pretraining of "
        f"{format_count(cost.corpus_tokens)} tokens and {cost.corpus_flops:.2g} FLOPs"
    )
    if cost.warmup_seconds is not None and cost.pretrain_seconds is not None:
        times = f"{format_seconds(cost.warmup_seconds)} and {format_seconds(cost.pretrain_seconds)}"
        target += f"; {times} on {cost.gpus} x {cost.gpu}"
    lines.append(target)
    if answer.small != answer.model:
        lines.append(
            f"the gain at {answer.model} is not measured, and gains often shrink with size: "
            f"`proctool run {answer.recipe}` measures it with the standard controls"
        )
    return lines


def _gains(gain: Estimate) -> str:
    """`gains 0.030 [0.020, 0.040] nats per token`, or `loses ...`."""
    verb, size = ("gains", gain) if gain.value >= 0 else ("loses", gain.negated)
    return f"{verb} {with_interval(size, 1, 3, '')} nats per token"
