"""How often things come up, against the definitions.

Seeds are fixed, so these never flicker. Tolerances are five standard errors of the estimate unless stated: a correct
generator would pass with any seed but about one in a million.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from proctool.procedural.registry import parse_spec
from proctool.procedural.samples import Samples


def draw(spec: str, n: int, seed: int = 11) -> Samples:
    return parse_spec(spec).sample(np.random.Generator(np.random.PCG64(seed)), n)


def assert_share(found: float, expected: float, trials: float) -> None:
    error = math.sqrt(max(0.0, expected * (1 - expected)) / trials)
    assert abs(found - expected) < 5 * error + 1e-9, (found, expected)


def assert_uniform(values: NDArray[np.generic], among: range) -> None:
    """By the chi-square statistic, five standard deviations above its mean at most."""
    counts = np.bincount(values.ravel().astype(np.int64) - among.start, minlength=len(among))
    assert len(counts) == len(among)
    expected = counts.sum() / len(among)
    freedom = max(1, len(among) - 1)
    assert ((counts - expected) ** 2 / expected).sum() < freedom + 5 * math.sqrt(2 * freedom)


def walks(length: int, p_open: float, cap: int, balanced: bool = True) -> NDArray[np.float64]:
    """The probability of each depth after each token, from the rule. (length + 1, length + 2)."""
    odds = np.zeros((length + 1, length + 2))
    odds[0, 0] = 1
    for step in range(length):
        for depth in range(min(step, cap) + 1):
            left = length - step
            if depth == 0:
                opening = 1.0
            elif depth >= cap or (balanced and left <= depth):
                opening = 0.0
            else:
                opening = p_open
            odds[step + 1, depth + 1] += odds[step, depth] * opening
            if depth:
                odds[step + 1, depth - 1] += odds[step, depth] * (1 - opening)
    return odds


@pytest.mark.parametrize(
    ("spec", "cap", "balanced"),
    [
        ("dyck:k=3,length=40,p_open=0.5", 40, True),
        ("dyck:k=3,length=40,p_open=0.7", 40, True),
        ("dyck:k=3,length=40,p_open=0.3", 40, True),
        ("shuffle-dyck:k=3,length=40,p_open=0.6,max_depth=5", 5, True),
        ("shuffle-dyck:k=3,length=40,p_open=0.6,max_depth=5,balanced=false", 5, False),
    ],
)
def test_depths_of_brackets(spec: str, cap: int, balanced: bool) -> None:
    """The depth histogram at every position, and so the opening probability at every depth."""
    n = 20_000
    task = parse_spec(spec)
    opens = draw(spec, n).tokens < task.options["k"]
    depth = np.cumsum(np.where(opens, 1, -1), axis=1)
    expected = walks(40, task.options["p_open"], cap, balanced)
    for step in range(40):
        counts = np.bincount(depth[:, step], minlength=42)
        for level in range(42):
            if expected[step + 1, level] * n < 10:
                assert counts[level] < 60
            else:
                assert_share(counts[level] / n, expected[step + 1, level], n)


def test_opening_probability_of_dyck() -> None:
    tokens = draw("dyck:k=8,length=256,p_open=0.49", 4000).tokens
    opens = tokens < 8
    depth = np.cumsum(np.where(opens, 1, -1), axis=1)
    free = (depth[:, :99] > 0) & (depth[:, :99] < 100)
    choices = opens[:, 1:100][free]
    assert_share(choices.mean(), 0.49, choices.size)
    assert_uniform(tokens[opens], range(8))


def test_types_of_dyck_are_independent() -> None:
    tokens = draw("dyck:k=4,length=64", 5000).tokens
    both_open = (tokens[:, :-1] < 4) & (tokens[:, 1:] < 4)
    assert_uniform(tokens[:, :-1][both_open] * 4 + tokens[:, 1:][both_open], range(16))


def test_shuffle_dyck_closes_a_uniform_type_among_the_open() -> None:
    """By how long ago each type opened: by their numbers any choice would look uniform, since types are alike."""
    spec = "shuffle-dyck:k=5,length=60,max_depth=6,p_open=0.5"
    closed: dict[int, Counter[int]] = {}
    for row in draw(spec, 3000).tokens.tolist():
        counts: dict[int, int] = {}  # in the order in which the types opened
        for token in row:
            kind = token % 5
            if token < 5:
                counts[kind] = counts.get(kind, 0) + 1
            else:
                closed.setdefault(len(counts), Counter())[list(counts).index(kind)] += 1
                counts[kind] -= 1
                if not counts[kind]:
                    del counts[kind]
    assert set(closed) == {1, 2, 3, 4, 5}
    for size, seen in closed.items():
        assert_uniform(np.array(list(seen.elements())), range(size))


def test_shuffle_dyck_crosses_brackets() -> None:
    crossed = 0
    for row in draw("shuffle-dyck:k=8,length=64", 200).tokens.tolist():
        stack: list[int] = []
        for token in row:
            if token < 8:
                stack.append(token)
            elif stack[-1] == token - 8:
                stack.pop()
            else:
                crossed += 1
                break
    assert crossed > 150


@pytest.mark.parametrize(
    "name", ["identity", "reverse", "sort", "set", "union", "delete", "duplicate", "replace", "intersect", "difference"]
)
def test_transductions_draw_uniform_symbols(name: str) -> None:
    inputs = draw(f"{name}:inputs=10,symbols=8", 5000).tokens[:, :5]
    assert_uniform(inputs, range(1, 8))
    assert_uniform(inputs[:, 0] * 8 + inputs[:, 1] - (inputs[:, 0].astype(int) - 1) - 9, range(49))


def test_deletes_are_absent_as_often_as_chance_has_it() -> None:
    samples = draw("delete", 20_000)
    deleted = samples.targets.sum(axis=1) == 63
    absent = (1 - 1 / 99) ** 64  # 0.522: about half
    assert_share(1 - deleted.mean(), absent, 20_000)


def test_stack_phases() -> None:
    n, inputs = 20_000, 30
    tokens = draw("stack:inputs=30,symbols=100", n).tokens[:, :inputs]
    pushes = tokens > 0
    depth = np.concatenate([np.zeros((n, 1), int), np.cumsum(np.where(pushes, 1, -1), axis=1)], axis=1)
    assert pushes[depth[:, :-1] <= 1].all()
    for steps, likely in ((range(20), 0.75), (range(20, 29), 0.25)):
        free = np.zeros(pushes.shape, bool)
        free[:, steps] = depth[:, steps] > 1
        assert_share(pushes[free].mean(), likely, free.sum())
    assert not pushes[:, -1][depth[:, -2] > 1].any()
    assert_uniform(tokens[:, 0], range(1, 100))


def test_stack_pushes_uniformly_from_what_it_does_not_hold() -> None:
    """By how long ago each was popped, since by their numbers symbols are alike."""
    ranks: dict[int, Counter[int]] = {}
    for row in draw("stack:inputs=24,symbols=7", 4000).tokens[:, :24].tolist():
        held: list[int] = []
        left = list(range(1, 7))
        for symbol in row:
            if symbol:
                ranks.setdefault(len(left), Counter())[left.index(symbol)] += 1
                left.remove(symbol)
                held.append(symbol)
            else:
                left.append(held.pop())
    assert set(ranks) == {1, 2, 3, 4, 5, 6}
    for size, seen in ranks.items():
        assert_uniform(np.array(list(seen.elements())), range(size))


def test_haystack_draws() -> None:
    samples = draw("haystack:pairs=6,vocab=40", 30_000)
    answers = samples.targets.argmax(axis=1)
    counts = (answers - 1) // 2
    assert_uniform(counts, range(1, 7))
    queries = samples.tokens[np.arange(len(answers)), answers - 1]
    assert_uniform(queries, range(26, 32))
    assert_uniform(samples.tokens[:, 0], range(20, 26))
    assert_uniform(samples.tokens[:, 1], range(1, 20))
    full = samples.tokens[counts == 6]
    asked = full[:, 12] - 6
    places = (full[:, 0:12:2] == asked[:, None]).argmax(axis=1)
    assert_uniform(places, range(6))
    pairs = full[:, 0].astype(int) * 6 + full[:, 2] - 140
    orders = sorted({a * 6 + b for a in range(6) for b in range(6) if a != b})
    assert_uniform(np.searchsorted(orders, pairs), range(30))


def test_eca_starts_uniformly() -> None:
    samples = draw("eca:width=8,patch=8,steps=1", 20_000)
    assert_uniform(samples.tokens[:, 0], range(256))


def test_arithmetic_draws_uniform_numbers() -> None:
    tokens = draw("addition:digits=2", 30_000).tokens
    assert_uniform(tokens[:, 0] * 10 + tokens[:, 1], range(10, 100))
    assert_uniform(tokens[:, 3] * 10 + tokens[:, 4], range(10, 100))
    assert_uniform(draw("reversed-addition:digits=2", 30_000).tokens[:, 1], range(1, 10))


def test_modular_draws_uniform_numbers() -> None:
    tokens = draw("modular:modulus=7,terms=3", 20_000).tokens
    assert_uniform(tokens[:, 0] * 49 + tokens[:, 2] * 7 + tokens[:, 4], range(343))
    assert_uniform(tokens[:, -1], range(7))


def test_lookups_ask_uniform_positions() -> None:
    samples = draw("select:inputs=6,symbols=50", 20_000).tokens
    assert_uniform(samples[:, 7], range(52, 58))
    found = draw("search:inputs=4,symbols=60000", 20_000).tokens[:, -1]
    # Almost all symbols are distinct, so the first appearance is the position drawn.
    assert_share((found == found.min()).mean(), 1 / 4, 20_000)


def test_dfa_strings_and_branches() -> None:
    task = parse_spec("dfa:states=5,symbols=9,branches=3,mean=8,length=2000")
    tokens = draw(task.spec, 300).tokens
    separators = (tokens == 9).sum()
    assert abs(tokens.size / separators - 9) < 0.2  # 8 symbols on average, and the separator
    symbols, following = task.automata(np.random.Generator(np.random.PCG64(3)), 4000)  # type: ignore[attr-defined]
    assert (np.diff(np.sort(symbols, axis=2), axis=2) > 0).all(), "distinct symbols"
    assert_uniform(symbols[:, 0, 0], range(9))
    assert_uniform(following, range(5))


def test_mqar_gaps_follow_the_power_law() -> None:
    """With one pair, slot s = 1, 2, ... is taken with weight s^(power - 1)."""
    n = 40_000
    targets = draw("mqar:pairs=1,length=34,vocab=64,power=0.25", n).targets
    places = (targets.argmax(axis=1) - 3) // 2
    weights = np.arange(1, 17) ** -0.75
    for slot, share in enumerate(weights / weights.sum()):
        assert_share((places == slot).mean(), share, n)
    values = draw("mqar:pairs=3,length=32,vocab=16", 20_000).tokens
    assert_uniform(values[:, 1], range(8, 16))
    assert_uniform(values[:, 0], range(1, 8))
    assert_uniform(values[:, 4], range(1, 8))
