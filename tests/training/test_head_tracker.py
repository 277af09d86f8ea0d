"""Heads are scored while a model trains, and the training is the same to the bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from proctool.artifact import read_header
from proctool.errors import OptionError, RunError
from proctool.evaluation.interpret.course import read_course
from proctool.events import EvalEvent, HeadsEvent, from_json, read_events, to_json
from proctool.training.options import WarmupOptions
from proctool.training.run import RunFolder
from proctool.training.warmup import warmup_job
from tests.conftest import Said


def options(folder: Path, name: str, **changes: Any) -> WarmupOptions:
    settings = {
        "task": ("set:inputs=5,symbols=9",), "model": "2x2x16", "steps": 12, "batch_size": 8, "eval_every": 4,
        "eval_samples": 20, "log_every": 3, "checkpoint_every": 5, "run_dir": folder / name, "dropout": 0.1,
        "output": folder / f"{name}.safetensors",
    }  # fmt: skip
    return WarmupOptions(**{**settings, **changes})


def test_scores_stand_beside_each_evaluation_and_change_no_weight(tmp_path: Path) -> None:
    for name, more in (("plain", {}), ("tracked", {"track_heads": True})):
        warmup_job(options(tmp_path, name, **more)).run()
    headers = [read_header(tmp_path / f"{name}.safetensors") for name in ("plain", "tracked")]
    assert headers[0].content == headers[1].content
    events = read_events(tmp_path / "tracked")
    steps = [event.step for event in events if isinstance(event, EvalEvent)]
    for own in (False, True):
        assert [event.step for event in events if isinstance(event, HeadsEvent) and event.own == own] == steps
    assert not any(isinstance(event, HeadsEvent) for event in read_events(tmp_path / "plain"))
    points = read_course(tmp_path / "tracked")
    assert [point.step for point in points] == [0, 4, 8, 12]
    assert all(len(point.own) == len(point.repeated) == 4 for point in points)
    assert points[0].repeated[0]["induction"] != points[-1].repeated[0]["induction"]
    with pytest.raises(RunError, match="has no head scores"):
        read_course(tmp_path / "plain")


def test_an_interrupted_run_has_the_same_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warmup_job(options(tmp_path, "whole", track_heads=True)).run()

    class Stop(Exception):
        pass

    record = RunFolder.record

    def until(self: RunFolder, event: Any) -> None:
        record(self, event)
        if isinstance(event, HeadsEvent) and event.step == 8:
            raise Stop

    monkeypatch.setattr(RunFolder, "record", until)
    with pytest.raises(Stop):
        warmup_job(options(tmp_path, "cut", track_heads=True)).run()
    monkeypatch.undo()
    warmup_job(options(tmp_path, "cut", track_heads=True)).run()
    assert read_course(tmp_path / "cut") == read_course(tmp_path / "whole")


def test_the_event_is_read_as_it_was_written() -> None:
    event = HeadsEvent(step=3, samples="x", own=True, heads=[{"layer": 0, "head": 1, "induction": None}])
    assert from_json(json.loads(json.dumps(to_json(event)))) == event
    for wrong in ({"heads": 3}, {"heads": [3]}, {"own": "yes"}, {"heads": [{"layer": 1}]}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            from_json({**to_json(event), **wrong})


def test_a_context_that_is_too_short_is_refused(tmp_path: Path) -> None:
    short = options(tmp_path, "short", task=("first:inputs=1,symbols=5",), track_heads=True)
    with pytest.raises(OptionError, match="track_heads: a context of 3 tokens is too short"):
        warmup_job(short).run()


@pytest.mark.slow
def test_the_course_is_told_and_drawn(proctool: Callable[..., Said], tmp_path: Path) -> None:
    warmup_job(options(tmp_path, "run", steps=4, track_heads=True)).run()
    said = proctool("eval", "interpret", "run", "--figures", "f", "--json")
    assert said.code == 0, said.err
    course = json.loads(said.out)["course"]
    best = max(row["lookup"] for row in course[-1]["own"])
    assert f"{best:.3f}" in said.err
    assert (tmp_path / "f" / "course.png").stat().st_size > 5000
    assert np.all(np.diff([point["step"] for point in course]) > 0)
