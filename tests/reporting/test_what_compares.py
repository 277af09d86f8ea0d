from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from proctool.errors import RunError
from proctool.reporting.experiment import load_experiment
from proctool.reporting.page import page
from proctool.reporting.record import RECORD
from proctool.reporting.report import build_report
from proctool.reporting.run_folders import load_runs
from tests.reporting.made import Made, training, two_arms, write_events


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    return two_arms(tmp_path / "tiny")


def test_losses_on_other_text_or_tokens_are_not_compared(tmp_path: Path) -> None:
    same: dict[str, Any] = {"seed": 0, "corpus": "python", "tokenizer": "bytes", "context": 128}
    same["corpus_content"] = "aa" * 32
    write_events(tmp_path / "a", *training(**same))
    write_events(tmp_path / "b", *training(**same | {"tokenizer": "gpt2"}))
    write_events(tmp_path / "c", *training(**same | {"corpus": "c4"}))
    write_events(tmp_path / "d", *training(**same | {"context": 256}))
    write_events(tmp_path / "e", *training(**same | {"corpus_content": "bb" * 32}))
    found = (
        ("b", "tokenizer gpt2 instead of bytes"),
        ("c", "corpus c4 instead of python"),
        ("d", "context 256 instead of 128"),
        ("e", "different text .content bbbbbbbbbbbb instead of aaaaaaaaaaaa"),
    )
    for other, said in found:
        with pytest.raises(RunError, match=said):
            load_runs([str(tmp_path / "a"), str(tmp_path / other)], None)


@pytest.mark.parametrize("other", ["addition:digits=3,scoring=official", "addition:digits=5,scoring=answer"])
def test_accuracies_on_another_form_of_a_task_are_not_compared(experiment: Path, tmp_path: Path, other: str) -> None:
    task = "addition:digits=3,scoring=answer"
    for seed in (0, 1):
        write_events(experiment / f"hay-cold{seed}", *training(task=task))
        write_events(experiment / f"hay-hot{seed}", *training(task=other))
    report = build_report(load_experiment(experiment))
    assert [each.arm for each in report.diagnostics[0]] == ["cold"]
    assert any("left out of haystack" in note and f"task {other} instead of {task}" in note for note in report.notes)
    for name, spec in (("low", task), ("high", other), ("same", task)):
        write_events(tmp_path / name, *training(seed=0, command="eval addition", task=spec))
    with pytest.raises(
        RunError,
        match=f"high: accuracies are not comparable with those of .*low: it has task {other} instead of {task}",
    ):
        load_runs([str(tmp_path / "low"), str(tmp_path / "high")], None)
    assert len(build_report(load_runs([str(tmp_path / "low"), str(tmp_path / "same")], None)).diagnostics[0]) == 2


def test_a_treated_arm_is_a_control_of_what_it_treats_alone(tmp_path: Path) -> None:
    made = Made(tmp_path)
    parts = {"set": ("attention", "mlp"), "att": ("attention",), "mlp": ("mlp",), "att-noise": ("attention",)}
    made.measured("cold", 0, made.stage("cold0", None, training()), {})
    for arm, names in parts.items():
        warm = made.stage(f"warm-{arm}", None, training(command="warmup", task="set:inputs=8"))
        carried = [{"component": name, "source": "carried", "reason": "from start"} for name in names]
        made.measured(arm, 0, made.stage(f"{arm}0", warm, training(0.7, carried=carried)), {})
    about = {arm: {"made_from": arm, "control": None, "of": []} for arm in made.arms}
    recipe = {"arms": {arm: {"treatment": {"noise": ["0.5"]} if "noise" in arm else None} for arm in made.arms}}
    report = build_report(load_experiment(made.write(about=about, recipe=recipe)))
    assert [(each.control.arm, each.control.of, each.control.kind) for each in report.controls] == [
        ("att-noise", "att", "noise")
    ]


def test_a_published_step_is_found_after_stopping_early(experiment: Path) -> None:
    early = [event for event in training() if event.get("step", 0) <= 50]
    end = {"event": "end", "step": 50, "tokens": 50_000, "content": "c0ffee"}
    write_events(experiment / "cold0", *early, end)
    write_events(experiment / "cold1", *early, end)
    (experiment / "hay-cold0" / "metrics.jsonl").write_text((experiment / "cold0" / "metrics.jsonl").read_text())
    quoted = {"what": "C4", "section": "5", "measure": "loss", "arms": {"cold": 3.0}}
    record = json.loads((experiment / RECORD).read_text())
    record["published"] = [quoted | {"step": step} for step in (20, 50, 60)]
    record["published"] += [quoted | {"measure": "accuracy", "diagnostic": "haystack", "step": 100}]
    (experiment / RECORD).write_text(json.dumps(record))
    at = [each.here for each in build_report(load_experiment(experiment)).published]
    assert [None if each is None else each.value for each in at] == [pytest.approx(3), pytest.approx(2.5), None, None]


@pytest.mark.parametrize(("scoring", "noted"), [("answer", True), ("official", False)])
def test_published_accuracies_of_another_mask_are_noted(tmp_path: Path, scoring: str, noted: bool) -> None:
    quoted = {"what": "addition accuracy", "section": "4", "measure": "accuracy", "diagnostic": "haystack"}
    root = two_arms(tmp_path / "tiny", published=[quoted | {"arms": {"cold": 0.591}}])
    for seed in (0, 1):
        write_events(root / f"hay-cold{seed}", *training(task=f"addition:digits=5,scoring={scoring}"))
    report = build_report(load_experiment(root))
    assert report.published[0].scoring == (scoring if noted else None)
    assert (
        "These are scored differently here and are not comparable: addition accuracy (answer)" in page(report)
    ) is noted


def test_an_arm_on_other_tokens_is_left_out_of_an_experiment(experiment: Path) -> None:
    for seed in (0, 1):
        write_events(experiment / f"cold{seed}", *training(tokenizer="bytes"))
        write_events(experiment / f"hot{seed}", *training(0.7, tokenizer="gpt2"))
    report = build_report(load_experiment(experiment))
    assert [each.arm for each in report.results] == ["cold"]
    assert any("left out of the losses" in note and "tokenizer gpt2 instead of bytes" in note for note in report.notes)
