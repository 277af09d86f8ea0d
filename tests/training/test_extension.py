"""`--extend`: a finished run that is continued ends as one that was planned longer from the start."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proctool import artifact
from proctool.errors import ArtifactError, OptionError, RunError
from proctool.events import EndEvent
from proctool.reporting.metrics import read_metrics
from proctool.training.run_form import read_form
from proctool.training.schedule import learning_rate
from proctool.training.warmup import warmup_job
from tests.conftest import Said
from tests.event_lines import event_lines
from tests.training.runs import Killed, contents, killed_at, options


def train(folder: Path, name: str = "run", **changes: Any) -> EndEvent:
    return warmup_job(options(folder, name, **changes)).run()


def train_killed(folder: Path, kill: tuple[str, int], **changes: Any) -> None:
    job = warmup_job(options(folder, **changes))
    job.listeners = [killed_at(*kill)]
    with pytest.raises(Killed):
        job.run()


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "an evaluation out of turn": {"eval_every": 5},
    "decay and clipping": {"weight_decay": 0.3, "clip": 0.1},
    "the best": {"save": "both"},
    "the best, out of turn": {"save": "best", "eval_every": 7},
    "patience": {"patience": 50, "spike": 1000.0},
    "a curriculum": {"curriculum": "start=2,step=1,loss=9", "ramp_steps": 0},
    "a curriculum out of turn": {"curriculum": "start=2,step=1,loss=9", "eval_every": 5},
}


@pytest.mark.parametrize("case", CASES)
def test_an_extended_run_equals_an_uninterrupted_one(tmp_path: Path, case: str) -> None:
    changes = CASES[case]
    whole = train(tmp_path, "whole", steps=20, **changes)
    train(tmp_path, **changes)
    assert not list((tmp_path / "run" / "checkpoints").glob("step-*"))
    end = train(tmp_path, steps=20, extend=True, **changes)
    assert end.step == 20
    for written in tmp_path.glob("whole*.safetensors"):
        assert contents(tmp_path / written.name.replace("whole", "run")) == contents(written)
    for key in ("tokens", "loss", "accuracy", "content", "best", "trained_size"):
        assert getattr(end, key) == getattr(whole, key)
    clock = ("seconds", "tokens_per_second", "checkpoint_seconds")
    recorded = event_lines(tmp_path / "run")
    for event in event_lines(tmp_path / "whole"):
        if event["event"] in ("train", "eval", "curriculum"):
            wanted = {key: value for key, value in event.items() if key not in clock}
            assert wanted in [{key: value for key, value in each.items() if key not in clock} for each in recorded]


@pytest.mark.parametrize(
    "kill",
    [
        ("extend", 1),
        ("train", 1),
        *(pytest.param(each, marks=pytest.mark.slow) for each in (("eval", 1), ("train", 3), ("end", 1))),
    ],
)
def test_an_extension_that_was_killed_goes_on(tmp_path: Path, kill: tuple[str, int]) -> None:
    whole = train(tmp_path, "whole", steps=24)
    train(tmp_path)
    train_killed(tmp_path, kill, steps=24, extend=True)
    end = train(tmp_path, steps=24, extend=kill[1] == 1)  # the flag is no longer needed, and does no harm
    assert end.content == whole.content
    events = event_lines(tmp_path / "run")
    assert [event["event"] for event in events if event["event"] in ("start", "extend", "end")] == [
        "start", "end", "extend", "end",
    ]  # fmt: skip


def test_a_run_is_extended_twice_and_again_finds_itself_done(tmp_path: Path) -> None:
    whole = train(tmp_path, "whole", steps=20)
    first = train(tmp_path)
    train(tmp_path, steps=15, extend=True)
    states = [path.name for path in (tmp_path / "run").glob("state-*")]
    assert states == ["state-00000015.safetensors"]
    for _ in range(2):
        assert train(tmp_path, steps=20, extend=True).content == whole.content
    made = artifact.read_header(tmp_path / "run.safetensors")
    assert made.metadata["extended_from"] == made.as_parent["about"]["extended_from"] == [12, 15]
    form = read_form(tmp_path / "run")
    assert form is not None
    assert [(each["step"], each["steps"]) for each in form["extended_from"]] == [(12, 12), (15, 15)]
    assert form["extended_from"][0]["content"] == first.content
    log = read_metrics(tmp_path / "run")
    whole_log = read_metrics(tmp_path / "whole")
    assert (log.steps, log.tokens, log.start and log.start.flops) == (
        20, whole_log.tokens, whole_log.start and whole_log.start.flops,
    )  # fmt: skip


def test_an_early_stop_is_extended_with_another_goal(tmp_path: Path) -> None:
    whole = train(tmp_path, "whole")
    assert train(tmp_path, until="loss=99").step == 4
    assert train(tmp_path, extend=True).content == whole.content


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd"])
def test_a_schedule_that_ended_keeps_its_final_rate_and_says_so(tmp_path: Path, schedule: str) -> None:
    train(tmp_path, schedule=schedule)
    job = warmup_job(options(tmp_path, schedule=schedule, steps=16, extend=True, log_every=1))
    said: list[str] = []
    job.listeners = [lambda event: said.append(getattr(event, "note", ""))]
    job.run()
    rates = {event["step"]: event["lr"] for event in event_lines(tmp_path / "run") if event["event"] == "train"}
    assert [rates[step] for step in (13, 14, 15, 16)] == [pytest.approx(1e-4)] * 4
    assert any(f"the {schedule} schedule was made for 12 steps" in each for each in said)
    planned = {"steps": 12, "peak": 1e-3, "schedule": schedule, "ramp_steps": 2, "final": 0.1}
    assert rates[12] == learning_rate(11, **planned)


def test_what_cannot_be_extended_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no finished run to extend"):
        train(tmp_path, extend=True)
    train_killed(tmp_path, ("train", 3))
    with pytest.raises(RunError, match="has not finished its 12 steps"):
        train(tmp_path, steps=20, extend=True)
    train(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "run.log"}
    with pytest.raises(RunError, match="steps = 12, not 20; --extend continues it"):
        train(tmp_path, steps=20)
    with pytest.raises(RunError, match="lr = "):
        train(tmp_path, steps=20, lr=1.0, extend=True)
    with pytest.raises(RunError, match="has 12 steps already"):
        train(tmp_path, steps=8, extend=True)
    with pytest.raises(OptionError, match="--resume never"):
        options(tmp_path, extend=True, resume="never")
    assert {path: path.read_bytes() for path in before} == before
    state = tmp_path / "run" / "state-00000012.safetensors"
    state.write_bytes(state.read_bytes()[:-5])
    with pytest.raises(ArtifactError, match="5 bytes are missing"):
        train(tmp_path, steps=20, extend=True)
    state.unlink()
    with pytest.raises(RunError, match=r"has no training state.*--keep-state"):
        train(tmp_path, steps=20, extend=True)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["steps"] == 12


def test_a_schedule_that_ended_at_zero_is_not_extended(tmp_path: Path) -> None:
    train(tmp_path, schedule="linear", final_lr=0.0)
    with pytest.raises(RunError, match="ended at a learning rate of 0"):
        train(tmp_path, schedule="linear", final_lr=0.0, steps=20, extend=True)


@pytest.mark.parametrize(("keep", "kept"), [(None, True), (True, True), (False, False)])
def test_the_state_is_kept_as_asked(tmp_path: Path, keep: bool | None, kept: bool) -> None:
    train(tmp_path, keep_state=keep)
    assert (tmp_path / "run" / "state-00000012.safetensors").exists() == kept


def test_large_states_are_kept_when_asked_for_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proctool.training.extension.KEPT_BELOW", 1000)
    job = warmup_job(options(tmp_path))
    said: list[str] = []
    job.listeners = [lambda event: said.append(getattr(event, "note", ""))]
    job.run()
    assert not list((tmp_path / "run").glob("state-*"))
    assert any("--keep-state keeps it for --extend" in each for each in said)


def test_a_state_of_a_discarded_run_is_never_continued(tmp_path: Path) -> None:
    train(tmp_path)
    state = next((tmp_path / "run").glob("state-*.safetensors"))
    kept = state.read_bytes()
    train(tmp_path, seed=5, resume="never", keep_state=False)
    assert not state.exists()
    state.write_bytes(kept)
    with pytest.raises(RunError, match="the training state of another run"):
        train(tmp_path, seed=5, steps=20, extend=True)


def test_a_dry_run_says_what_it_would_extend(proctool: Callable[..., Said]) -> None:
    words = ("warmup", "--task", "set:inputs=4", "--model", "1x1x8", "--batch-size", 2, "--eval-samples", 2)
    longer = (*words, "--steps", 5, "--extend", "--dry-run")
    assert "warm.run: has no finished run to extend" in proctool(*longer).line
    assert proctool(*words, "--steps", 3).code == 0
    assert "extends     the run folder below, from step 3\n" in proctool(*longer).err
    assert json.loads(proctool(*longer, "--json").out)["extends_from"] == 3
    assert "extends" not in proctool(*words, "--steps", 3, "--dry-run").err
