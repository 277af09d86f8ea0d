"""What data demand, against counts by hand and against laws that must hold."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from proctool.procedural.mixture import parse_tasks
from proctool.procedural.registry import build_task, tasks
from proctool.procedural.samples import Samples
from proctool.procedural.statistics import BIAS, Statistics, measure, of_task
from tests.conftest import Said
from tests.procedural.test_contract import small


def measured(rows: list[list[int]], vocab_size: int = 10) -> Statistics:
    tokens = np.array(rows, np.uint16)
    return measure(Samples(tokens, np.ones(tokens.shape, bool)), vocab_size)


def random_rows(seed: int, n: int = 12, length: int = 40, symbols: int = 3) -> list[list[int]]:
    rows: list[list[int]] = np.random.Generator(np.random.PCG64(seed)).integers(0, symbols, (n, length)).tolist()
    return rows


@pytest.mark.parametrize("seed", range(3))
def test_entropies_are_those_of_the_counts(seed: int) -> None:
    rows = random_rows(seed)
    found = measured(rows)
    assert len(found.entropies) == 5
    largest = 0.0
    for before, bits in enumerate(found.entropies):
        after: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for row in rows:
            for place in range(before, len(row)):
                after[tuple(row[place - before : place])][row[place]] += 1
        total = sum(counts.total() for counts in after.values())
        expected = -sum(
            count / total * math.log2(count / counts.total()) for counts in after.values() for count in counts.values()
        )
        assert bits == pytest.approx(expected, abs=1e-9)
        kinds = sum(len(counts) - 1 for counts in after.values())
        largest = max(largest, kinds / (2 * total * math.log(2)))
        assert found.biases[before] == pytest.approx(largest)


@pytest.mark.parametrize("seed", range(3))
def test_tokens_determined_by_ngrams(seed: int) -> None:
    rows = random_rows(seed, n=6, length=60)
    after: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    for row in rows:
        for place in range(4, 60):
            after[tuple(row[place - 4 : place])][row[place]] += 1
    alike = sum(counts.total() for counts in after.values() if len(counts) == 1 and counts.total() > 1)
    assert measured(rows).determined_by_ngrams == pytest.approx(alike / 360)


@pytest.mark.parametrize("seed", range(3))
def test_copy_distances(seed: int) -> None:
    rows = random_rows(seed, n=4, length=300, symbols=40)
    found = measured(rows, 40)
    shares = Counter[str]()
    new = 0
    for row in rows:
        for place, token in enumerate(row):
            if token not in row[:place]:
                new += 1
                continue
            distance = row[:place][::-1].index(token) + 1
            upper = 1
            while distance > upper:
                upper *= 2
            shares[str(upper) if upper <= 2 else f"{upper // 2 + 1}-{upper}"] += 1
    assert found.new == pytest.approx(new / 1200)
    by_interval = {interval: share for interval, share in found.plain()["copies"].items() if share}
    assert by_interval == pytest.approx({interval: count / 1200 for interval, count in shares.items()})
    assert sum(found.copies) + found.new == pytest.approx(1)


def test_biases_warn_of_too_few_tokens() -> None:
    """Of independent symbols every context leaves the same entropy: an estimate without a warning is near it."""
    rng = np.random.Generator(np.random.PCG64(0))
    tokens = rng.integers(0, 16, (200, 256), np.uint16)
    found = measure(Samples(tokens, np.ones(tokens.shape, bool)), 16)
    believed = [bias <= BIAS for bias in found.biases]
    assert believed == [True, True, True, False, False]
    for bits, bias, believe in zip(found.entropies, found.biases, believed, strict=True):
        assert (abs(bits + bias - 4) < 0.01) is believe


def test_limits() -> None:
    constant = measured([[3] * 5000] * 4)
    assert constant.entropies == (0.0,) * 5
    assert constant.used == 1
    assert constant.copies[0] == 4999 / 5000
    assert constant.determined_by_ngrams == 4996 / 5000
    assert constant.gzip_ratio < 0.01
    far = measured([[1, *[0] * 3000, 1]])
    assert far.copies[-1] == pytest.approx(1 / 3002)
    assert far.intervals()[-1] == "over 2048"
    single = measured([[4], [5]])
    assert single.entropies == (1.0,)
    assert single.new == 1
    uniform = measure(
        Samples(np.random.Generator(np.random.PCG64(0)).integers(0, 256, (64, 1024), np.uint16), np.ones(1)), 256
    )
    assert 0.99 < uniform.gzip_ratio < 1.01
    assert 7.99 < uniform.entropies[0] <= 8


def test_statistics_know_the_order_of_a_markov_chain() -> None:
    """Bits fall until the context is as long as the order, and stay."""
    task = parse_tasks("markov:order=2,symbols=5,branches=2,per_chain=1024,length=256")
    found = measure(task.sample(np.random.Generator(np.random.PCG64(0)), 1024), task.vocab_size)
    assert found.entropies[0] > found.entropies[2] + 0.2
    assert found.entropies[1] > found.entropies[2] + 0.1
    assert found.entropies[2] == pytest.approx(found.entropies[3], abs=0.01)


@pytest.mark.parametrize("name", [name for name, cls in tasks().items() if cls.targets_determined])
def test_determined_targets_are_a_function_of_the_past(name: str) -> None:
    """Two samples that agree up to a target agree on it."""
    shortest: dict[str, dict[str, object]] = {
        "addition": {"digits": 1},
        "reversed-addition": {"digits": 1},
        "multiplication": {"digits": 1},
        "modular": {"modulus": 5},
        "eca": {"width": 4, "steps": 4},
        "life": {"height": 3, "width": 3, "steps": 2},
        "haystack": {"pairs": 2, "vocab": 8},
        "sorting": {"items": 3, "symbols": 4},
        "mqar": {"pairs": 1, "length": 6, "vocab": 6},
        "stack": {"inputs": 5, "symbols": 4},
    }
    options = shortest.get(name, {"inputs": 4, "symbols": 4} if hasattr(tasks()[name], "inputs") else {})
    task = build_task(name, options, preset="small")
    samples = task.sample(np.random.Generator(np.random.PCG64(1)), 2000)
    known = task.determined(samples)
    assert known is not None
    assert known.any()
    answers: dict[tuple[int, ...], int] = {}
    for tokens, marks in zip(samples.tokens.tolist(), known.tolist(), strict=True):
        for place in np.flatnonzero(marks).tolist():
            assert answers.setdefault(tuple(tokens[:place]), tokens[place]) == tokens[place]


def test_other_tasks_do_not_say() -> None:
    assert of_task(small("dyck"), samples=4).determined is None
    assert of_task(parse_tasks("shuffle(set:small)"), samples=4).determined is None
    assert of_task(small("ww"), samples=4).determined == 0.5


def test_the_commands_print_them(proctool: Callable[..., Said], text: Path) -> None:
    said = proctool("generate", "set:small", "--stats", "--samples", 64, "--json")
    measured_task = json.loads(said.out)
    assert measured_task["sequences"] == 64
    assert len(measured_task["entropies"]) == 5
    assert 0 < measured_task["determined"] < 1
    shown = proctool("generate", "dyck", "--preset", "small", "--stats").out
    assert "5-gram entropy" in shown
    assert "lower bound" in shown
    assert not list(Path().glob("*.safetensors")), "nothing is written"
    corpus = proctool("corpus", "stats", "--corpus", text, "--context", 32, "--rows", 5, "--json")
    assert corpus.code == 0, corpus.err
    measured_corpus = json.loads(corpus.out)
    assert (measured_corpus["sequences"], measured_corpus["length"]) == (5, 32)
    assert measured_corpus["determined"] is None
    assert set(measured_corpus) == set(measured_task), "the same numbers for both"


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (("generate", "set:small", "--stats", "--samples", 0), "samples = 0"),
        (("corpus", "stats", "--rows", 0), "rows = 0"),
    ],
)
def test_nothing_to_measure_is_one_line(proctool: Callable[..., Said], command: tuple[object, ...], named: str) -> None:
    said = proctool(*command)
    assert said.code == 1
    assert named in said.line
