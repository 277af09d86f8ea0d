"""Benchmarks in recipes: stages after pretraining, and their table in the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proctool.errors import OptionError
from proctool.evaluation import harness
from proctool.events import EndEvent, write_event
from proctool.experiment.emit import makefile
from proctool.experiment.inputs import check_inputs
from proctool.experiment.plan_options import HardwareOptions
from proctool.experiment.planning import plan_stages
from proctool.experiment.record import write_record
from proctool.recipe import build_recipe
from proctool.reporting.experiment import load_experiment
from proctool.reporting.page import page
from proctool.reporting.report import build_report
from proctool.reporting.sheets import evaluated
from proctool.results import RESULTS, HarnessScores, read_results, write_results
from tests.conftest import Said
from tests.evaluation.speakers import AGREEMENT, save_speaker, write_pairs
from tests.experiment.tiny_experiment import planned, values

EVALUATE = {"sense": {"tasks": ["piqa", "arc_easy"], "limit": 10}, "code": {"tasks": ["code2text_python"]}}


def scores(**results: dict[str, float]) -> HarnessScores:
    return HarnessScores(
        model="m",
        content=None,
        lm_eval="0",
        limit=None,
        num_fewshot=None,
        results=results,
        samples={},
        task_versions={},
    )


def test_every_arm_has_its_benchmarks_and_keys_stay(tmp_path: Path) -> None:
    before, made = planned(tmp_path), planned(tmp_path, evaluate=EVALUATE)
    extra = [each for each in made.stages if each.command == ("eval", "harness")]
    assert [each.key for each in made.stages if each not in extra] == [each.key for each in before.stages]
    assert [each.name for each in extra] == [
        "evaluate-sense-cold-s0", "evaluate-code-cold-s0", "evaluate-sense-set-s0", "evaluate-code-set-s0",
    ]  # fmt: skip
    pretrained = made.arms["set"][0].pretrain
    assert pretrained is not None
    one = made.arms["set"][0].evaluations["sense"]
    assert one.parents == (pretrained,)
    assert not one.trains
    words = one.argv(tmp_path)
    assert str(pretrained.artifact(tmp_path)) in words
    assert words[words.index("--tasks") + 1] == "piqa,arc_easy"
    assert words[-2:] == ["-o", str(one.folder(tmp_path) / RESULTS)]
    assert (
        one.key
        != planned(tmp_path, evaluate={"sense": {"tasks": ["piqa"], "limit": 9}})
        .arms["set"][0]
        .evaluations["sense"]
        .key
    )
    rule = next(line for line in makefile(made).splitlines() if line.startswith(one.folder(tmp_path).name + ":"))
    assert pretrained.folder(tmp_path).name in rule
    assert len(plan_stages(made.stages, HardwareOptions()).stages) == 3


@pytest.mark.parametrize(
    ("evaluate", "said"),
    [
        ({"sense": {}}, "evaluate.sense: tasks: none given"),
        ({"sense": {"task": "piqa"}}, 'evaluate.sense: unknown option "task"'),
        ({"sense": {"tasks": "piqa", "output": "x"}}, "evaluate.sense.output: remove it"),
        ({"a b": {"tasks": "piqa"}}, "evaluate: "),
    ],
)
def test_a_bad_benchmark_is_named(evaluate: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError) as error:
        build_recipe(values(evaluate=evaluate))
    assert str(error.value).startswith(said)


def test_a_missing_harness_is_said_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "find_spec", lambda _: None)
    made = planned(tmp_path, evaluate=EVALUATE)
    assert isinstance(check_inputs(made, quick=True), list)
    with pytest.raises(OptionError, match=r"^evaluate: lm-evaluation-harness is not installed"):
        check_inputs(made, quick=False)


GLUE = {"glue": {"tasks": ["cola", "mrpc"], "steps": 8, "context": 32, "data": "glue"}}


def test_fine_tuned_tasks_are_stages_and_keys_stay(tmp_path: Path) -> None:
    data = tmp_path / "glue"
    asked = {"glue": GLUE["glue"] | {"data": str(data)}}
    (data / "CoLA").mkdir(parents=True)
    (data / "CoLA/train.tsv").write_text("a")
    before, made = planned(tmp_path), planned(tmp_path, finetune=asked)
    extra = [each for each in made.stages if each.label.kind == "finetune"]
    assert [each.key for each in made.stages if each not in extra] == [each.key for each in before.stages]
    assert [each.name for each in extra] == [
        f"finetune-glue-{task}-{arm}-s0" for arm in ("cold", "set") for task in ("cola", "mrpc")
    ]
    one, pretrained = made.arms["set"][0].tasks["glue"]["cola"], made.arms["set"][0].pretrain
    assert pretrained is not None
    assert one.parents == (pretrained,)
    assert one.tokens == 8 * 32 * 32
    words = one.argv(tmp_path)
    assert words[:3] == ["eval", "finetune", "cola"]
    assert words[words.index("--data") + 1] == str(data / "CoLA")
    assert words[-2:] == ["-o", "none"]
    assert len(plan_stages(made.stages, HardwareOptions()).stages) == 3 + 4
    (data / "CoLA").rename(data / "cola")
    moved = planned(tmp_path, finetune=asked).arms["set"][0].tasks["glue"]["cola"]
    assert (moved.key, moved.argv(tmp_path) == words) == (one.key, False)  # by its contents
    (data / "cola/train.tsv").write_text("b")
    assert planned(tmp_path, finetune=asked).arms["set"][0].tasks["glue"]["cola"].key != one.key
    with pytest.raises(OptionError, match=r"^finetune: .*train.tsv line 1: has 1 columns"):
        check_inputs(planned(tmp_path, finetune=asked), quick=True)


@pytest.mark.parametrize(
    ("glue", "said"),
    [
        ({"corpus": "python", "tasks": "cola"}, "finetune.glue: give its corpus"),
        ({}, "finetune.glue: give its corpus"),
        ({"tasks": ["colo"]}, 'finetune.glue.tasks: "colo" is not a GLUE task'),
        ({"tasks": []}, "finetune.glue.tasks = []: write distinct tasks of cola"),
        ({"tasks": "cola", "tokenizer": "bytes"}, "finetune.glue.tokenizer: remove it"),
        ({"tasks": "cola", "init_std": 1}, "finetune.glue.init_std: remove it"),
        ({"tasks": "cola", "context": 65}, "finetune.glue.context = 65: must be from 8 to the recipe's context, 64"),
        ({"tasks": "cola", "budget": 3}, 'finetune.glue: unknown option "budget"'),
        ({"tasks": "cola", "steps": 0}, "finetune.glue: steps = 0"),
    ],
)
def test_bad_fine_tuning_tasks_are_named(glue: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError) as error:
        build_recipe(values(finetune={"glue": glue}))
    assert str(error.value).startswith(said)
    with pytest.raises(OptionError, match=r"^finetune.sense: evaluate has the same name"):
        build_recipe(values(evaluate=EVALUATE, finetune={"sense": {"tasks": "cola"}}))


def test_fine_tuned_tasks_are_reported_like_benchmarks(tmp_path: Path) -> None:
    made = planned(tmp_path, finetune=GLUE, seeds=[0, 1])
    write_record(made, "", "proctool run tiny")
    for arm, shift in (("cold", 0.0), ("set", 0.1)):
        for seed in (0, 1):
            for task, stage in made.arms[arm][seed].tasks["glue"].items():
                if (arm, seed, task) == ("set", 1, "mrpc"):
                    continue
                first = "matthews" if task == "cola" else "f1"
                end = EndEvent(step=8, tokens=8, scores={first: 0.5 + shift + 0.02 * seed, "accuracy": None})
                stage.folder(tmp_path).mkdir()
                with (stage.folder(tmp_path) / "metrics.jsonl").open("wb") as file:
                    write_event(file, end)
                assert stage.is_done(tmp_path)
    experiment = load_experiment(tmp_path)
    assert "finetune-glue-mrpc-set-s1" in experiment.missing
    report = build_report(experiment)
    (glue,) = evaluated(report)
    assert [row[:2] for row in glue.rows] == [("cola", "matthews"), ("mrpc", "f1")]
    assert glue.rows[1][3] == "60.0 %"
    gains = {(each["task"], each["arm"]): each["gain"] for each in report.as_json()["evaluations"]}
    assert (gains["cola", "set"]["value"], gains["cola", "set"]["n"]) == (pytest.approx(0.1), 2)
    assert gains["mrpc", "set"]["n"] == 1
    assert "Benchmark glue" in page(report)
    assert report.finetunes == []


def test_the_report_has_a_table_of_each_benchmark(tmp_path: Path) -> None:
    made = planned(tmp_path, evaluate=EVALUATE, seeds=[0, 1])
    write_record(made, "", "proctool run tiny")
    for arm, shift in (("cold", 0.0), ("set", 0.1)):
        for seed in (0, 1):
            for name, stage in made.arms[arm][seed].evaluations.items():
                assert stage.state(tmp_path) == "missing"
                stage.folder(tmp_path).mkdir(exist_ok=True)
                found = {"piqa": {"acc": 0.5, "acc_norm": 0.5 + shift + 0.02 * seed, "acc_norm_stderr": 0.1}}
                found |= {"arc_easy": {"acc": 0.25 + shift}}
                if name == "code":
                    found = {"code2text_python": {"smoothed_bleu_4": 1.5 + shift}}
                write_results(stage.folder(tmp_path) / RESULTS, [scores(**found)])
                assert stage.is_done(tmp_path)
    report = build_report(load_experiment(tmp_path))
    sense, code = evaluated(report)
    assert [row[:2] for row in sense.rows] == [("piqa", "acc_norm"), ("arc_easy", "acc")]
    assert sense.heads == ("task", "metric", "cold", "set")
    assert sense.rows[1][2:] == ("25.0 % [25.0, 25.0]", "35.0 % [35.0, 35.0]")
    assert code.rows[0][2].startswith("1.500")
    gains = {(each["task"], each["arm"]): each["gain"] for each in report.as_json()["evaluations"]}
    assert gains["piqa", "cold"] is None
    assert gains["piqa", "set"]["value"] == pytest.approx(0.1)
    assert "Benchmark sense" in page(report)
    (made.arms["set"][0].evaluations["code"].folder(tmp_path) / RESULTS).write_text("{}")
    assert "evaluate-code-set-s0" in load_experiment(tmp_path).missing


@pytest.mark.slow
def test_the_command_writes_its_results(proctool: Callable[..., Said], tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    save_speaker(tmp_path / "m.safetensors")
    (tmp_path / "pairs").mkdir()
    write_pairs(tmp_path / "pairs" / "causative.jsonl", AGREEMENT, "causative")
    given = ("eval", "harness", "m.safetensors", "--tasks", "blimp_causative", "--data", "pairs", "--json", "-o")
    said = proctool(*given, RESULTS)
    assert said.code == 0, said.err
    (written,) = read_results(tmp_path / RESULTS)
    assert isinstance(written, HarnessScores)
    assert written.results["blimp_causative"]["acc"] == json.loads(said.out)["results"]["blimp_causative"]["acc"]
    assert written.samples == {"blimp_causative": len(AGREEMENT)}
    Path("mine.txt").write_text("mine")
    refused = proctool(*given, "mine.txt")
    assert refused.code == 1
    assert "proctool did not write it as results" in refused.line
