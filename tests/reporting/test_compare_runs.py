from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proctool.reporting.compare import ArmResult, Curve, Run, compare
from proctool.reporting.controls import Start, controls
from proctool.reporting.diagnose import diagnose
from proctool.reporting.experiment import Experiment
from proctool.reporting.interval import estimate, student_t
from proctool.reporting.measured import Score, joined
from proctool.reporting.record import ExperimentRecord
from proctool.reporting.report import build_report
from proctool.reporting.verdict import diagnostic_verdict, savings_verdict
from proctool.transplantation.origin import Provenance
from proctool.transplantation.treatments import Treatment

TOKENS = np.linspace(0, 4e6, 41)


def falling(tokens: np.ndarray, noise: np.ndarray | float = 0.0) -> np.ndarray:
    return 2 + 3 / (1 + tokens / 2e5) + noise


def run(stretch: float = 1.0, noise: np.ndarray | float = 0.0, up: float = 0.0, **more: float | None) -> Run:
    """A run whose curve is the baseline's with tokens multiplied by `stretch`."""
    return Run(Curve(TOKENS * stretch, falling(TOKENS, noise) + up), **more)  # type: ignore[arg-type]


def against(arm: dict[int, Run], base: dict[int, Run]) -> ArmResult:
    return compare({"cold": base, "arm": arm}, "cold")[1]


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 1.0))
def test_a_planted_saving_is_found(stretch: float) -> None:
    result = against({0: run(stretch)}, {0: run()})
    assert result.saved is not None
    assert result.saved.value == pytest.approx(1 - stretch, abs=1e-9)


def test_a_planted_saving_is_found_from_sparse_measurements_of_one_curve() -> None:
    # The arm follows the baseline's curve at 0.7 of the tokens but is measured at the baseline's places.
    sparse = np.geomspace(1e5, 4e6, 12)
    base, arm = Curve(sparse, falling(sparse)), Curve(sparse, falling(sparse / 0.7))
    saved = against({0: Run(arm)}, {0: Run(base)}).saved
    assert saved is not None
    assert saved.value == pytest.approx(0.3, abs=0.01)


def test_the_warm_up_is_counted() -> None:
    result = against({0: run(0.7, warmup_tokens=4e5, flops=4e9, warmup_flops=8e8)}, {0: run(flops=4e9)})
    assert result.saved_total is not None
    assert result.saved_flops is not None
    assert result.saved_total.value == pytest.approx(0.2)
    # At the crossing all of the arm's operations are spent, as its curve ends there.
    assert result.saved_flops.value == pytest.approx(1 - (4e9 + 8e8) / 4e9)


def test_gain_is_taken_at_equal_tokens() -> None:
    result = against({0: run(0.5)}, {0: run()})
    assert result.gain.value == pytest.approx(falling(np.array(2e6)) - falling(np.array(4e6)), abs=1e-3)
    assert against({0: run(up=0.1)}, {0: run()}).gain.value == pytest.approx(-0.1)


def test_an_arm_that_never_gets_there() -> None:
    result = against({0: run(up=0.1)}, {0: run()})
    assert (result.reached, result.saved, result.tokens) == (0, None, None)
    said = savings_verdict(result, "cold")
    assert said.startswith("arm never reaches cold's final loss of 2.143: it ends at 2.243 nats per token, 0.100 worse")


def test_a_spike_after_the_crossing_does_not_undo_it() -> None:
    noise = np.zeros(41)
    noise[30] = 1.0
    base, spiked = Curve(TOKENS, falling(TOKENS)), Curve(TOKENS, falling(TOKENS, noise))
    for loss in (2.4, 2.2, base.final):
        assert spiked.tokens_to(loss) is not None
    assert spiked.tokens_to(2.4) == base.tokens_to(2.4)


def test_a_spike_at_the_end_does_not_undo_it() -> None:
    noise = np.zeros(41)
    noise[-1] = 1.0
    assert Curve(TOKENS, falling(TOKENS, noise)).tokens_to(2.2) == Curve(TOKENS, falling(TOKENS)).tokens_to(2.2)


