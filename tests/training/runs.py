"""Tiny runs, kills and comparisons shared by the tests of the training loop."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proctool import artifact
from proctool.events import EndEvent, Event
from proctool.training.options import WarmupOptions
from proctool.training.warmup import warmup_job
from tests.event_lines import event_lines

TASK = "set:inputs=5,symbols=9"


def options(folder: Path, name: str = "run", **changes: Any) -> WarmupOptions:
    settings = {
        "task": (TASK,), "model": "2x2x16", "steps": 12, "batch_size": 8, "eval_every": 4, "eval_samples": 20,
        "log_every": 3, "checkpoint_every": 5, "dropout": 0.1, "run_dir": folder / name,
        "output": folder / f"{name}.safetensors", "ramp_steps": 2,
    }  # fmt: skip
    return WarmupOptions(**{**settings, **changes})


def contents(path: Path) -> str:
    return artifact.read_header(path).content


def without_clock(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    clock = {"seconds", "tokens_per_second", "checkpoint_seconds", "run_dir", "artifact", "best_artifact"}
    kept = [event for event in events if event["event"] != "resume"]
    return [{key: value for key, value in event.items() if key not in clock} for event in kept]


class Killed(BaseException):
    """Stands for a kill: nothing in the program catches it."""


def killed_at(event: str, occurrence: int) -> Callable[[Event], None]:
    seen = itertools.count(1)

    def listen(said: Event) -> None:
        if said.kind == event and next(seen) == occurrence:
            raise Killed

    return listen


def same_after_kills(folder: Path, kills: list[tuple[str, int]], **changes: Any) -> EndEvent:
    """Assert that a run killed at each of `kills` ends as one that was not; its end event."""
    end = warmup_job(options(folder, "whole", **changes)).run()
    for event, occurrence in kills:
        job = warmup_job(options(folder, "killed", **changes))
        job.listeners = [killed_at(event, occurrence)]
        with pytest.raises(Killed):
            job.run()
    warmup_job(options(folder, "killed", **changes)).run()
    for written in folder.glob("whole*.safetensors"):
        assert contents(written.with_name(written.name.replace("whole", "killed"))) == contents(written)
    assert without_clock(event_lines(folder / "killed")) == without_clock(event_lines(folder / "whole"))
    assert not list((folder / "killed" / "checkpoints").glob("step-*"))
    return end
