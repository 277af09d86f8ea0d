"""Validation rows are scored once each: asking for more is said, and what is used is recorded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Said

RUN = ("--model", "1x2x16", "--context", 16, "--steps", 2, "--batch-size", 2, "--eval-every", 2, "--resume", "never")


def start_of(folder: Path) -> dict[str, object]:
    events = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return next(event for event in events if event["event"] == "start")


def test_more_than_there_are_is_said_before_training_and_changes_nothing(
    proctool: Callable[..., Said], tmp_path: Path, text: Path
) -> None:
    losses = {}
    said = proctool("pretrain", "--corpus", text, *RUN, "--eval-samples", 5000, "-o", "a.safetensors", "--json")
    rows = start_of(tmp_path / "a.run")["eval_samples"]
    assert isinstance(rows, int)
    assert 1 < rows < 5000
    note = f"the validation split has {rows} samples, fewer than --eval-samples 5000; all of them are scored"
    assert note in said.err
    assert said.err.index(note) < said.err.index("parameters, 2 steps")
    losses[5000] = json.loads(said.out)["loss"]
    for asked in (rows, rows - 1):
        said = proctool("pretrain", "--corpus", text, *RUN, "--eval-samples", asked, "-o", "a.safetensors", "--json")
        assert "fewer than" not in said.err
        assert start_of(tmp_path / "a.run")["eval_samples"] == asked
        losses[asked] = json.loads(said.out)["loss"]
    assert losses[rows] == losses[5000]
    assert losses[rows - 1] != losses[5000]
    assert note in proctool("pretrain", "--corpus", text, *RUN, "--eval-samples", 5000, "--dry-run").err


@pytest.mark.parametrize("asked", [1, 9])
def test_tasks_have_as_many_as_are_asked_for(proctool: Callable[..., Said], tmp_path: Path, asked: int) -> None:
    said = proctool(
        "warmup", "--task", "set:inputs=4,symbols=9", "--model", "1x2x16", "--steps", 1, "--batch-size", 2,
        "--eval-samples", asked,
    )  # fmt: skip
    assert said.code == 0, said.err
    assert "fewer than" not in said.err
    assert start_of(tmp_path / "warm.run")["eval_samples"] == asked
