"""Estimates the remaining time of a graph from the speed of its stages so far."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from proctool.experiment.stage import Stage
from proctool.reporting.metrics import MetricsLog


def urgency(stages: Sequence[Stage]) -> dict[str, float]:
    """The tokens on the longest chain of stages that starts at each stage, by key. The largest runs first.

    `stages` has parents before children.
    """
    longest: dict[str, float] = {stage.key: stage.tokens for stage in stages}
    for stage in reversed(stages):
        for parent in stage.parents:
            longest[parent.key] = max(longest[parent.key], parent.tokens + longest[stage.key])
    return longest


class Throughput:
    """Seconds per token of the stages that have trained, per command and over all commands."""

    def __init__(self, seen: Iterable[tuple[Stage, MetricsLog]]) -> None:
        paces: dict[tuple[str, ...], list[float]] = {}
        for stage, log in seen:
            if log.seconds and log.tokens:
                paces.setdefault(stage.command, []).append(log.seconds / log.tokens)
        self._alike = {command: median(found) for command, found in paces.items()}
        self._any = median([pace for found in paces.values() for pace in found]) if paces else None

    def seconds(self, stage: Stage, log: MetricsLog) -> float | None:
        """Seconds until `stage` is done, from its own speed, else from stages of the same command, else from all."""
        if log.end is not None:
            return 0.0
        pace, step = log.seconds, log.step
        if pace and step:
            return max(0, (log.steps or stage.steps) - step) * pace / step
        alike = self._alike.get(stage.command, self._any)
        return None if alike is None else stage.tokens * alike


def seconds_left(
    stages: Sequence[Stage], left: Mapping[str, float | None], running: set[str], jobs: int
) -> float | None:
    """Seconds until all `stages` are done, with `jobs` at a time and the most urgent first; None while unknown.

    `left` gives the remaining seconds of each unfinished stage by key; a stage without an entry is done.
    """
    if any(seconds is None for seconds in left.values()):
        return None
    order = urgency(stages)
    children: dict[str, list[int]] = {}
    missing = [0] * len(stages)  # parents that are not done
    for number, stage in enumerate(stages):
        for parent in stage.parents if stage.key in left else ():
            if parent.key in left:
                children.setdefault(parent.key, []).append(number)
                missing[number] += 1

    def turn(number: int) -> tuple[bool, float, int]:
        return stages[number].key not in running, -order[stages[number].key], number

    ready = [turn(number) for number, stage in enumerate(stages) if stage.key in left and not missing[number]]
    heapq.heapify(ready)
    ends: list[tuple[float, int]] = []
    now = 0.0
    while ready or ends:
        while ready and len(ends) < jobs:
            number = heapq.heappop(ready)[-1]
            heapq.heappush(ends, (now + (left[stages[number].key] or 0.0), number))
        now, number = heapq.heappop(ends)
        for child in children.get(stages[number].key, ()):
            missing[child] -= 1
            if not missing[child]:
                heapq.heappush(ready, turn(child))
    return now
