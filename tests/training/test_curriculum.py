"""Short samples first: the rule, its sizes, and a run through it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from proctool import artifact
from proctool.errors import OptionError
from proctool.evaluation.diagnostic import diagnostic_job
from proctool.evaluation.diagnostic_run import run_diagnostic
from proctool.evaluation.options import HaystackOptions
from proctool.evaluation.summary import summarise
from proctool.models.build import context_of
from proctool.models.saved import open_model
from proctool.procedural.mixture import parse_tasks
from proctool.results import DiagnosticRun
from proctool.training.curriculum import GrowthRule, parse_curriculum, task_curriculum
from proctool.training.devices import make_accelerator
from proctool.training.evaluate import evaluate
from proctool.training.loss import TargetLoss
from proctool.training.sources import TaskSource
from proctool.training.warmup import warmup_job
from tests.event_lines import event_lines
from tests.training.runs import options, same_after_kills


def sizes(task: str, rule: str) -> list[int | None]:
    curriculum = task_curriculum(
        parse_tasks(task), rule, lambda part: (TaskSource(part, 0), TaskSource(part, 0, "validation"))
    )
    return [stage.size for stage in curriculum.stages]


def test_a_rule_is_written_with_any_of_its_parts() -> None:
    assert parse_curriculum("") == GrowthRule(2, 2, "accuracy", 0.99, None)
    assert parse_curriculum("start=3,loss=.5,patience=4") == GrowthRule(3, 2, "loss", 0.5, 4)


@pytest.mark.parametrize("written", ["begin=2", "start=0", "step=x", "accuracy", "accuracy=.9,loss=1"])
def test_a_rule_that_means_nothing_is_refused(tmp_path: Path, written: str) -> None:
    with pytest.raises(OptionError, match="curriculum"):
        options(tmp_path, curriculum=written)


@pytest.mark.parametrize(
    ("task", "rule", "expected"),
    [
        ("set:inputs=7,symbols=20", "start=2,step=2", [2, 4, 6, 7]),
        ("shuffle(reverse:inputs=6)", "start=3,step=9", [3, 6]),
        ("set:inputs=4,symbols=20*0.5 + reverse:inputs=6,symbols=20*0.5", "", [2, 4, 6]),
        ("haystack:pairs=5", "start=5", [5]),
    ],
)
def test_sizes_lead_to_the_whole_task(task: str, rule: str, expected: list[int]) -> None:
    assert sizes(task, rule) == expected


def test_every_stage_has_the_vocabulary_of_the_whole() -> None:
    task = parse_tasks("haystack:pairs=9")
    curriculum = task_curriculum(task, "", lambda part: (TaskSource(part, 0), TaskSource(part, 0, "validation")))
    assert {stage.source.vocab_size for stage in curriculum.stages} == {task.vocab_size}
    assert [stage.source.length for stage in curriculum.stages] == [6, 10, 14, 18, task.length]


@pytest.mark.parametrize(("task", "rule"), [("set:inputs=4", "start=5"), ("dyck:length=12,k=2", "start=3,step=2")])
def test_sizes_that_do_not_suit_the_task_are_refused(task: str, rule: str) -> None:
    with pytest.raises(OptionError, match="curriculum"):
        sizes(task, rule)


RUN: dict[str, Any] = {
    "task": ("identity:inputs=6,symbols=8",),
    "curriculum": "start=2,step=2,accuracy=.2",
    "steps": 36,
}


def test_a_run_grows_its_samples_and_survives_kills(tmp_path: Path) -> None:
    kills = [("curriculum", 1), ("eval", 3), ("curriculum", 1)]
    same_after_kills(tmp_path, kills, **RUN, lr=1e-2, checkpoint_every=6, log_every=1, until="accuracy=.6")
    events = event_lines(tmp_path / "whole")
    grown = [event for event in events if event["event"] == "curriculum"]
    assert [event["size"] for event in grown] == [4, 6]
    tokens = 0
    length = {2: 5, 4: 9, 6: 13}
    size = 2
    for event in events:
        if event["event"] == "train":
            tokens += 8 * length[size]
            assert event["tokens"] == tokens
        elif event["event"] == "eval":
            assert (event["size"], event["length"]) == (size, length[size])
        elif event["event"] == "curriculum":
            before = next(each for each in events if each["event"] == "eval" and each["step"] == event["step"])
            assert before["accuracy"] >= 0.2, "growth follows from the validation set of the size before"
            size = event["size"]


def test_patience_grows_samples_too(tmp_path: Path) -> None:
    rule = "start=2,step=4,accuracy=1,patience=2"
    warmup_job(options(tmp_path, **{**RUN, "curriculum": rule}, lr=1e-12)).run()
    assert [event["step"] for event in event_lines(tmp_path / "run") if event["event"] == "curriculum"]


def test_what_stops_a_run_counts_at_full_size_only(tmp_path: Path) -> None:
    end = warmup_job(options(tmp_path, **{**RUN, "curriculum": "start=2,step=2,accuracy=0"}, until="accuracy=0")).run()
    assert end.step == 12, "two evaluations to grow, a third to stop"


UNFINISHED: dict[str, Any] = {**RUN, "curriculum": "start=2,step=2,accuracy=1", "lr": 1e-2}


@pytest.mark.parametrize("kept", ["last", "best"])
def test_an_unfinished_curriculum_is_scored_on_full_size_and_says_where_it_ended(tmp_path: Path, kept: str) -> None:
    asked = options(tmp_path, **UNFINISHED, save=kept)
    job = warmup_job(asked)
    end = job.run()
    *_, small, full = (event for event in event_lines(tmp_path / "run") if event["event"] == "eval")
    assert (small["step"], small["size"]) == (full["step"], 2) == (36, 2)
    assert full["size"] == 6
    module = TargetLoss(open_model(asked.output).model())
    scores = evaluate(make_accelerator(asked), module, job.held_out, asked.eval_samples, 8)
    assert end.loss == full["loss"] == pytest.approx(scores.loss) != pytest.approx(small["loss"])
    metadata = artifact.read_header(asked.output).metadata
    assert metadata["metrics"] == {"loss": end.loss, "accuracy": end.accuracy}
    assert end.trained_size == metadata["trained_size"] == 2
    (note,) = (event["note"] for event in event_lines(tmp_path / "run") if event["event"] == "note")
    assert "ended at size 2 of 6" in note


def test_an_unfinished_curriculum_survives_kills(tmp_path: Path) -> None:
    evals = 36 // 4 + 1
    end = same_after_kills(tmp_path, [("eval", evals), ("eval", 2)], **UNFINISHED, checkpoint_every=6)
    assert end.trained_size == 2
    short = warmup_job(options(tmp_path, "patient", **{**UNFINISHED, "lr": 1e-12}, patience=2, save="both")).run()
    assert short.step < 36
    assert short.best.step == short.step, "scores of a small size do not compare"


def test_a_diagnostics_curve_is_that_of_full_size(tmp_path: Path) -> None:
    def curve(name: str, rule: str) -> list[int]:
        asked = HaystackOptions(
            pairs=4, vocab=32, curriculum=rule, run_dir=tmp_path / name, steps=8, ramp_steps=0, batch_size=8,
            eval_every=2, eval_samples=16, model="1x2x16",
        )  # fmt: skip
        made = run_diagnostic("haystack", asked)[1]
        evals = [event for event in event_lines(tmp_path / name) if event["event"] == "eval"]
        full = {(event["step"], event["loss"]) for event in evals if event["size"] == 4}
        assert {(point.step, point.loss) for point in made.curve} == full
        assert made.curve[-1].accuracy == pytest.approx(made.scores["answer"].accuracy)
        found.append(made)
        return [point.step for point in made.curve]

    found: list[DiagnosticRun] = []
    assert curve("grown", "start=2,step=2,accuracy=0") == [4, 6, 8]
    assert curve("unfinished", "start=2,step=2,accuracy=1") == [8]
    (summary,) = summarise(found)
    assert [point.step for point in summary.curve] == [8], "from where both have come to full size"


def test_a_diagnostic_has_room_for_full_size_from_the_start(tmp_path: Path) -> None:
    asked = HaystackOptions(pairs=4, vocab=32, curriculum="start=2", run_dir=tmp_path, steps=1, ramp_steps=0)
    job = diagnostic_job("haystack", asked)
    assert context_of(job.config) == job.source.length == 10
    assert job.curriculum is not None
    assert [stage.source.length for stage in job.curriculum.stages] == [6, 10]


def test_a_file_has_the_size_it_has(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="curriculum: needs --task"):
        dataclasses.replace(options(tmp_path), task=(), data=tmp_path / "some.safetensors", curriculum="start=2")
