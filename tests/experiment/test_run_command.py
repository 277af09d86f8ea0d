"""`proctool run`, `report` and `compare` from the command line, over the stand-in for the training commands."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_experiment import COMMAND, values

from proctool.experiment.execute import alone_in
from proctool.reporting.record import read_record
from proctool.training.speed import step_kernels

HAYSTACK = {"haystack": {"pairs": 4, "vocab": 32, "steps": 10, "batch_size": 4, "ramp_steps": 2}}


@pytest.fixture
def recipe(tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("proctool.experiment.launch.PROCTOOL", COMMAND)
    real = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: real(min(seconds, 0.005)))
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(values(corpus=str(text), diagnostics=HAYSTACK), sort_keys=False))
    return path


def test_run_reports_and_report_says_it_again(proctool: Callable[..., Any], recipe: Path) -> None:
    said = proctool("run", recipe)
    assert said.code == 0, said.err
    # The stand-in's set reaches every loss at 0.7 of cold's steps, measured every tenth step.
    assert re.search(r"^set saves (29|30|31) % of corpus tokens to reach cold's final loss", said.out, re.MULTILINE)
    assert "page: runs/tiny/report.html" in said.out
    again = proctool("report", "runs/tiny")
    assert again.out == said.out
    calls = Path("runs/tiny/calls").read_text().splitlines()
    assert len(calls) == 5
    proctool("run", recipe)
    assert len(Path("runs/tiny/calls").read_text().splitlines()) == 5
    whole = json.loads(proctool("run", recipe, "--json").out)
    assert whole["arms"][1]["saved"]["value"] == pytest.approx(0.3, abs=0.015)
    folders = sorted(map(str, Path("runs/tiny").glob("pretrain-*")))
    assert "| set |" in proctool("compare", *folders, "--format", "markdown").out


def test_the_record_says_whether_the_run_is_a_smoke_run(proctool: Callable[..., Any], recipe: Path) -> None:
    for words, folder in (((), "runs/tiny"), (("--smoke",), "runs/tiny-smoke")):
        assert proctool("run", recipe, *words, "--emit", "make").code == 0
        assert read_record(Path(folder)).smoke is bool(words)
    assert (
        "smoke run: a few tiny steps" in proctool("report", "runs/tiny-smoke", "--figures", "none").out.splitlines()[0]
    )


def test_a_failed_stage_is_told_and_the_rest_reported(proctool: Callable[..., Any], recipe: Path) -> None:
    proctool("run", recipe, "--emit", "make")  # makes the folder an experiment's
    Path("runs/tiny/fail-haystack-set").touch()
    said = proctool("run", recipe)
    assert said.code == 1
    assert "failed  haystack-set-s0: the loss is nan at step 7; lower --lr (log: runs/tiny/haystack-set-s0-" in said.err
    assert "left out, because not finished: haystack-set-s0" in said.err
    assert said.err.splitlines()[-1].startswith("proctool: 1 of 5 stages failed (haystack-set-s0)")
    assert re.search(r"^set saves (29|30|31) %", said.out, re.MULTILINE)


def test_dry_run_shows_and_does_nothing(proctool: Callable[..., Any], recipe: Path) -> None:
    said = proctool("run", recipe, "--dry-run")
    assert said.code == 0
    assert "5 of 5 stages to run" in said.out
    assert sum(line.startswith("proctool ") for line in said.out.splitlines()) == 5
    assert not Path("runs").exists()
    planned = json.loads(proctool("run", recipe, "--dry-run", "--json").out)
    assert {stage["state"] for stage in planned["stages"]} == {"missing"}
    proctool("run", recipe)
    planned = json.loads(proctool("run", recipe, "--dry-run", "--json").out)
    assert {stage["state"] for stage in planned["stages"]} == {"done"}
    assert (planned["seconds_at_least"], planned["corpora"]) == (0, [])


def test_dry_runs_of_many_stages_leave_the_commands_to_json(
    proctool: Callable[..., Any], recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proctool.cli.dry_run._MOST_COMMANDS", 4)
    said = proctool("run", recipe, "--dry-run")
    assert "--json and --emit make print the 5 commands" in said.out
    assert not any(line.startswith("proctool ") for line in said.out.splitlines())


@pytest.mark.parametrize(("flops", "warned"), [(1e30, False), (1e3, True)])
def test_dry_run_says_the_least_time_and_reads_the_corpus(
    proctool: Callable[..., Any], recipe: Path, monkeypatch: pytest.MonkeyPatch, flops: float, warned: bool
) -> None:
    monkeypatch.setattr("proctool.training.speed.layer_flops", lambda on, precision, width: flops)
    monkeypatch.setattr("proctool.training.speed.kernel_seconds", lambda kind: 0.01)
    said = proctool("run", recipe, "--dry-run")
    assert ("takes over an hour" in said.err) == warned
    planned = json.loads(proctool("run", recipe, "--dry-run", "--json").out)
    steps = sum(stage["steps"] for stage in planned["stages"])
    work = sum(stage["flops"] for stage in planned["stages"]) / flops
    assert planned["seconds_at_least"] == pytest.approx(
        work if warned else 0.01 * steps * step_kernels(2, "fp32"), abs=0.1
    )
    (reading,) = planned["corpora"]
    assert reading["tokens"] == 40 * 4 * 64
    assert reading["epochs"] == pytest.approx(reading["tokens"] / reading["size"]["tokens"])
    assert re.search(r"^corpus .* about .* training tokens of bytes .* at most 10.2k in .* epochs$", said.out, re.M)


def test_what_is_handed_to_a_scheduler_leaves_out_what_another_has_done(
    proctool: Callable[..., Any], recipe: Path
) -> None:
    proctool("run", recipe)
    done = {path.name for path in Path("runs/tiny").glob("warmup-*")}
    recipe.write_text(recipe.read_text().replace("name: tiny", "name: second"))
    dry = proctool("run", recipe, "--dry-run")
    assert "0 of 5 stages to run" in dry.out
    assert "5 stages of other experiments in runs will be reused" in dry.out
    assert not Path("runs/second").exists()
    said = proctool("run", recipe, "--emit", "make")
    assert said.code == 0, said.err
    assert done
    assert all((Path("runs/second") / name / ".done").exists() for name in done)
    with alone_in(Path("runs/second")):
        assert "uses this folder" in proctool("run", recipe, "--emit", "make").line


@pytest.mark.slow
def test_every_planned_command_line_is_one_that_proctool_takes(proctool: Callable[..., Any], recipe: Path) -> None:
    stages = json.loads(proctool("run", recipe, "--dry-run", "--json").out)["stages"]
    for stage in stages:
        if not stage["parents"]:
            Path(stage["folder"]).mkdir(parents=True)
            said = proctool(*stage["command"][1:], "--dry-run", "--json")
            assert said.code == 0, said.err
            planned = json.loads(said.out)
            assert (planned["steps"], planned["tokens"]) == (stage["steps"], stage["tokens"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"corpus": "pyhton"}, 'corpus: no corpus, file or folder "pyhton" (did you mean "python"?)'),
        ({"baseline": "could"}, 'tiny.yaml: baseline: no arm is named "could" (did you mean "cold"?)'),
        (
            {"arms": {"a": {"warmup": {"task": "sett"}}}},
            'arms.a.warmup.task: unknown task "sett" (did you mean "set"?)',
        ),
    ],
)
def test_mistakes_end_before_anything_runs(
    proctool: Callable[..., Any], recipe: Path, changes: dict[str, Any], said: str
) -> None:
    recipe.write_text(yaml.safe_dump(values(**changes)))
    ended = proctool("run", recipe)
    assert ended.code == 1
    assert said in ended.line
    assert not Path("runs").exists()
