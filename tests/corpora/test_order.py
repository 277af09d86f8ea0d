import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proctool.corpora import RowOrder


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3000), st.integers(0, 2**80), st.integers(0, 5))
def test_every_epoch_visits_every_row_once(rows, seed, epoch):
    order = RowOrder(rows, seed)
    visited = order.indices(epoch * rows, (epoch + 1) * rows)
    assert np.array_equal(np.sort(visited), np.arange(rows))


@settings(deadline=None, max_examples=25)
@given(st.integers(200, 9000), st.lists(st.integers(0, 700), max_size=30))
def test_order_is_the_same_whatever_the_batches(rows, sizes):
    order = RowOrder(rows, 7)
    ends = np.cumsum([0, *sizes]).tolist()
    pieces = [order.indices(start, stop) for start, stop in itertools.pairwise(ends)]
    assert np.array_equal(np.concatenate([np.empty(0, int), *pieces]), order.indices(0, ends[-1]))


def test_epochs_and_seeds_have_orders_of_their_own():
    first = RowOrder(5000, 0)
    epochs = [first.indices(epoch * 5000, (epoch + 1) * 5000) for epoch in range(3)]
    others = [*epochs, RowOrder(5000, 1).indices(0, 5000), np.arange(5000)]
    for place, one in enumerate(others):
        for another in others[place + 1 :]:
            # Two random permutations agree in one place on average.
            assert (one == another).sum() < 12


def test_orders_of_few_rows_are_uniform():
    counts = np.zeros((6, 6))
    for seed in range(600):
        counts[np.arange(6), RowOrder(6, seed).indices(0, 6)] += 1
    expected = 100
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert chi_squared < 60  # 25 degrees of freedom: beyond 60 less than once in ten thousand


def test_neighbours_are_not_correlated():
    visited = RowOrder(20000, 3).indices(0, 20000)
    assert abs(np.corrcoef(visited[:-1], visited[1:])[0, 1]) < 0.03


def test_a_trillion_rows_cost_nothing():
    order = RowOrder(10**12, 0)
    far = order.indices(5 * 10**12 - 3, 5 * 10**12 + 3)
    assert len(set(far.tolist())) == 6
    assert far.max() < 10**12


def test_resuming_far_in_needs_one_integer():
    order = RowOrder(1000, 0)
    assert np.array_equal(order.indices(0, 13000)[12345:], order.indices(12345, 13000))


@pytest.mark.parametrize(
    ("positions", "said"),
    [(100, ""), (150, "repeats the corpus 1.5 times"), (200, "corpus 2 times"), (1310, "corpus 13 times")],
)
def test_repetition_is_said_plainly(positions, said):
    assert said in RowOrder(100).repetition(positions)
    assert bool(RowOrder(100).repetition(positions)) == bool(said)


@pytest.mark.parametrize(("rows", "seed"), [(0, 0), (5, -1)])
def test_impossible_orders(rows, seed):
    with pytest.raises(ValueError, match="at least one row"):
        RowOrder(rows, seed)
