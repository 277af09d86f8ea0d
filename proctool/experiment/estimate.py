"""How long the rest of a graph will take, from what its stages have taken so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from proctool.experiment.graph import Stage
from proctool.reporting.metrics import MetricsLog


def urgency(stages: Sequence[Stage]) -> dict[str, float]:
    """By key: tokens on the longest chain of stages from this one on. The most urgent is run first.

    `stages` has parents before children.
    """
    longest: dict[str, float] = {stage.key: stage.tokens for stage in stages}
    for stage in reversed(stages):
        for parent in stage.parents:
            longest[parent.key] = max(longest[parent.key], parent.tokens + longest[stage.key])
    return longest


def stage_seconds(stage: Stage, log: MetricsLog, others: Sequence[tuple[Stage, MetricsLog]]) -> float | None:
    """Seconds until `stage` is done: from its own pace, else from stages of the same command, else of any."""
    if log.end is not None:
        return 0.0
    pace, step = log.seconds, log.step
    if pace and step:
        return max(0, stage.steps - step) * pace / step
    paces = [(other.command, seen.seconds / seen.tokens) for other, seen in others if seen.seconds and seen.tokens]
    alike = [pace for command, pace in paces if command == stage.command] or [pace for _, pace in paces]
    return stage.tokens * median(alike) if alike else None


def seconds_left(
    stages: Sequence[Stage], left: Mapping[str, float | None], running: set[str], jobs: int
) -> float | None:
    """Seconds until all of `stages` are done, `jobs` at a time and the most urgent first; None while unknown.

    `left` holds, by key, the seconds that each unfinished stage still takes; a stage that is not in it is done.
    """
    waiting = {stage.key: stage for stage in stages if stage.key in left}
    if any(seconds is None for seconds in left.values()):
        return None
    order = urgency(stages)
    ends: dict[str, float] = {}
    now = 0.0
    while waiting or ends:
        ready = [
            stage
            for stage in waiting.values()
            if not any(parent.key in waiting or parent.key in ends for parent in stage.parents)
        ]
        for stage in sorted(ready, key=lambda each: (each.key not in running, -order[each.key]))[: jobs - len(ends)]:
            ends[stage.key] = now + (left[stage.key] or 0.0)
            del waiting[stage.key]
        if not ends:
            break  # what is left waits for a stage that failed
        first = min(ends, key=lambda key: ends[key])
        now = ends.pop(first)
    return now
