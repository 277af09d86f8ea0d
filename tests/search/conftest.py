"""Searches whose trials are not trained: a formula gives their losses, so that a whole search takes a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from proctool.experiment.graph import Plan
from proctool.experiment.stage import Stage
from proctool.search.options import REPORTS
from proctool.training.options import PretrainOptions


@dataclass
class World:
    """The formula: how good each arm is."""

    gain: dict[str, float] = field(default_factory=dict)
    """What a warm-up on a task saves, in nats."""
    scale_gain: float = 0.0
    """What fresh weights at the donor's scale save."""
    best_rate: float = 6e-3
    """The best rate at width 64, for every arm."""
    stop_at: int | None = None
    """The call of `run_arm` that is interrupted."""
    raises: BaseException = field(default_factory=KeyboardInterrupt)
    calls: list[tuple[str, int]] = field(default_factory=list)
    """Arm and seed of every trial."""
    reports: list[int] = field(default_factory=list)
    """Evaluations that each trial reached."""

    def run_arm(self, plan: Plan, arm: str, seed: int, heard: Callable[[int, float], None], *_: Any) -> Stage:
        self.calls.append((arm, seed))
        self.reports.append(0)
        if self.stop_at == len(self.calls):
            raise self.raises
        stage = plan.arms[arm][seed].pretrain
        assert stage is not None
        for report in range(1, REPORTS + 1):
            self.reports[-1] = report
            heard(report * (stage.steps // REPORTS), self.loss(stage, arm) + 8 / report)
        return stage

    def loss(self, stage: Stage, arm: str) -> float:
        options = stage.options
        assert isinstance(options, PretrainOptions)
        width = int(options.model.rpartition("x")[2])
        rate = options.lr * width / 64
        gain = 0.0
        if arm.endswith("-scale"):
            gain = self.scale_gain
        elif stage.donor is not None and stage.donor.task is not None:
            gain = self.gain.get(stage.donor.task.name, 0.0)
        luck = (options.seed * 7919 + len(arm)) % 13 / 13000
        return 2.0 + (rate / self.best_rate - 1) ** 2 / 100 - gain + luck

    def last_loss(self, model: Path, *_: Any) -> float:
        return self.last[model.parent.name]

    last: dict[str, float] = field(default_factory=dict)


@pytest.fixture
def quick_commits() -> Iterator[None]:
    """SQLite does not wait for the disk, which takes most of a test's time."""
    sqlalchemy = pytest.importorskip("sqlalchemy")

    def connected(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    sqlalchemy.event.listen(sqlalchemy.engine.Engine, "connect", connected)
    yield
    sqlalchemy.event.remove(sqlalchemy.engine.Engine, "connect", connected)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, quick_commits: None) -> World:
    made = World()

    def run_arm(plan: Plan, arm: str, seed: int, heard: Callable[[int, float], None], *_: Any) -> Stage:
        stage = made.run_arm(plan, arm, seed, heard)
        made.last[stage.folder(plan.root).name] = made.loss(stage, arm)
        return stage

    monkeypatch.setattr("proctool.search.phases.run_arm", run_arm)
    monkeypatch.setattr("proctool.search.phases.last_loss", made.last_loss)
    monkeypatch.setattr("proctool.search.run.seconds_per_step", lambda *_: 0.001)
    return made


@pytest.fixture
def in_memory(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Optuna's storage in memory instead of SQLite, which takes most of a test's time."""
    storage = pytest.importorskip("optuna").storages.InMemoryStorage()
    monkeypatch.setattr("proctool.search.run.open_storage", lambda url: storage)
    return storage


TINY = (
    "search", "--model", "2x2x16", "--context", "16", "--batch-size", "8", "--steps", "16", "--jobs", "1",
    "--task", "set:inputs=3,symbols=8", "--task", "identity:inputs=3,symbols=8",
)  # fmt: skip
