"""Diagnostics that are run several times from each seed's start."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import pstdev
from typing import Any

import numpy as np
import pytest
import yaml
from tiny_experiment import COMMAND, planned, values

from proctool.reporting.diagnose import diagnose, spread
from proctool.reporting.measured import Score, mean_score

HAYSTACK = {"haystack": {"pairs": 4, "vocab": 32, "steps": 10, "batch_size": 4, "ramp_steps": 2}}


def test_runs_differ_in_the_seed_alone_and_share_their_donor(tmp_path: Path) -> None:
    once = planned(tmp_path, diagnostics=HAYSTACK, seeds=[0, 1])
    several = planned(tmp_path, diagnostics=HAYSTACK, seeds=[0, 1], repeats=3)
    for arm, by_seed in several.arms.items():
        for seed, stages in by_seed.items():
            first, others = stages.diagnostics["haystack"], stages.repeats["haystack"]
            assert first.key == once.arms[arm][seed].diagnostics["haystack"].key, "a recipe can be repeated later"
            assert len(others) == 2
            for other in others:
                assert {name: each.key for name, each in other.inputs.items()} == {
                    name: each.key for name, each in first.inputs.items()
                }
    seeds = [each.options.seed for each in several.stages if each.command[0] == "eval"]
    assert len(seeds) == 2 * 2 * 3
    assert len(set(seeds)) == 2 * 3, "arms are paired by seed and run"
    warmups = [stage for stage in several.stages if stage.command == ("warmup",)]
    assert len(warmups) == 2, "a warm-up is not repeated"


def test_a_repeated_recipe_is_reported_by_seed(
    proctool: Callable[..., Any], tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proctool.experiment.launch.PROCTOOL", COMMAND)
    path = tmp_path / "tiny.yaml"
    written = values(corpus=None, diagnostics=HAYSTACK, seeds=[0, 1, 2], repeats=3) | {"pretrain": {}}
    path.write_text(yaml.safe_dump(written))
    said = proctool("run", path)
    assert said.code == 0, said.err
    assert "Spread of accuracy" in proctool("report", "runs/tiny", "--format", "markdown").out
    page = Path("runs/tiny/report.html").read_text()
    assert "Between runs: what differs by the diagnostic&#x27;s own seed" in page
    assert "between seeds" in proctool("report", "runs/tiny").out
    table = list(csv.DictReader(io.StringIO(proctool("report", "runs/tiny", "--format", "csv").out)))
    of_runs = [(each["arm"], each["seed"], each["quantity"]) for each in table if "accuracy of run" in each["quantity"]]
    assert sorted(of_runs) == sorted(
        (arm, str(seed), f"final accuracy of run {number}")
        for arm in ("cold", "set")
        for seed in range(3)
        for number in (1, 2, 3)
    )
    assert sum(each["quantity"].startswith("standard deviation") for each in table) == 4
    rows = json.loads(proctool("report", "runs/tiny", "--json").out)["diagnostics"]
    assert [[len(runs) for runs in each["runs"]] for each in rows] == [[3, 3, 3]] * 2
    assert [each["seeds"] for each in rows] == [[0, 1, 2]] * 2, "intervals count donors"
    assert [each["spread"] for each in rows] == [{"runs": 3, "between": 0, "within": 0}] * 2, "the stand-in is exact"
    (second,) = Path("runs/tiny").glob("haystack-cold-run2-s0-*")
    shutil.rmtree(second)
    table = list(csv.DictReader(io.StringIO(proctool("report", "runs/tiny", "--format", "csv").out)))
    assert [
        each["quantity"]
        for each in table
        if "accuracy of run" in each["quantity"] and (each["arm"], each["seed"]) == ("cold", "0")
    ] == ["final accuracy of run 1"], "the third is not called the second"


def test_a_mean_score_keeps_the_last_accuracy_of_a_run_that_ended_early() -> None:
    short, long = Score((0, 10), (0.0, 0.8), 100), Score((0, 10, 20), (0.1, 0.2, 0.4), 100)
    both = mean_score([short, long])
    assert both.tokens == (0, 10, 20)
    assert both.accuracy == pytest.approx((0.05, 0.5, 0.6))
    assert both.runs == (0.8, 0.4)
    assert both.samples == 200
    assert mean_score([short]) is short


def test_spread_tells_donors_from_runs() -> None:
    rng = np.random.default_rng(0)
    donors, runs = 4000, 3
    drawn = 0.5 + 0.03 * rng.standard_normal((donors, 1)) + 0.06 * rng.standard_normal((donors, runs))
    found = spread(drawn.tolist())
    assert found is not None
    assert found.runs == runs
    assert found.between == pytest.approx(0.03, rel=0.05)
    assert found.within == pytest.approx(0.06, rel=0.05)
    alike = spread([[0.1, 0.3], [0.3, 0.1]])
    assert alike is not None
    assert alike.between == 0, "no negative variance"
    assert alike.within == pytest.approx(pstdev([0.1, 0.3]) * 2**0.5)
    assert spread([[0.5], [0.6]]) is None
    lone = spread([[0.5, 0.7], [0.6]])
    assert lone is not None
    assert lone.runs == 1, "the fewest"
    cold = {0: Score((0, 9), (0.0, 0.1), 100), 1: mean_score([Score((0, 9), (0.0, each), 100) for each in (0.2, 0.3)])}
    (found,) = diagnose("haystack", {"cold": cold}, "cold", None)
    assert found.runs == ((0.1,), (0.2, 0.3))
    assert found.spread is not None
    assert found.spread.runs == 1
    assert lone.between is None, "one group says nothing of the others"


def test_an_interval_counts_donors() -> None:
    def score(*runs: float) -> Score:
        return mean_score([Score((0, 100), (0.0, each), 1000) for each in runs])

    cold = {seed: score(0.1, 0.1) for seed in range(3)}
    mine = {0: score(0.2, 0.4), 1: score(0.5, 0.7), 2: score(0.8, 0.8)}
    (_, found) = diagnose("haystack", {"cold": cold, "set": mine}, "cold", None)
    (_, same) = diagnose(
        "haystack",
        {"cold": {seed: score(0.1) for seed in range(3)}, "set": {0: score(0.3), 1: score(0.6), 2: score(0.8)}},
        "cold",
        None,
    )
    assert found.accuracy.low == pytest.approx(same.accuracy.low)
    assert found.spread is not None
    assert same.spread is None
