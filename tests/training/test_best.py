"""The best weights beside the last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proctool import artifact
from proctool.training.run import RunFolder
from proctool.training.warmup import warmup_job
from tests.event_lines import event_lines
from tests.training.runs import contents, options, same_after_kills

# Falls, then rises: too high a rate after the ramp.
UNSTEADY: dict[str, Any] = {
    "lr": 0.1,
    "clip": 0,
    "weight_decay": 0,
    "steps": 24,
    "eval_every": 2,
    "schedule": "constant",
}


@pytest.mark.parametrize("kills", [[("eval", 5)], [("train", 6), ("eval", 3)]])
def test_both_the_best_and_the_last_survive_kills(tmp_path: Path, kills: list[tuple[str, int]]) -> None:
    end = same_after_kills(tmp_path, kills, save="both", **UNSTEADY)
    evals = [event for event in event_lines(tmp_path / "whole") if event["event"] == "eval" and event["step"]]
    least = min(evals, key=lambda event: event["loss"])
    assert end.best.step == least["step"] < 24, "a run whose best is its last shows nothing"
    assert end.best.loss == least["loss"] < end.loss == evals[-1]["loss"]
    assert artifact.read_header(tmp_path / "whole-best.safetensors").metadata["steps"] == least["step"]
    assert contents(tmp_path / "whole-best.safetensors") != contents(tmp_path / "whole.safetensors")


def test_the_best_is_what_a_run_that_ended_there_would_leave(tmp_path: Path) -> None:
    best = warmup_job(options(tmp_path, "best", save="best", **UNSTEADY)).run()
    until = best.best.step
    short = warmup_job(options(tmp_path, "short", **{**UNSTEADY, "steps": until})).run()
    assert best.content == contents(tmp_path / "best.safetensors") == short.content
    assert best.loss == short.loss
    assert best.step == 24


def test_best_weights_stay_as_long_as_a_checkpoint_goes_back_to_them(tmp_path: Path) -> None:
    import torch

    run = RunFolder(tmp_path / "run", {})

    def kept() -> list[str]:
        return sorted(path.name.partition(".")[0] for path in (tmp_path / "run" / "checkpoints").iterdir())

    for step in (10, 20):
        run.save_best(step, {"w": torch.zeros(1)})
    assert kept() == ["best-00000020"]
    run.save(25, {"w": torch.zeros(1)}, {}, keep=1)
    for step in (30, 40):
        run.save_best(step, {"w": torch.zeros(1)})
    assert kept() == ["best-00000020", "best-00000040", "step-00000025"]
    run.begin(25)
    assert kept() == ["best-00000020", "step-00000025"], "what comes after the checkpoint is done again"
    run.close()
