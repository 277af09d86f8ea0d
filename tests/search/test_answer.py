"""The facts of an answer and the space of a search, without a search."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from proctool.errors import ModelError
from proctool.models.build import model_config, outline
from proctool.models.components import components
from proctool.models.shapes import Shape
from proctool.search.answer import measured, std_gain
from proctool.search.options import SearchOptions
from proctool.search.space import FAMILIES, Candidate, Cold, beyond, cold_cells, proxies, rate_at, std_at, tasks_of
from proctool.search.study import Kind, Phase, cells_tried, next_trial, open_study, worked_seconds

SET = Candidate("set", 0.5, "attention", "scale", 3e-3)
SEEDS = (1000, 1001, 1002)


def losses(cold: float, warm: float, scale: float, longer: float, spread: float) -> dict[str, dict[int, float]]:
    """Losses by arm and seed: each arm's mean, with the given spread over seeds against cold's."""
    means = {"cold": cold, "c": warm, "c-scale": scale, "cold-longer": longer}
    return {
        arm: {seed: mean + (0 if arm == "cold" else spread * (seed - 1001)) for seed in SEEDS}
        for arm, mean in means.items()
    }


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ((2.0, 2.0, 2.0, 2.0, 0.0), "no gain"),  # every gap is zero
        ((2.0, 1.9, 2.0, 2.0, 0.1), "no gain"),  # the interval includes none
        ((2.0, 2.1, 2.0, 2.0, 0.001), "no gain"),  # clearly worse
        ((2.0, 1.9, 1.9, 2.0, 0.001), "scale"),
        ((2.0, 1.9, 2.0, 1.8, 0.001), "text"),
        ((2.0, 1.9, 2.0, 1.95, 0.001), "recommend"),
    ],
)
def test_the_verdict_follows_from_the_intervals(values: tuple[Any, ...], verdict: str) -> None:
    found = measured(losses(*values), "cold", {"c": SET}, scale="c-scale", longer="cold-longer")
    assert found.verdict == verdict
    assert found.winner.gain.value == pytest.approx(values[0] - values[1])


def test_only_seeds_of_both_arms_are_paired() -> None:
    found = losses(2.0, 1.9, 2.0, 2.0, 0.01)
    del found["c"][1002]
    assert measured(found, "cold", {"c": SET}, scale="no", longer="no").winner.gain.n == 2


def test_what_tuning_the_standard_deviation_gained_compares_best_with_best() -> None:
    tried = [(Cold(1e-3, 1.0), 2.0), (Cold(2e-3, 1.0), 1.9), (Cold(1e-3, 2.0), 1.7), (Cold(2e-3, 2.0), 2.5)]
    assert std_gain(tried) == pytest.approx(0.2)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_small_models_whose_components_are_known(family: str) -> None:
    options = SearchOptions(model="12x12x768", family=family)
    for shape in proxies(options):
        model = outline(model_config(str(shape), vocab_size=257, context=16, family=family))
        assert {"attention", "mlp", "norms"} <= {each.component for each in components(model).values()}


@pytest.mark.parametrize(
    ("target", "widths", "small"),
    [
        ("gpt2", (), "4x4x32 4x4x64 4x4x128"),
        ("4x4x64", (), "4x4x32 4x4x64"),
        ("2x2x16", (), "2x2x8 2x2x16"),
        ("2x3x48", (24, 48), "2x3x24 2x3x48"),
        ("llama-3.2-1b", (32,), "4x4x32"),
    ],
)
def test_small_models_stand_for_a_target(target: str, widths: tuple[int, ...], small: str) -> None:
    assert " ".join(map(str, proxies(SearchOptions(model=target, widths=widths)))) == small


def test_a_configuration_of_another_family_has_no_small_model(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"model_type": "mamba", "num_hidden_layers": 2, "hidden_size": 32}')
    with pytest.raises(ModelError, match="no small model stands for the family mamba"):
        proxies(SearchOptions(model=str(file)))


def test_rates_and_standard_deviations_follow_the_width() -> None:
    assert rate_at(6e-3, 64) == 6e-3
    assert rate_at(6e-3, 128) == 3e-3
    assert std_at(2.0, 768) == 0.04
    assert std_at(1.0, 192) == pytest.approx(Shape(1, 1, 192).init_std, rel=1e-3)


def test_the_grid_grows_at_its_edges_only() -> None:
    cells = cold_cells()
    assert beyond(Cold(3e-3, 1.0), cells) == []
    assert beyond(Cold(1.5e-3, 2.0), cells) == [Cold(1.5e-3, 4.0), Cold(0.75e-3, 2.0)]
    # A single standard deviation, as at wider models, is no edge.
    assert beyond(Cold(1e-3, 1.0), [Cold(1e-3, 1.0), Cold(2e-3, 1.0), Cold(5e-4, 1.0)]) == []


def test_the_default_tasks_fit_any_context() -> None:
    assert len(tasks_of(SearchOptions())) == 9
    assert all("length=16" in spec or "inputs" in spec for spec in tasks_of(SearchOptions(context=16)))


def test_cells_are_counted_by_what_each_trial_is(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    storage = optuna.storages.InMemoryStorage()
    space = {"rate": optuna.distributions.FloatDistribution(1e-6, 10.0)}
    studies = []
    kinds: tuple[Kind, ...] = ("finals", "cold", "cold", "confirm", "candidates")
    for number, kind in enumerate(kinds):  # the order says nothing
        phase = Phase(kind, Shape(2, 2, 16 + number), maximise=True, space=space, cells=({"rate": 0.1}, {"rate": 0.2}))
        studies.append(open_study(storage, "x", phase))
        for end in (1.0, None) if kind == "cold" else (1.0,):
            taking = next_trial(studies[-1], phase, 0, tmp_path)
            assert taking is not None
            taking.tell(end)
    studies[1].add_trial(
        optuna.trial.create_trial(value=1.0, params={"rate": 0.3}, distributions=space)
    )  # an earlier version's
    next_trial(studies[0], phase, 0, tmp_path)  # still running
    assert cells_tried(studies, "cold") == 5
    assert cells_tried(studies[::-1], "candidates", "finals") == 2


def test_trials_at_the_same_time_count_once() -> None:
    pytest.importorskip("optuna")
    from optuna.trial import TrialState

    start = datetime(2026, 1, 1)

    def trial(begins: int, ends: int | None, state: TrialState = TrialState.COMPLETE) -> Any:
        at = [None if each is None else start + timedelta(seconds=each) for each in (begins, ends)]
        return SimpleNamespace(datetime_start=at[0], datetime_complete=at[1], state=state)

    trials = [
        trial(0, 10),
        trial(5, 20),
        trial(6, 8),
        trial(100, 110),
        trial(30, 90, TrialState.FAIL),
        trial(115, None),
    ]
    study: Any = SimpleNamespace(get_trials=lambda deepcopy: trials)
    assert worked_seconds([study], lambda: start + timedelta(seconds=120)) == 35
