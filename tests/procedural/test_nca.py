"""Neural cellular automata, against the published definition."""

from __future__ import annotations

import numpy as np
import pytest

from proctool.errors import OptionError
from proctool.procedural.nca import NeuralAutomaton, _step, _weights, draw_rules
from proctool.procedural.registry import parse_spec
from tests.procedural.checkers import compressed_share
from tests.procedural.test_distributions import assert_share


def rng(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


@pytest.mark.parametrize("spec", ["nca", "nca:code"])
def test_rules_lie_in_the_band(spec: str) -> None:
    task = parse_spec(spec)
    assert isinstance(task, NeuralAutomaton)
    random = rng(5)
    frames = task.run(random, task.rules(random, 6), 1, 10)
    for one in frames:
        # Any first state of a rule that passes is about as complex as the one that was tested.
        share = compressed_share(task.patches(one).ravel().tolist())
        assert task.complexity - 0.12 < share < task.most_complexity + 0.12


@pytest.mark.parametrize("band", ["complexity=0.95", "complexity=0.5,most_complexity=0.5001", "most_complexity=0.501"])
def test_a_band_without_rules_is_one_line(band: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proctool.procedural.nca._MOST_CANDIDATES", 10)
    with pytest.raises(
        OptionError, match=r"complexity = [\d.]+, most_complexity = [\d.]+: only 0 of \d+ rules"
    ) as caught:
        parse_spec(f"nca:grid=4,states=2,{band}").sample(rng(0), 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("states", [4, 10])
def test_networks_are_drawn_as_published(states: int) -> None:
    shapes = (((9, 4, states), 9 * states), ((16, 4), 4), ((states, 16), 16))
    for shape, inputs in shapes:
        weights = _weights(rng(6), (300, *shape), inputs)
        assert abs(weights.std() * inputs**0.5 - 1) < 0.03
        assert abs(weights).max() <= 2 / 0.8796 / inputs**0.5 + 2**-12
        assert np.array_equal(weights * 4096, np.round(weights * 4096)), "exact in float64"
    # Two convolutions in a row, over 4 channels of variance 1 / 4: the variance of the first.
    rules = draw_rules(rng(6), states, 300)
    assert abs((rules.near / 1024).std() * (9 * states) ** 0.5 - 1) < 0.03
    assert abs((rules.out / 256).std() * 4 - 1) < 0.03
    rank = np.linalg.matrix_rank(rules.near[0].reshape(-1, 16).astype(float), tol=30)
    assert rank == 4, "between them lie 4 channels"


@pytest.mark.parametrize("states", [2, 4, 10, 15])
def test_sums_are_exact(states: int) -> None:
    """In the precision that is chosen, so no order of additions can change a token."""
    rules = draw_rules(rng(states), states, 3)
    tables = rules.tables()
    weights = rules.weights(tables)
    most = sum(int(abs(table.astype(int)).max()) for table in tables)
    assert most < 1 << 15, "units fit 16 bits"
    units = rng(1).integers(0, most + 1, (3, 16, 200))
    exact = rules.out.astype(np.int64) @ units
    assert np.array_equal(weights @ units.astype(weights.dtype), exact)
    assert np.abs(exact).max() < 1 << 27, "a key fits 32 bits"


def test_next_states_follow_the_network() -> None:
    """One step, written out cell by cell."""
    random = rng(7)
    rules = draw_rules(random, 4, 3)
    grids = random.integers(0, 4, (3, 2, 6, 6))
    tables = rules.tables()
    after = _step(random, grids.astype(np.uint8), tables, rules.weights(tables), 1e-4)
    for which, sequence, y, x in np.ndindex(grids.shape):
        near, out = rules.near[which] / 1024, rules.out[which] / 256
        units = np.zeros(16)
        for place in range(9):
            units += near[place, grids[which, sequence, (y + place // 3 - 1) % 6, (x + place % 3 - 1) % 6]]
        logits = out @ np.maximum(units, 0)
        assert logits[after[which, sequence, y, x]] > logits.max() - 0.004


@pytest.mark.parametrize("temperature", [1e-3, 0.05, 1.0])
def test_states_are_drawn_at_the_temperature(temperature: float) -> None:
    """A grid of one state gives all cells the same logits, so their next states are draws from one softmax."""
    random = rng(8)
    rules = draw_rules(random, 5, 1)
    tables = rules.tables()
    grids = np.full((1, 400, 10, 10), 3, np.uint8)
    after = _step(random, grids, tables, rules.weights(tables), temperature)
    logits = rules.out[0] / 256 @ np.maximum((rules.near[0, :, 3] / 1024).sum(axis=0), 0)
    odds = np.exp((logits - logits.max()) / temperature)
    for state, chance in enumerate(odds / odds.sum()):
        assert_share(float((after == state).mean()), float(chance), after.size)


def test_the_first_frame_is_random_where_none_is_dropped() -> None:
    """Cells of a first state are independent, so neighbours agree as often as any two cells."""
    task = parse_spec("nca:grid=12,states=4,dropped=0,complexity=0,most_complexity=2")
    assert isinstance(task, NeuralAutomaton)
    random = rng(9)
    frames = task.run(random, draw_rules(random, 4, 4), 200, 1)[:, :, 0].reshape(800, 12, 12)
    shares = np.stack([(frames == state).mean(axis=(1, 2)) for state in range(4)])
    any_two = ((shares**2).sum(axis=0) * 144 - 1) / 143
    agree = (frames == np.roll(frames, 1, axis=2)).mean(axis=(1, 2))
    assert abs((agree - any_two).mean()) < 0.01