def test_losses_are_read_between_measurements_as_tokens_are() -> None:
    curve = Curve(np.array([0.0, 100, 1000]), np.array([5.0, 4, 3]))
    assert curve.tokens_to(4.5) == pytest.approx(50)  # linear from 0 alone
    assert curve.tokens_to(3.5) == pytest.approx(100 * 10**0.5)
    for loss in (5.0, 4.7, 4.0, 3.8, 3.5, 3.0):
        tokens = curve.tokens_to(loss)
        assert tokens is not None
        assert curve.loss_at(tokens) == pytest.approx(loss)
    assert Curve(curve.tokens[1:], curve.loss[1:]).loss_at(100 * 10**0.5) == pytest.approx(3.5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.5, 6), min_size=2, max_size=20), st.floats(0.5, 6), st.floats(0.5, 6))
def test_a_lower_loss_never_takes_fewer_tokens(losses: list[float], one: float, two: float) -> None:
    curve = Curve(np.arange(len(losses)) * 100.0, np.array(losses))
    high, low = curve.tokens_to(max(one, two)), curve.tokens_to(min(one, two))
    if low is not None:
        assert high is not None
        assert high <= low + 1e-6


def test_pairing_takes_out_what_seeds_have_in_common() -> None:
    rng = np.random.default_rng(0)
    shared = {seed: rng.normal(0, 0.1) for seed in range(6)}
    base = {seed: run(up=up) for seed, up in shared.items()}
    arm = {seed: run(up=up - 0.02 + rng.normal(0, 0.002)) for seed, up in shared.items()}
    result = against(arm, base)
    assert result.gain.low is not None
    assert result.gain.high is not None
    assert 0.01 < result.gain.low < 0.02 < result.gain.high < 0.03
    assert result.final_loss.high - result.final_loss.low > 0.05  # type: ignore[operator]


@pytest.mark.parametrize("n", [2, 3, 5, 8, 20])
def test_intervals_cover_the_truth(n: int) -> None:
    rng = np.random.default_rng(n)
    trials = 300
    hits = 0
    for _ in range(trials):
        found = estimate(list(rng.normal(0.3, 0.05, n)))
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0.3 <= found.high
    # Three standard errors of 95 % over 300 trials; the bootstrap may lack a little.
    assert hits / trials > 0.95 - 0.04
    assert hits / trials < 0.999


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_an_interval_of_shares_stays_among_shares(shares: list[float]) -> None:
    found = estimate(shares, shares=True)
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low <= found.value + 1e-9
    assert found.value - 1e-9 <= found.high <= 1


def test_all_or_nothing_over_three_seeds_leaves_nearly_everything_open() -> None:
    found = estimate([0.375, 1.0, 1.0], shares=True)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.1
    assert found.high > 0.95
    results = diagnose("haystack", {"cold": {s: score(0.37) for s in (0, 1, 2)}, "set": {
        0: score(0.375), 1: score(1.0), 2: score(1.0)}}, "cold", 0.34)  # fmt: skip
    assert not results[1].differs


@pytest.mark.parametrize("n", [3, 5, 10])
def test_intervals_of_shares_cover_the_truth(n: int) -> None:
    rng = np.random.default_rng(n)
    draws = rng.beta(18, 2, (400, n))  # accuracies about 90 %, not symmetric
    found = [estimate(list(row), shares=True) for row in draws]
    hits = sum(each.low <= 0.9 <= each.high for each in found)  # type: ignore[operator]
    assert 0.91 < hits / 400 < 0.985


def test_one_seed_has_no_interval() -> None:
    found = estimate([0.3])
    assert (found.value, found.low, found.method) == (0.3, None, None)
    assert "1 seed, so no interval" in savings_verdict(against({0: run(0.7)}, {0: run()}), "cold")


def test_student_quantiles_fall_to_the_normal() -> None:
    values = [student_t(freedom) for freedom in range(1, 60)]
    assert values == sorted(values, reverse=True)
    assert 1.96 < values[-1] < 2.01


def test_a_gain_is_a_ratio_of_perplexities() -> None:
    result = against({s: run(up=-0.1 + 0.01 * s) for s in range(3)}, {s: run() for s in range(3)})
    assert result.perplexity_ratio.value == pytest.approx(np.exp(-result.gain.value))
    assert result.gain.high is not None
    assert result.perplexity_ratio.low == pytest.approx(np.exp(-result.gain.high))
    assert result.perplexity.value == pytest.approx(np.exp(result.final_loss.value))


