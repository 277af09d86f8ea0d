"""Evaluations and experiments from Python: the numbers of the commands, in typed results."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import proctool
from proctool.errors import ModelError, OptionError, RunError
from proctool.hf import DiagnosticCallback
from proctool.models.build import build_model, model_config
from proctool.models.saved import save_model
from tests.conftest import Said
from tests.reporting.made import two_arms

TINY = {"pairs": 2, "vocab": 8, "steps": 6, "batch_size": 8, "eval_samples": 40, "eval_every": 3, "ramp_steps": 1}


@pytest.fixture(scope="module")
def model() -> Any:
    return build_model(model_config("2x2x16", vocab_size=300, context=64), 0)


@pytest.fixture(scope="module")
def saved(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "warm.safetensors"
    save_model(path, model, {})
    return path


@pytest.mark.parametrize("init", ["file", "memory", "none"])
def test_a_diagnostic_scores_as_the_command_does(
    init: str, model: Any, saved: Path, proctool: Callable[..., Said], tmp_path: Path
) -> None:
    from proctool import evaluate

    flags = [word for name, value in TINY.items() for word in (f"--{name.replace('_', '-')}", value)]
    said = proctool(
        "eval", "haystack", *flags, "--model", "2x2x16", "--json", "--init", "none" if init == "none" else saved
    )
    assert said.code == 0, said.err
    printed = json.loads(said.out.splitlines()[-1])["scores"]["answer"]
    given = {"file": str(saved), "memory": model, "none": None}[init]
    before = sorted(tmp_path.rglob("*"))
    named = {"model": "2x2x16"} if init == "none" else {}
    result = evaluate(given, "haystack", **TINY, **named)
    assert result.evaluation == "haystack"
    assert result.scores == {name: printed[name] for name in ("loss", "accuracy", "exact_match")}
    assert result.records[0]["steps"] == TINY["steps"]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_diagnostic_of_a_model_with_its_own_configuration_asks_for_it(tmp_path: Path) -> None:
    config = model_config("2x2x16", vocab_size=30, context=40)
    config.n_inner = 24
    with pytest.raises(OptionError, match="no shape describes"):
        proctool.evaluate(build_model(config, 0), "haystack", **TINY)
    config.to_json_file(tmp_path / "config.json")
    with pytest.warns(UserWarning, match="vocab_size"):
        assert proctool.evaluate(
            build_model(config, 0), "haystack", model=str(tmp_path / "config.json"), **TINY
        ).scores["loss"]


def test_text_is_scored_from_memory_as_from_a_file(model: Any, saved: Path, text: Path) -> None:
    options = {"corpus": str(text), "tokenizer": "bytes", "documents": 1}
    found = [proctool.evaluate(each, "perplexity", **options) for each in (model, saved)]
    assert found[0].scores == found[1].scores
    assert set(found[0].scores) == {"loss", "perplexity", "bits_per_byte", "accuracy"}
    assert found[0].records[0]["documents"] == 1


def test_the_heads_of_a_model(saved: Path) -> None:
    scores = proctool.evaluate(saved, "interpret", length=5, samples=2).scores
    assert set(scores) == {"induction", "previous_token", "copying", "loss_first", "loss_repeated"}
    assert all(value is not None for value in scores.values())


@pytest.mark.parametrize(
    ("evaluation", "options", "said"),
    [
        ("haystak", {}, 'did you mean "haystack"'),
        ("haystack", {"step": 3}, 'did you mean "steps"'),
        ("haystack", {"scale": "huge"}, "paper or laptop"),
        ("haystack", {"init": "x"}, "first argument"),
        ("perplexity", {"corpora": "x"}, 'did you mean "corpus"'),
    ],
)
def test_what_cannot_be_evaluated_is_refused(saved: Path, evaluation: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        proctool.evaluate(saved, evaluation, **options)


def test_errors_about_a_model_in_memory_name_no_file(model: Any) -> None:
    with pytest.raises(ModelError, match=r"^the model in memory: the model has no tokenizer"):
        proctool.evaluate(model, "perplexity", corpus="python")


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(ModelError, match="give a model"):
        proctool.evaluate(None, "perplexity")
    with pytest.raises(ModelError, match="a Linear cannot be evaluated"):
        proctool.evaluate(torch.nn.Linear(2, 2), "haystack")  # type: ignore[arg-type]


def test_a_report_is_a_table_of_arms(tmp_path: Path) -> None:
    report = proctool.report(two_arms(tmp_path / "experiment"))
    frame = report.to_pandas().set_index("arm")
    assert list(frame.index) == report.experiment.arms
    by_arm = {each.arm: each for each in report.results}
    for arm, row in frame.iterrows():
        assert row["final_loss"] == by_arm[str(arm)].final_loss.value
        assert row["gain_low"] == pytest.approx(by_arm[str(arm)].gain.low, nan_ok=True)
    assert frame.loc["cold", "haystack_accuracy"] == pytest.approx(0.3)
    assert frame["saved"].iloc[1] == pytest.approx(by_arm[frame.index[1]].saved.value)  # type: ignore[union-attr]


def test_a_folder_without_an_experiment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not the folder of an experiment"):
        proctool.report(tmp_path)


RECIPE = """
name: tiny
model: 2x2x16
warmup: {steps: 4, batch_size: 4, eval_samples: 8}
diagnostics: {haystack: {pairs: 2, vocab: 8, steps: 4, batch_size: 8, eval_samples: 16, eval_every: 2, ramp_steps: 1}}
arms: {cold: {}}
"""


@pytest.mark.slow  # each stage is a process
def test_a_recipe_is_run_and_its_report_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(RECIPE)
    report = proctool.run(recipe, runs=tmp_path / "made", jobs=1)
    assert [row["arm"] for row in report.to_pandas().to_dict("records")] == ["cold"]
    assert proctool.report(tmp_path / "made" / "tiny").as_json() == report.as_json()
    finished = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "made").rglob("metrics.jsonl"))
    assert finished
    assert proctool.run(recipe, runs=tmp_path / "made", jobs=1).as_json() == report.as_json()
    assert sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "made").rglob("metrics.jsonl")) == finished


def test_a_recipe_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text("name: tiny\narms: {cold: {}}\n")
    with pytest.raises(OptionError):
        proctool.run(recipe, runs=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def training_arguments(folder: Path) -> Any:
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=str(folder), max_steps=5, per_device_train_batch_size=4, report_to=[], save_strategy="no",
        use_cpu=True, disable_tqdm=True, logging_steps=2,
    )  # fmt: skip


@pytest.mark.parametrize("what", ["induction", "set:inputs=3,symbols=9"])
def test_the_callback_scores_the_model_while_trainer_trains(what: str, tmp_path: Path) -> None:
    from transformers import Trainer

    from proctool.torch import TaskDataset

    task = proctool.load_task("set:inputs=4,symbols=12")
    config = model_config("2x2x16", vocab_size=task.vocab_size, context=task.length, padded=False)
    trainer = Trainer(build_model(config, 0), training_arguments(tmp_path), train_dataset=TaskDataset(task, length=100))
    logged: list[dict[str, float]] = []

    def log(scores: dict[str, float]) -> None:
        logged.append(dict(scores))
        trainer.log(scores)

    callback = DiagnosticCallback(what, every=2, samples=4, log=log)
    silent = DiagnosticCallback(what, every=5, samples=4)
    trainer.add_callback(callback)
    trainer.add_callback(silent)
    implementation = trainer.model.config._attn_implementation
    trainer.train()
    assert [step for step, _ in callback.history] == [0, 2, 4, 5]
    assert [scores for _, scores in callback.history] == logged
    assert callback.history[-1][1] == callback.scores(trainer.model)
    assert callback.history[0][1] != callback.history[-1][1]
    history = trainer.state.log_history
    assert sorted(entry["step"] for entry in history if set(entry) & set(logged[0])) == [0, 0, 2, 4, 5, 5]
    assert [entry["step"] for entry in history if "loss" in entry] == [2, 4], "Trainer's own logs are there too"
    assert trainer.model.config._attn_implementation == implementation
    assert trainer.model.training


def test_a_task_that_the_model_cannot_hold_stops_before_the_first_step(tmp_path: Path) -> None:
    from transformers import Trainer

    from proctool.torch import TaskDataset

    config = model_config("2x2x16", vocab_size=14, context=9, padded=False)
    trainer = Trainer(
        build_model(config, 0), training_arguments(tmp_path),
        train_dataset=TaskDataset("set:inputs=4,symbols=12", length=100),
        callbacks=[DiagnosticCallback("set:inputs=4,symbols=90")],
    )  # fmt: skip
    with pytest.raises(ModelError, match="token ids"):
        trainer.train()
    assert trainer.state.global_step == 0
    with pytest.raises(OptionError, match="every = 0"):
        DiagnosticCallback(every=0)
