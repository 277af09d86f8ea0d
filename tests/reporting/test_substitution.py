from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from proctool.reporting.compare import Curve, Run
from proctool.reporting.controls import Start
from proctool.reporting.experiment import Experiment, load_experiment
from proctool.reporting.record import ExperimentRecord
from proctool.reporting.report import build_report
from proctool.reporting.sheets import substitution
from proctool.reporting.substitution import substitute
from proctool.transplantation.origin import Provenance
from tests.reporting.made import substitutive, training, write_events

TOKENS = np.linspace(0, 4e6, 41)


def run(stretch: float = 1.0, warmup: float = 0.0) -> Run:
    return Run(Curve(TOKENS * stretch, 2 + 3 / (1 + TOKENS / 2e5)), warmup)


def test_planted_rates_are_found() -> None:
    # 4M alone; 3M after 100k procedural tokens; 2.5M after 300k.
    lengths = {"a": (0.75, 1e5), "b": (0.625, 3e5)}
    arms = {"cold": {s: run() for s in range(3)}}
    arms |= {arm: {s: run(stretch, spent) for s in range(3)} for arm, (stretch, spent) in reversed(lengths.items())}
    start = Start(("set",), (Provenance("attention", "carried", ("warm-600.safetensors",)),))
    longer = Start(("set",), (Provenance("attention", "carried", ("warm-900.safetensors",)),))
    (curve,) = substitute(arms, {"cold": Start(), "a": start, "b": longer}, "cold")
    assert [point.arm for point in curve.points] == ["a", "b"]
    assert [point.rate.value for point in curve.points] == pytest.approx([10, 5])  # type: ignore[union-attr]
    assert curve.points[0].marginal is None
    assert curve.points[1].marginal is not None
    assert curve.points[1].marginal.value == pytest.approx(2.5)
    assert curve.corpus_alone.value == pytest.approx(4e6)


def test_other_treatments_are_other_curves() -> None:
    arms = {"cold": {0: run()}, "a": {0: run(0.8, 1e5)}, "b": {0: run(0.7, 2e5)}, "free": {0: run(0.9)}}
    starts = {"cold": Start(), "a": Start(("set",)), "b": Start(("union",)), "free": Start()}
    found = substitute(arms, starts, "cold")
    assert [[point.arm for point in curve.points] for curve in found] == [["a"], ["b"]]
    assert not any(curve.has_lengths for curve in found)


def test_a_length_that_never_gets_there_is_a_gap() -> None:
    never = Run(Curve(TOKENS, np.full(41, 4.0)), 2e5)
    arms = {"cold": {0: run()}, "a": {0: run(0.8, 1e5)}, "b": {0: never}, "c": {0: run(0.5, 3e5)}}
    (curve,) = substitute(arms, dict.fromkeys(arms, Start(("set",))), "cold")
    assert [point.corpus is None for point in curve.points] == [False, True, False]
    assert [point.reached for point in curve.points] == [1, 0, 1]
    # From a to c, over the gap.
    assert curve.points[2].marginal is not None
    assert curve.points[2].marginal.value == pytest.approx((3.2e6 - 2e6) / 2e5)


def test_a_length_that_is_there_at_first_has_a_rate_of_at_least() -> None:
    there = Run(Curve(np.array([1e6, 2e6]), np.array([1.5, 1.4])), 2e5)
    arms = {"cold": {0: run()}, "a": {0: run(0.8, 1e5)}, "b": {0: there}, "c": {0: run(0.2, 3e5)}}
    starts = {"cold": Start(), **dict.fromkeys("abc", Start(("set",)))}
    (curve,) = substitute(arms, starts, "cold")
    assert [point.at_least for point in curve.points] == [False, True, False]
    assert [point.marginal is None for point in curve.points] == [True, False, True]  # none from a bound
    (*_, bound, _) = substitution(
        build_report(
            Experiment(None, ExperimentRecord(baseline="cold", stages={}, arms={}), "cold", arms, {}, starts=starts)
        )
    ).rows
    assert bound == (
        "b",
        "200k",
        "\N{LESS-THAN OR EQUAL TO} 1M",
        *(f"\N{GREATER-THAN OR EQUAL TO} {x}" for x in (15, 22)),
    )


def test_an_experiment_with_budgets(tmp_path: Path) -> None:
    root = substitutive(tmp_path / "exchange")
    report = build_report(load_experiment(root))
    saved = {each.arm: each.saved for each in report.results if not each.is_baseline}
    for arm, share in (("set-10k", 0.2), ("set-20k", 0.4), ("set-20k-shuffled", 0.05)):
        found = saved[arm]
        assert found is not None
        assert found.value == pytest.approx(share, abs=0.03)
    curve = report.substitutions[0]
    assert [point.procedural for point in curve.points] == [10_000, 20_000]
    assert all(point.rate is not None and point.rate.value == pytest.approx(2, abs=0.2) for point in curve.points)
    assert [(each.control.arm, each.control.of) for each in report.controls] == [("set-20k-shuffled", "set-20k")]
    said = next(each for each in report.verdicts if each.startswith("set-20k saves"))
    assert "; its shuffled control saves 5 % [" in said
    assert not any(each.startswith("set-20k-shuffled") for each in report.verdicts)


def test_an_arm_counts_once_all_its_budgets_are_done(tmp_path: Path) -> None:
    root = substitutive(tmp_path / "exchange")
    write_events(root / "set-20k-0.75-1", *training(0.6, end=False, steps=75))
    report = build_report(load_experiment(root))
    by_arm = {each.arm: each for each in report.results}
    assert by_arm["set-20k"].seeds == (0, 2)
    assert report.experiment.missing == ("set-20k-0.75-1",)
    assert any("set-20k: only over seeds 0, 2" in note for note in report.notes)


def test_a_length_that_only_some_seeds_get_to_says_how_many() -> None:
    never = Run(Curve(TOKENS, np.full(41, 4.0)), 1e5)
    arms = {"cold": {0: run(), 1: run()}, "a": {0: run(0.8, 1e5), 1: never}}
    (curve,) = substitute(arms, dict.fromkeys(arms, Start(("set",))), "cold")
    assert [(point.corpus, point.reached) for point in curve.points] == [(None, 1)]
