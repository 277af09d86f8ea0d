"""Every task against its checker, over its defaults, its presets and many settings."""

from __future__ import annotations

import numpy as np
import pytest

from proctool.procedural.registry import Task, build_task, tasks
from tests.procedural.checkers import CHECKERS, SETTINGS


def every_setting() -> list[Task]:
    return [
        task
        for name, cls in tasks().items()
        for task in (
            build_task(name),
            *(build_task(name, preset=preset) for preset in cls.presets),
            *(build_task(name, options) for options in SETTINGS[name]),
        )
    ]


def check(task: Task, seed: int, n: int) -> None:
    samples = task.sample(np.random.Generator(np.random.PCG64(seed)), n)
    checker = CHECKERS[task.name]
    for tokens, targets in zip(samples.tokens.tolist(), samples.targets.tolist(), strict=True):
        checker(task.options, tokens, targets)


@pytest.mark.parametrize("task", every_setting(), ids=lambda task: task.spec)
def test_samples_obey_the_definition(task: Task) -> None:
    # About as much work for each: long samples are checked in smaller numbers.
    check(task, seed=1, n=max(2, min(200, 20_000 // task.length)) if task.name != "nca" else 4)


@pytest.mark.slow
@pytest.mark.parametrize("task", every_setting(), ids=lambda task: task.spec)
def test_thousands_of_samples_obey_the_definition(task: Task) -> None:
    check(task, seed=2, n=max(8, min(3000, 300_000 // task.length)) if task.name != "nca" else 40)


def test_every_task_has_a_checker() -> None:
    assert set(CHECKERS) == set(SETTINGS) == set(tasks())


def test_every_rule_of_the_elementary_automata() -> None:
    for rule in range(256):
        check(build_task("eca", {"rule": rule, "width": 11, "steps": 6}), seed=rule, n=2)
