"""Trackers see what metrics.jsonl gets; run.log says what was run and how it ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import accelerate.tracking
import pytest

from proctool.errors import OptionError
from proctool.events import Event, NoteEvent
from proctool.training.warmup import warmup_job
from tests.event_lines import event_lines
from tests.training.runs import Killed, killed_at, options


class Notebook(accelerate.tracking.GeneralTracker):
    """Keeps what it is sent."""

    name = "notebook"
    requires_logging_directory = False
    tracker = None

    def __init__(self, run_name: str, **_: Any) -> None:
        super().__init__()
        self.sent: list[tuple[int, dict[str, Any]]] = []
        self.settings: dict[str, Any] = {}
        self.finished = False
        made.append(self)

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.settings = values

    def log(self, values: dict[str, Any], step: int, **_: Any) -> None:
        if broken:
            raise ConnectionError("the server is down")
        self.sent.append((step, values))

    def finish(self) -> None:
        self.finished = True


made: list[Notebook] = []
broken: list[bool] = []


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(accelerate.tracking.LOGGER_TYPE_TO_CLASS, "notebook", Notebook)
    yield
    made.clear()
    broken.clear()


def test_trackers_are_sent_the_recorded_events_and_settings(tmp_path: Path) -> None:
    warmup_job(options(tmp_path, track=("notebook",))).run()
    (notebook,) = made
    events = event_lines(tmp_path / "run")
    for kind, group in (("train", "train"), ("eval", "validation")):
        recorded = [(event["step"], event["loss"]) for event in events if event["event"] == kind]
        sent = [(step, values[f"{group}/loss"]) for step, values in notebook.sent if f"{group}/loss" in values]
        assert sent == recorded
    assert notebook.settings["lr"] == 1e-3
    assert notebook.finished


def test_a_resumed_run_goes_on_sending(tmp_path: Path) -> None:
    job = warmup_job(options(tmp_path, track=("notebook",)))
    job.listeners = [killed_at("train", 3)]
    with pytest.raises(Killed):
        job.run()
    warmup_job(options(tmp_path, track=("notebook",))).run()
    first, second = made
    assert first.finished
    assert [step for step, _ in second.sent] == [6, 8, 9, 12, 12]
    assert second.settings == {}, "it knows the settings already"


def test_an_extended_run_goes_on_sending(tmp_path: Path) -> None:
    for changes in ({}, {"steps": 18, "extend": True}):
        warmup_job(options(tmp_path, track=("notebook",), **changes)).run()
    first, second = made
    assert first.finished
    assert [step for step, _ in second.sent] == [15, 16, 18, 18]
    assert second.settings == {}, "it knows the settings already"


def test_a_tracker_that_fails_is_left_behind(tmp_path: Path) -> None:
    broken.append(True)
    notes: list[Event] = []
    job = warmup_job(options(tmp_path, track=("notebook",)))
    job.listeners = [notes.append]
    assert job.run().step == 12
    said = [event.note for event in notes if isinstance(event, NoteEvent)]
    assert said == [
        "notebook failed and gets no more metrics (ConnectionError: the server is down); metrics.jsonl still does"
    ]


@pytest.mark.parametrize(
    ("name", "said"),
    [("notbook", 'did you mean "notebook"'), ("mlflow", "mlflow is not installed; run pip install mlflow")],
)
def test_a_tracker_that_cannot_be_had_is_refused(
    tmp_path: Path, name: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(OptionError, match=said):
        warmup_job(options(tmp_path, track=(name,)))
    assert not (tmp_path / "run").exists()


def test_the_log_says_what_was_run_and_how_it_failed(tmp_path: Path) -> None:
    def fail(event: Event) -> None:
        if event.kind == "train":
            raise LookupError("a bug")

    job = warmup_job(options(tmp_path))
    job.listeners = [fail]
    with pytest.raises(LookupError):
        job.run()
    warmup_job(options(tmp_path)).run()
    log = (tmp_path / "run" / "run.log").read_text()
    assert log.count("  versions  ") == 2
    settings = next(line for line in log.splitlines() if "  settings  " in line).partition("  settings  ")[2]
    recorded = json.loads((tmp_path / "run" / "config.json").read_text())
    assert json.loads(settings) == {key: value for key, value in recorded.items() if key != "proctool_run"}
    assert "Traceback" in log
    assert "LookupError: a bug" in log
    assert "  end  " in log
