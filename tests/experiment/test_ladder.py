"""Ladders: rungs of a recipe, their records, and the fit over sizes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from tiny_experiment import planned, values

from proctool.errors import OptionError
from proctool.experiment.graph import Plan
from proctool.experiment.ladder import require_text
from proctool.experiment.record import write_record
from proctool.models.shapes import Shape
from proctool.recipe import build_recipe
from proctool.recipe.ladder import body_parameters, rungs_of
from proctool.recipe.smoke import smoke
from proctool.reporting.experiment import load_experiment
from proctool.reporting.figures import figure_paths
from proctool.reporting.record import read_record
from proctool.reporting.report import build_report
from proctool.reporting.sheets import sheets
from tests.reporting.made import training, write_events

WARM = {"warmup": {"task": "set:inputs=8"}}
LADDER: dict[str, Any] = {
    "model": "2x2x16", "ladder": [32, 16, 64], "seeds": [0, 1, 2], "extrapolate": "gpt2",
    "pretrain": {"steps": 40, "batch_size": 4, "eval_every": 10, "ramp_steps": 4},
    "arms": {"cold": {}, "set": WARM | {"pretrain": {"ramp_steps": 8}}},
}  # fmt: skip


def test_rungs_keep_heads_and_tokens_per_parameter(root: Path) -> None:
    recipe = build_recipe(values(**LADDER))
    rungs = rungs_of(recipe)
    assert {width: rung.model for width, rung in rungs.items()} == {16: "2x2x16", 32: "2x4x32", 64: "2x8x64"}
    plan = planned(root, **LADDER)
    ratios = set()
    for width, rung in plan.rungs.items():
        stage = rung.arms["cold"][0].pretrain
        assert stage is not None
        ratios.add(stage.tokens / body_parameters(Shape(2, width // 8, width)))
        assert stage.options.eval_every * 4 == stage.steps  # type: ignore[union-attr]
    assert len(ratios) == 1
    wide = plan.arms["set"][0].pretrain
    assert wide is not None
    assert (wide.name, wide.steps, wide.options.ramp_steps) == ("pretrain-set-w64-s0", 640, 128)  # type: ignore[union-attr]
    assert {stage.steps for stage in plan.stages if stage.label.kind == "warmup"} == {20}


def test_a_rung_is_an_ordinary_recipe(root: Path) -> None:
    plan = planned(root, **LADDER)
    middle = LADDER | {"ladder": [], "extrapolate": None, "model": "2x4x32"}
    middle |= {"pretrain": {"steps": 160, "batch_size": 4, "eval_every": 40, "ramp_steps": 16}}
    middle |= {"arms": {"cold": {}, "set": WARM | {"pretrain": {"ramp_steps": 32}}}}
    assert {stage.key for stage in planned(root, **middle).stages} < {stage.key for stage in plan.stages}


def test_its_smoke_form_has_two_rungs(root: Path) -> None:
    small = smoke(build_recipe(values(**LADDER, sweep={"lr": [1, 2, 3]})))
    assert small.ladder == (16, 32)
    assert [rung.model for rung in rungs_of(small).values()] == ["2x2x16", "2x4x32"]


def measured(root: Path, gains: dict[int, float], **changes: Any) -> Plan:
    """A finished ladder whose gains by width vary with the seed by .01."""
    plan = planned(root, **LADDER | changes)
    write_record(plan, "", "")
    for width, rung in plan.rungs.items():
        for arm, by_seed in rung.arms.items():
            for seed, stages in by_seed.items():
                assert stages.pretrain is not None
                events = training(steps=40)
                for event in events:
                    if event["event"] == "eval" and arm == "set":
                        event["loss"] -= gains[width] + 0.01 * (seed - 1)
                for stage in (stages.pretrain, *stages.pretrain.parents):
                    write_events(stage.folder(root), *events)
    return plan


def test_a_line_over_sizes_is_found_and_extended(root: Path) -> None:
    """The target is 864 times the widest rung, and on the line."""
    measured(root, {16: -0.1, 32: 0.0, 64: 0.1})
    report = build_report(load_experiment(root))
    (ladder,) = report.ladders
    assert [round(rung.gain.value, 6) for rung in ladder.rungs] == [-0.1, 0.0, 0.1]
    assert ladder.slope.value == pytest.approx(0.1 / (2 * math.log10(2)))
    octaves = math.log2(12 * 12 * 768**2 / (12 * 2 * 16**2)) / 2
    assert ladder.expected is not None
    assert ladder.expected.value == pytest.approx(0.1 * (octaves - 1))
    assert ladder.expected.low is not None
    assert ladder.expected.low < ladder.expected.value
    assert not ladder.power_law
    (said,) = (each for each in report.verdicts if each.startswith("set: from width 16 to 64"))
    assert said.endswith("so far beyond the ladder that only its sign is worth anything.")
    assert "At gpt2 (84.9M parameters without embeddings, 864 times the widest rung) we expect" in said
    assert {path.stem for path in figure_paths(report, root, ["png"])} >= {"ladder", "gain"}
    (sheet,) = (each for each in sheets(report) if each.name == "ladder")
    assert sheet.rows[0][0] == "set"


def test_a_power_law_widens_what_is_expected(root: Path) -> None:
    """Gains that halve with each doubling: the line goes below zero, the power law stays above."""
    measured(root, {16: 0.4, 32: 0.2, 64: 0.1})
    (ladder,) = build_report(load_experiment(root)).ladders
    assert ladder.power_law
    assert ladder.expected is not None
    assert ladder.expected.low is not None
    assert ladder.expected.high is not None
    assert ladder.expected.low < -0.5
    assert 0 < ladder.expected.high < 0.1


def test_one_seed_has_no_interval_and_one_rung_no_ladder(root: Path) -> None:
    measured(root, {16: 0.4, 32: 0.2, 64: 0.1}, seeds=[1])
    (ladder,) = build_report(load_experiment(root)).ladders
    assert ladder.expected is not None
    assert (ladder.expected.low, ladder.slope.low) == (None, None)
    plan = planned(root, **LADDER | {"seeds": [1]})
    for width in (16, 32):
        stage = plan.rungs[width].arms["cold"][1].pretrain
        assert stage is not None
        (stage.folder(root) / "metrics.jsonl").unlink()
    assert build_report(load_experiment(root)).ladders == []


def test_each_rung_has_its_own_sweep(root: Path) -> None:
    plan = planned(root, **LADDER, sweep={"lr": [0.001, 0.01]})
    chosen = {stage.name for stage in plan.stages if stage.label.kind == "choose"}
    assert chosen == {f"choose-{arm}-w{width}" for arm in ("cold", "set") for width in (16, 32, 64)}
    write_record(plan, "", "")
    record = read_record(root)
    assert {f"choose-{name}" for name in record.all_choices} == chosen
    assert record.rungs["16"].choices["set"].groups.keys() == {"set"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ladder": [64]}, "ladder = [64]: write at least two distinct widths"),
        ({"ladder": [64, 64]}, "ladder = [64, 64]: write at least two distinct widths"),
        ({"ladder": [16, 20]}, "ladder: width 20 is not a multiple of 8, the size of a head of model 2x2x16"),
        ({"ladder": []}, "extrapolate: there is no ladder to extrapolate from"),
        ({"extrapolate": "gtp2"}, 'model "gtp2" is neither'),
        ({"warmup": {"model": "2x2x16"}}, "warmup.model: remove it; a ladder sets the model of every stage"),
        ({"arms": {"cold": {}, "old": {"init": "a.safetensors"}}}, "arms.old.init: has one width"),
        ({"corpus": None, "diagnostics": {"haystack": {}}}, "ladder: compares the gains of pretraining"),
    ],
)
def test_a_ladder_that_cannot_be_run_is_one_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(Exception) as error:
        build_recipe(values(**LADDER | changes))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_small_corpus_is_refused(root: Path, text: Path) -> None:
    plan = planned(root, **LADDER, corpus=str(text))
    with pytest.raises(OptionError, match=r"ladder: width 64 takes \d+\.\d passes over the corpus, above 4"):
        require_text(plan, yes=False)
    require_text(plan, yes=True)