@pytest.mark.parametrize(("losses", "said"), [([800.0], None), ([5.0, 500.0], (None, None)), ([5.0, 6.0], "both")])
def test_losses_of_diverged_runs_have_no_infinite_perplexity(losses: list[float], said: Any) -> None:
    found = estimate(losses).exponential
    ends = None if found is None else (found.low, found.high)
    assert ends == said or (said == "both" and ends is not None and None not in ends)


def test_a_loss_may_be_given() -> None:
    base, arm = {0: run()}, {0: run(0.5)}
    loss = float(falling(np.array(1e6)))
    given = compare({"cold": base, "arm": arm}, "cold", loss)[1]
    assert given.tokens is not None
    assert given.tokens.value == pytest.approx(5e5, rel=0.01)
    assert given.saved is not None
    assert given.saved.value == pytest.approx(0.5, abs=1e-9)
    assert "to reach a loss of 2.500" in savings_verdict(given, "cold")
    beyond_cold = compare({"cold": base, "arm": {0: run(up=-0.1)}}, "cold", 2.1)[1]
    assert beyond_cold.tokens is not None
    assert beyond_cold.saved is None
    assert "which the baseline never does" in savings_verdict(beyond_cold, "cold")


def test_several_budgets_are_read_among_their_final_losses() -> None:
    # Each budget's run ends 0.1 below the long run's curve there, as its own schedule has come to its end.
    ends = np.array([1e6, 2e6, 3e6, 4e6])
    runs = [Run(Curve(TOKENS[end >= TOKENS], falling(TOKENS[end >= TOKENS]) + (TOKENS[end >= TOKENS] < end) * 0.1))
            for end in ends]  # fmt: skip
    arm = joined(runs[::-1])
    assert arm.curve.end == 4e6
    result = against({0: arm}, {0: run(up=0.05)})
    budgets = Curve(ends, falling(ends))
    needed = budgets.tokens_to(float(falling(np.array(4e6))) + 0.05)
    assert result.tokens is not None
    assert needed is not None
    assert result.tokens.value == pytest.approx(needed)
    assert not result.at_least
    early = against({0: arm}, {0: run(up=1.0)})
    assert early.at_least
    assert "saves at least" in savings_verdict(early, "cold")


def test_a_warm_up_of_unknown_cost_is_not_taken_for_free() -> None:
    result = against({0: run(0.7, warmup_tokens=None, flops=4e9, warmup_flops=None)}, {0: run(flops=4e9)})
    assert result.saved is not None
    assert result.saved_total is None
    assert result.saved_flops is None


def controlled(treated: float, shuffled: float, seeds: int = 5, **others: float) -> list[str]:
    rng = np.random.default_rng(2)

    def arm(stretch: float) -> dict[int, Run]:
        ways = [stretch + rng.normal(0, 0.005) for _ in range(seeds)]
        return {seed: Run(Curve(TOKENS, falling(TOKENS / way)), 1e5) for seed, way in enumerate(ways)}

    runs = {"cold": {seed: run() for seed in range(seeds)}, "set": arm(treated), "set-shuffled": arm(shuffled)}
    carried = (Provenance("attention", "carried", ("warm.safetensors",)),)
    starts = {
        "cold": Start(),
        "set": Start(("set:inputs=8",), carried),
        "set-shuffled": Start(("shuffle(set:inputs=8)",), carried),
    }
    for kind, way in others.items():
        runs[f"set-{kind}"] = arm(way)
        starts[f"set-{kind}"] = Start(("set:inputs=8",), carried, kind=kind, of=("set",))
    return build_report(
        Experiment(None, ExperimentRecord(baseline="cold", stages={}, arms={}), "cold", runs, {}, starts=starts)
    ).verdicts


def test_a_control_is_told_with_the_arm_it_controls() -> None:
    (said,) = controlled(0.7, 1.0)
    assert re.match(r"set saves 30 % \[\d+, \d+\] of corpus tokens .*\(5 seeds\); its shuffled control ", said)
    assert "better than its shuffled control" in said
    assert "not significant" not in said


def test_a_control_that_does_as_well_is_not_hidden() -> None:
    (said,) = controlled(0.7, 0.7)
    assert "its shuffled control saves 30 %" in said
    assert "its shuffled control (not significant)" in said


