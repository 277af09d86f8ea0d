"""results.jsonl: what is written is read back, and nothing else is taken for results."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proctool.errors import RunError
from proctool.evaluation.summary import summarise
from proctool.results import DiagnosticRun, holds_results, read_results, to_json, write_results
from tests.evaluation.test_diagnostics import measured


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    runs = [measured(0, 0.0, 0.5), measured(3, 0.25, 1.0)]
    lines = [*runs, *summarise(runs), *summarise(runs[:1])]
    write_results(tmp_path / "r", lines)
    assert read_results(tmp_path / "r") == lines
    assert [json.loads(line) for line in (tmp_path / "r").read_text().splitlines()] == [*map(to_json, lines)]
    assert holds_results(tmp_path / "r")


def change(**values: Any) -> Callable[[DiagnosticRun], str]:
    return lambda run: json.dumps({**to_json(run), **values})


def leave_out(name: str) -> Callable[[DiagnosticRun], str]:
    return lambda run: json.dumps({key: value for key, value in to_json(run).items() if key != name})


DAMAGED: dict[str, Callable[[DiagnosticRun], str]] = {
    "torn": lambda run: json.dumps(to_json(run))[:-20],
    "no JSON": lambda _: "results",
    "a list": lambda _: "[1]",
    "no event": leave_out("event"),
    "no scores": leave_out("scores"),
    "another event": change(event="end"),
    "an event that is no name": change(event=["diagnostic"]),
    "a seed that is text": change(seed="0"),
    "a negative step": change(steps=-1),
    "a share that is no number": change(
        scores={"answer": {"loss": 1, "accuracy": "0.5", "exact_match": 0, "targets": 1}}
    ),
    "a curve that is no list": change(curve={"0": 1}),
    "not a number": lambda run: json.dumps(to_json(run) | {"seconds": float("nan")}),
    "deep": lambda run: json.dumps(to_json(run))[:-1] + ', "more": ' + "[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_line_is_named(tmp_path: Path, damage: str) -> None:
    run = measured(0, 0.5)
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(to_json(run)) + "\n" + DAMAGED[damage](run) + "\n")
    with pytest.raises(RunError, match=r"results\.jsonl: line 2 is damaged or not a result"):
        read_results(path)


def test_a_later_version_may_write_more(tmp_path: Path) -> None:
    run = measured(0, 0.5)
    (tmp_path / "r").write_text(change(colour="blue")(run))
    assert read_results(tmp_path / "r") == [run]


@pytest.mark.parametrize("content", ["", "{}", "note", '{"event": "end"}', "[" * 100_000, '{"event": {}}'])
def test_other_files_are_not_taken_for_results(tmp_path: Path, content: str) -> None:
    (tmp_path / "r").write_text(content)
    assert not holds_results(tmp_path / "r")
