"""Benchmarks in recipes: stages after pretraining, and their table in the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proctool.errors import OptionError
from proctool.evaluation import harness
from proctool.experiment.emit import makefile
from proctool.experiment.inputs import check_inputs
from proctool.experiment.planning import HardwareOptions, plan_stages
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
