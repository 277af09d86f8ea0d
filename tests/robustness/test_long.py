"""Long runs and large experiments: the work of a step, of a look and of a stage does not grow with how many there are.

`python -m benchmarks.long_run` watches memory, open files and speed over 50 000 steps.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proctool.events import TrainEvent
from proctool.experiment.estimate import Throughput, seconds_left, urgency
from proctool.experiment.graph import Plan, plan
from proctool.recipe import build_recipe
from proctool.reporting.metrics import MetricsLog
from proctool.training.background import Background
from proctool.training.warmup import warmup_job
from tests.training.runs import options


def calls(work: Callable[[], object]) -> int:
    """How many functions are called, Python's and C's: a measure of work that no other process disturbs."""
    count = 0

    def tell(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(tell)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def planned(seeds: int, root: Path) -> Plan:
    arms = {f"a{n}": {"warmup": {"task": f"set:inputs={4 + n}"}} for n in range(20)}
    values = {"name": "x", "model": "2x2x16", "corpus": "python", "context": 64, "seeds": list(range(seeds))}
    return plan(build_recipe(values | {"arms": {"cold": {}} | arms}), root)


@pytest.mark.slow
def test_planning_takes_work_in_proportion_to_stages(tmp_path: Path) -> None:
    planned(1, tmp_path)  # imports and caches
    few, many = (calls(lambda seeds=seeds: planned(seeds, tmp_path)) for seeds in (10, 40))
    assert many < 5 * few


def test_a_look_at_a_running_experiment_takes_work_in_proportion_to_stages(tmp_path: Path) -> None:
    def look(seeds: int) -> int:
        stages = planned(seeds, tmp_path).stages
        logs = {stage.key: MetricsLog(stage.folder(tmp_path)) for stage in stages}
        logs[stages[0].key].train.append(TrainEvent(step=1, tokens=10, seconds=1.0))

        def estimate() -> None:
            paces = Throughput((stage, logs[stage.key]) for stage in stages)
            left = {stage.key: paces.seconds(stage, logs[stage.key]) for stage in stages}
            assert seconds_left(stages, left, set(), jobs=2) is not None

        return calls(estimate)

    assert look(40) < 6 * look(10)


def test_time_left_is_that_of_a_plain_simulation(tmp_path: Path) -> None:
    stages = planned(4, tmp_path).stages
    left = {stage.key: 1.0 + number % 7 for number, stage in enumerate(stages) if number % 5}
    order = urgency(stages)
    for jobs in (1, 2, 5):
        waiting = [stage for stage in stages if stage.key in left]
        ends: dict[str, float] = {}
        now = 0.0
        while waiting or ends:
            undone = {stage.key for stage in waiting} | ends.keys()
            ready = [stage for stage in waiting if not any(parent.key in undone for parent in stage.parents)]
            for stage in sorted(ready, key=lambda each: -order[each.key])[: jobs - len(ends)]:
                ends[stage.key] = now + left[stage.key]
                waiting.remove(stage)
            first = min(ends, key=lambda key: ends[key])
            now = ends.pop(first)
        assert seconds_left(stages, left, set(), jobs) == now


def test_reading_metrics_takes_work_in_proportion_to_events(tmp_path: Path) -> None:
    def read(events: int) -> int:
        lines = [json.dumps({"event": "train", "step": step, "tokens": step, "loss": 1.0}) for step in range(events)]
        (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        return calls(MetricsLog(tmp_path).update)

    assert read(4000) < 5 * read(1000)


@pytest.mark.slow
def test_a_step_costs_the_record_the_same_early_and_late(tmp_path: Path) -> None:
    warmup_job(options(tmp_path, steps=400, eval_every=100, log_every=1, checkpoint_every=1000)).run()
    lines = (tmp_path / "run" / "metrics.jsonl").read_bytes().splitlines()
    train = [len(line) for line in lines if b'"train"' in line]
    assert max(train) < 300
    assert sum(train[-100:]) < 1.1 * sum(train[100:200])


def test_steps_open_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Background, "start", lambda self, job: job())  # its thread has files open at any moment
    open_files: list[int] = []
    job = warmup_job(options(tmp_path, steps=60, eval_every=10, log_every=1, checkpoint_every=5))
    job.listeners = [lambda event: open_files.append(len(os.listdir("/dev/fd"))) if event.kind == "train" else None]
    job.run()
    assert max(open_files[10:]) <= open_files[9]


def test_a_run_whose_checkpoints_a_thread_writes_leaves_no_file_open(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    warmup_job(options(tmp_path / "first", steps=10)).run()  # what is opened once in a process
    before = len(os.listdir("/dev/fd"))
    warmup_job(options(tmp_path / "second", steps=60, checkpoint_every=5)).run()
    assert len(os.listdir("/dev/fd")) <= before
