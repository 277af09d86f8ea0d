"""Which seeds of an arm are left out because it cannot win any more (`stop_hopeless`).

The seeds of an arm are decided in the order of the recipe; the first two always run. A later seed waits until the
baseline has finished all its seeds and the arm all earlier ones. It is left out, with all seeds after it, if the 95 %
interval of the arm's gain over those earlier seeds lies below zero (`reporting.compare.gain`: at equal tokens, paired).
A control follows the arms that it controls: it is left out when all of them are.

A decision reads nothing but finished runs that are fixed by that order, so neither `--jobs` nor an interruption changes
it. Keys and options of stages do not depend on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from proctool.experiment.graph import ArmStages, Plan, Rung
from proctool.experiment.stage import Stage
from proctool.reporting.compare import Run, gain
from proctool.reporting.interval import Estimate
from proctool.reporting.measured import Warmup, run_of
from proctool.reporting.metrics import MetricsLog
from proctool.reporting.stopped import StoppedArm

ALWAYS = 2
"""Seeds that every arm runs: the fewest that give an interval."""


@dataclass(frozen=True)
class Decisions:
    """What may not start."""

    waiting: frozenset[str] = frozenset()
    """The keys of stages that no decided seed needs yet."""
    stopped: tuple[StoppedArm, ...] = ()

    @property
    def left_out(self) -> frozenset[str]:
        """The keys of stages that are not run at all."""
        return frozenset(key for each in self.stopped for key in each.stages)


@dataclass(frozen=True)
class _Lost:
    arm: str
    over: tuple[int, ...]
    gain: Estimate


_Verdict = _Lost | Literal["runs", "waits"]


def decide(plan: Plan, done: Mapping[str, MetricsLog]) -> Decisions:
    """The decisions that the finished stages `done`, by key, allow."""
    if not plan.recipe.stop_hopeless:
        return Decisions()
    runs, waits, lost = set[str](), set[str](), list[tuple[str, int, _Lost, set[str]]]()
    for rung in plan.rungs.values() or (plan,):
        for name, by_seed in rung.arms.items():
            for place, (seed, stages) in enumerate(by_seed.items()):
                runs |= _with_parents(stages.diagnostics.values())
                needed = _with_parents(_of_pretraining(stages))
                match _verdict(rung, done, name, place):
                    case "runs":
                        runs |= needed
                    case "waits":
                        waits |= needed
                    case _Lost() as found:
                        lost.append((rung.planned[name].name, seed, found, needed))
    by_arm: dict[str, list[tuple[int, _Lost, set[str]]]] = {}
    for arm, seed, found, needed in lost:
        by_arm.setdefault(arm, []).append((seed, found, needed - runs - waits))
    stopped = tuple(
        StoppedArm(
            arm=arm,
            seeds=tuple(seed for seed, _, _ in each),
            stages=tuple(sorted(set().union(*(keys for _, _, keys in each)))),
            loser=each[0][1].arm,
            over=each[0][1].over,
            gain=each[0][1].gain,
        )
        for arm, each in by_arm.items()
    )
    return Decisions(frozenset(waits - runs), stopped)


def finished(plan: Plan, elsewhere: Mapping[Stage, Path] | None = None) -> dict[str, MetricsLog]:
    """The metrics of the stages that are done, by key; `elsewhere` are those done in other experiments' folders."""
    roots = {stage: plan.root for stage in plan.stages if stage.is_done(plan.root)} | dict(elsewhere or {})
    logs = {stage.key: MetricsLog(stage.folder(root)) for stage, root in roots.items()}
    for log in logs.values():
        log.update()
    return logs


def _of_pretraining(stages: ArmStages) -> list[Stage]:
    """The pretraining of an arm and what depends on it."""
    on_tasks = [each for by_task in stages.tasks.values() for each in by_task.values()]
    return [*stages.budgets.values(), *stages.finetunes.values(), *on_tasks, *stages.evaluations.values()]


def _with_parents(stages: Iterable[Stage]) -> set[str]:
    found: set[str] = set()
    for stage in stages:
        if stage.key not in found:
            found |= {stage.key, *_with_parents(stage.parents)}
    return found


def _verdict(rung: Plan | Rung, done: Mapping[str, MetricsLog], name: str, place: int) -> _Verdict:
    """The verdict on the seed at `place` of an arm."""
    arm, baseline = rung.planned[name], rung.recipe.baseline
    if name == baseline or place < ALWAYS:
        return "runs"
    if arm.control is not None:
        verdicts = [_verdict(rung, done, each, place) for each in arm.of]
        open_ones = [each for each in verdicts if isinstance(each, str)]
        return min(open_ones, default=verdicts[0])  # "runs" before "waits"
    base, mine = _runs(rung.arms[baseline], done), _runs(rung.arms[name], done)
    for count in range(ALWAYS, place + 1):
        first = list(rung.arms[name])[:count]
        if len(base) < len(rung.arms[baseline]) or not mine.keys() >= set(first):
            return "waits"
        found = gain(base, {seed: mine[seed] for seed in first})
        if found.excludes_zero and found.value < 0:
            return _Lost(arm.name, tuple(first), found)
    return "runs"


def _runs(by_seed: Mapping[int, ArmStages], done: Mapping[str, MetricsLog]) -> dict[int, Run]:
    """The finished pretrainings of an arm."""
    found = {}
    for seed, stages in by_seed.items():
        if stages.pretrain is not None and stages.pretrain.key in done:
            run = run_of(done[stages.pretrain.key], Warmup())
            if run is not None:
                found[seed] = run
    return found
