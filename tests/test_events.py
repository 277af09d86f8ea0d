"""Events and their JSON: every kind comes back as it was, old files are read, damage is named."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from proctool.errors import RunError
from proctool.events import (
    FILE,
    CurriculumEvent,
    EndEvent,
    EvalEvent,
    Evaluation,
    Event,
    ExtendEvent,
    HeadsEvent,
    NoteEvent,
    ResumeEvent,
    StartEvent,
    TrainEvent,
    TryEvent,
    from_json,
    read_events,
    to_json,
    write_event,
)

NO_NUMBER = Evaluation(step=4, tokens=32, accuracy=0.0, exact_match=0.0)
EVENTS = [
    StartEvent(
        command="warmup", steps=4, tokens_per_step=8, parameters=9, trained=9, flops=1e9, carried=[], seed=0,
        eval_samples=2, environment={"compile": True}, metadata={"task": "set:inputs=4", "split": "train"},
    ),
    StartEvent(steps=4),
    ResumeEvent(step=2),
    ExtendEvent(step=4, steps=8, flops=2e9, content="c0ffee"),
    ExtendEvent(step=4, steps=8),
    TrainEvent(step=2, tokens=16, loss=2.5, lr=0.1, grad_norm=1.0, tokens_per_second=9, mfu=0.4, seconds=0.5),
    TrainEvent(step=2, tokens=16, loss=2.5, lr=0.1, grad_norm=1.0, checkpoint_seconds=0.1),
    TrainEvent(step=2, tokens=16, loss=math.nan, lr=0.0, grad_norm=math.nan),
    EvalEvent(step=0, tokens=0, loss=3.0, accuracy=0.0, exact_match=0.0, size=2, length=5, seconds=0.0),
    EvalEvent(step=0, tokens=0, split="test", loss=math.nan, accuracy=0.1, exact_match=0.0),
    HeadsEvent(step=0, samples="set", own=True, heads=[{"layer": 0, "head": 1, "entropy": 0.5, "copying": None}]),
    CurriculumEvent(step=2, tokens=16, size=4, length=9),
    TryEvent(number=0, most=3, seed=0, diagnostic="haystack", above=0.2),
    TryEvent(number=1, most=3, seed=9, diagnostic="haystack", above=0.2, accuracy=0.3, tokens=40, flops=1e9),
    NoteEvent(note="slow"),
    NoteEvent(step=0, note="stopping"),
    EndEvent(
        command="warmup", step=4, tokens=32, loss=math.nan, accuracy=0.5, exact_match=0.0, trained_size=2,
        best=NO_NUMBER, extensions=1, seconds=1.5, run_dir="runs/warm", artifact="a", content="b",
        best_artifact="c", best_content="d",
    ),
    EndEvent(step=4, tokens=32),
]  # fmt: skip
# As proctool 0.1 wrote them, and lines with keys that no field has.
OLD_LINES = [
    '{"event": "start", "command": "pretrain", "steps": 20, "tokens_per_step": 256, "parameters": 11728, '
    '"trained": 11728, "flops": 440893440, "carried": [{"component": "mlp", "source": "carried", '
    '"reason": "from warm.safetensors", "tensors": 8, "parameters": 4256}], "seed": 0, "corpus": "c.jsonl", '
    '"corpus_content": "7cc8", "tokenizer": "bytes", "context": 64}',
    '{"event": "train", "step": 10, "tokens": 2560, "loss": 5.25, "lr": 0.0006, "grad_norm": null, '
    '"tokens_per_second": 9281, "seconds": 0.306}',
    '{"event": "eval", "step": 10, "tokens": 2560, "split": "validation", "loss": null, "accuracy": 0.24, '
    '"exact_match": 0.0, "seconds": 0.03}',
    '{"event": "end", "command": "pretrain", "step": 20, "tokens": 5120, "loss": 5.16, "accuracy": 0.24, '
    '"exact_match": 0.0, "seconds": 0.719, "run_dir": "runs/a", "artifact": "m", "content": "6743"}',
    '{"event": "note", "note": "x", "from": "a later version", "step_of": {"deep": [1, null]}}',
]


def test_every_kind_is_tried() -> None:
    kinds = {made.kind for made in Event.__subclasses__()}
    assert {event.kind for event in EVENTS} == kinds


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.kind)
def test_an_event_comes_back_as_it_was(event: Event, tmp_path: Path) -> None:
    with (tmp_path / FILE).open("wb") as file:
        write_event(file, event)
    assert read_events(tmp_path) == [event]
    (line,) = (tmp_path / FILE).read_text().splitlines()
    json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


@pytest.mark.parametrize("line", OLD_LINES)
def test_a_line_of_another_version_is_written_as_it_was(line: str) -> None:
    event = from_json(json.loads(line))
    assert event is not None
    assert json.loads(json.dumps(to_json(event))) == json.loads(line)


def test_a_loss_that_is_no_number_is_null_in_the_file_and_nan_in_memory() -> None:
    for loss in (math.nan, math.inf):
        assert to_json(TrainEvent(step=1, loss=loss))["loss"] is None
        assert to_json(EndEvent(step=1, tokens=1, best=Evaluation(step=1, tokens=1, loss=loss)))["best"]["loss"] is None
    read = from_json({"event": "eval", "step": 1, "loss": None})
    assert isinstance(read, EvalEvent)
    assert math.isnan(read.loss)


@pytest.mark.parametrize("found", [None, 3, [], "end", {}, {"event": 3}, {"event": []}, {"event": "summary"}])
def test_what_is_no_event_of_a_run_is_passed_over(found: Any) -> None:
    assert from_json(found) is None


def test_a_torn_line_costs_no_other_line(tmp_path: Path) -> None:
    with (tmp_path / FILE).open("wb") as file:
        write_event(file, EVENTS[0])
        file.write(b'{"event": "train", "st\n{"a": \xff}\n' + b"[" * 100_000 + b"\n")
        write_event(file, EVENTS[-1])
        file.write(b'{"event": "note", "no')
    assert read_events(tmp_path) == [EVENTS[0], EVENTS[-1]]


@pytest.mark.parametrize(
    ("kind", "changes", "wrong"),
    [
        ("start", {"steps": "4"}, "steps = '4'"),
        ("start", {"environment": []}, "environment = []"),
        ("resume", {"step": None}, "step = None"),
        ("extend", {"content": 3}, "content = 3"),
        ("train", {"loss": "low"}, "loss = 'low'"),
        ("train", {"mfu": True}, "mfu = True"),
        ("eval", {"accuracy": 10**400}, "accuracy = 1000"),
        ("eval", {"split": ["validation"]}, "split = ["),
        ("curriculum", {"size": -1}, "size = -1"),
        ("note", {"note": None}, "note = None"),
        ("end", {"seconds": math.nan}, "seconds = nan"),
        ("end", {"tokens": True}, "tokens = True"),
        ("end", {"best": {"loss": 1.0}}, "best = {'loss': 1.0}"),
    ],
)
def test_a_value_that_no_run_writes_is_named(kind: str, changes: dict[str, Any], wrong: str, tmp_path: Path) -> None:
    good = to_json(next(event for event in EVENTS if event.kind == kind))
    (tmp_path / FILE).write_text(json.dumps(good | changes))
    article = "an" if kind[0] == "e" else "a"
    with pytest.raises(RunError) as refused:
        read_events(tmp_path)
    assert f"{tmp_path / FILE}: {article} {kind} event with {wrong}" in str(refused.value)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.kind)
def test_a_field_that_every_run_writes_must_be_there(event: Event) -> None:
    with pytest.raises(ValueError, match=r"^no step|^no note|^no number"):
        from_json({"event": event.kind})