def test_the_control_that_comes_closest_stands_in_the_first_sentence() -> None:
    (said,) = controlled(0.7, 1.0, scale=0.72, mean=1.1, longer=0.5)
    first = said.partition(". ")[0]
    assert re.search(r"; its shuffled control .*; its scale-matched control saves 28 %", first)
    assert "more-corpus" not in first
    assert "embedding-mean" not in first


@pytest.mark.parametrize(
    ("tasks", "carried", "kind"),
    [
        (("set",), [("attention", "carried", Treatment()), ("mlp", "fresh", Treatment())], None),
        (("shuffle(set)",), [("attention", "carried", Treatment())], "shuffled"),
        (("set",), [("attention", "fresh", Treatment()), ("embeddings", "scale", Treatment())], "embeddings"),
        (("set",), [("attention", "altered", Treatment(match_scale=True)), ("mlp", "fresh", Treatment())], "scale"),
        (("set",), [(each, "altered", Treatment(shuffle=True)) for each in ("attention", "mlp")], "weights"),
        (("set",), [("attention", "altered", Treatment(noise=0.1))], None),
        ((), [], None),
    ],
)
def test_controls_are_known_by_how_they_start(
    tasks: tuple[str, ...], carried: list[tuple[str, str, Treatment]], kind: str | None
) -> None:
    made = (Provenance(component, source, treatment=treatment) for component, source, treatment in carried)
    assert Start(tasks, tuple(made)).control == kind


def carrying(*names: str, layers: tuple[str, ...] = ()) -> Start:
    rows = {"attention": "fresh", "mlp": "fresh", "embeddings": "scale"}
    carried = (Provenance(name, "carried" if name in names else source) for name, source in rows.items())
    return Start(("set",), tuple(carried), layers=layers)


def test_a_control_is_one_of_arms_that_carry_the_same_alone() -> None:
    arms = {
        "both": carrying("attention", "mlp"),
        "att": carrying("attention"),
        "mlp": carrying("mlp"),
        "att-first": carrying("attention", layers=("0",)),
        "att-noise": dataclasses.replace(carrying("attention"), kind="noise"),
        "first-noise": dataclasses.replace(carrying("attention", layers=("0",)), kind="noise"),
        "other": dataclasses.replace(carrying("norms"), kind="noise"),
        "mean": carrying(),
    }
    found = [(each.arm, each.of) for each in controls(arms)]
    assert found[:4] == [("mean", arm) for arm in ("both", "att", "mlp", "att-first")]
    assert found[4:] == [("att-noise", "att"), ("first-noise", "att-first")]


def test_verdicts_say_no_more_than_the_seeds_do() -> None:
    rng = np.random.default_rng(1)
    base = {seed: run() for seed in range(5)}
    clear = savings_verdict(against({seed: run(0.7 + rng.normal(0, 0.01)) for seed in range(5)}, base), "cold")
    assert clear.startswith("arm saves 30 % [")
    assert "(5 seeds)" in clear
    lost = savings_verdict(against({seed: run(1 + rng.normal(0, 0.05)) for seed in range(5)}, base), "cold")
    assert "not significant: the interval includes zero" in lost
    assert "with one seed it may be chance" in savings_verdict(against({0: run(0.99)}, {0: run()}), "cold")
    worse = savings_verdict(against({0: run(1.2)}, {0: run()}), "cold")
    assert worse.startswith("arm needs 20 % more corpus tokens")


def score(accuracy: float, samples: int | None = 2000) -> Score:
    return Score((0, 100), (0.0, accuracy), samples)


def test_diagnostics_at_the_floor_are_called_so() -> None:
    results = diagnose("haystack", {"set": {0: score(0.35)}, "cold": {0: score(0.34)}}, "cold", 0.34)
    assert [each.arm for each in results] == ["cold", "set"]
    assert "no arm is better than guessing" in diagnostic_verdict(results, "cold")


@pytest.mark.parametrize(("accuracy", "differs"), [(0.52, False), (0.58, True), (0.44, True)])
def test_differences_within_the_noise_are_not_differences(accuracy: float, differs: bool) -> None:
    # 1000 validation samples each: noise of 1.96 sqrt(2 * 0.5 * 0.5 / 1000) = 0.044.
    results = diagnose("haystack", {"cold": {0: score(0.5, 1000)}, "set": {0: score(accuracy, 1000)}}, "cold", 0.1)
    assert results[1].differs is differs
    assert ("No warm-up has a clear effect" in diagnostic_verdict(results, "cold")) is not differs
