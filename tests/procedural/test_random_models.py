"""Tasks whose samples follow a model that is drawn at random: the samples against the model, step by step."""

from __future__ import annotations

import math

import numpy as np
import pytest

from proctool.errors import OptionError
from proctool.procedural.grammars import Grammars, RandomGrammar
from proctool.procedural.markov import MarkovChain
from proctool.procedural.recurrent import RecurrentNetwork, draw_networks
from proctool.procedural.registry import parse_spec


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def parses(grammars: Grammars, which: int, tokens: list[int], separator: int, depth: int) -> bool:
    """Whether some leftmost derivation writes these strings, the last of which may be cut off."""
    symbols, children = grammars.symbols[which].tolist(), grammars.children[which].tolist()
    stacks: set[tuple[int, ...]] = {(0,)}
    for token in tokens:
        if token == separator:
            if () not in stacks:
                return False
            stacks = {(0,)}
            continue
        after = set()
        for stack in stacks - {()}:
            for rule in range(1 if len(stack) >= depth else len(symbols[0])):
                if symbols[stack[0]][rule] == token:
                    after.add((*(child for child in children[stack[0]][rule] if child >= 0), *stack[1:]))
        stacks = after
    return bool(stacks)


@pytest.mark.parametrize("spec", ["pcfg:small", "pcfg:small,depth=3,branching=1.4,per_grammar=4", "pcfg:grammar=5"])
def test_strings_parse_under_their_grammar(spec: str) -> None:
    task = parse_spec(spec)
    assert isinstance(task, RandomGrammar)
    tokens = task.sample(rng(3), 40).tokens.tolist()
    grammars, of = task.shared(rng(3), 40)
    assert (grammars.growth() < 1).all()
    for row, which in zip(tokens, of.tolist(), strict=True):
        assert parses(grammars, which, row, task.symbols, task.depth)
    if task.grammar is None:
        wrong = [
            parses(grammars, (which + 1) % len(grammars), row, task.symbols, task.depth)
            for row, which in zip(tokens, of.tolist(), strict=True)
        ]
        assert not any(wrong), "another grammar does not explain them"


def test_rules_are_taken_with_their_probabilities() -> None:
    task = RandomGrammar(grammar=11, symbols=60000, length=256)
    tokens = task.sample(rng(), 3000).tokens
    grammars, _ = task.shared(rng(), 1)
    starts = tokens[:, 1:][tokens[:, :-1] == task.symbols]
    for symbol, chance in zip(grammars.symbols[0, 0], grammars.chances[0, 0], strict=True):
        assert abs((starts == symbol).mean() - chance) < 5 * math.sqrt(chance / len(starts))


def test_strings_end_after_the_expected_number_of_symbols() -> None:
    task = RandomGrammar(grammar=2, depth=200, length=4096, nonterminals=3)
    tokens = task.sample(rng(), 200).tokens
    grammars, _ = task.shared(rng(), 1)
    present = grammars.children[0][..., None] == np.arange(3)
    expected = np.einsum("nr,nrcm->nm", grammars.chances[0], present)
    mean = np.linalg.solve(np.eye(3) - expected, np.ones(3))[0]
    assert abs(tokens.size / (tokens == task.symbols).sum() - 1 - mean) < 0.05 * mean


def test_grammars_that_never_end_are_refused() -> None:
    with pytest.raises(OptionError, match=r"branching = 2\.0: 0 of \d+ grammars have strings that end"):
        parse_spec("pcfg:branching=2.0,rules=64").sample(rng(), 100)


def test_markov_chains_follow_their_tables() -> None:
    task = MarkovChain(order=2, symbols=4, branches=3, per_chain=500, length=200)
    following, ends = task.chains(rng(4), 2)
    tokens = task.sample(rng(4), 1000).tokens.astype(int)
    for chain in range(2):
        rows = tokens[chain * 500 : (chain + 1) * 500]
        contexts = rows[:, :-2] * 4 + rows[:, 1:-1]
        for context in range(16):
            after = rows[:, 2:][contexts == context]
            edges = np.array([0, *ends[chain, context], 1 << 16]) / (1 << 16)
            expected = np.bincount(following[chain, context], np.diff(edges), minlength=4)
            found = np.bincount(after, minlength=4) / max(1, len(after))
            if len(after):
                assert (abs(found - expected) <= 5 * np.sqrt(expected / len(after)) + 1e-9).all()


CELLS = ("linear", "relu", "rnn", "gru", "lstm")


def rounded(value: float, unit: float = 2.0**-8) -> float:
    return round(value / unit) * unit


def squashed(name: str, value: float) -> float:
    """The function at a rounded argument that is cut off at 8, rounded."""
    place = min(8.0, max(-8.0, rounded(value)))
    return rounded(math.tanh(place) if name == "tanh" else 1 / (1 + math.exp(-place)))


def advanced(task: RecurrentNetwork, h: list[float], c: list[float], given: list[float], w: list[list[float]]) -> None:
    """The cell's equations, unit by unit, in place."""
    units = len(h)
    fed = [math.fsum(h[i] * w[i][j] for i in range(units)) for j in range(len(given))]
    total = [a + b for a, b in zip(given, fed, strict=True)]
    if task.cell == "linear":
        new = [min(4.0, max(-4.0, rounded(value))) for value in total]
    elif task.cell == "relu":
        new = [min(4.0, max(0.0, rounded(value))) for value in total]
    elif task.cell == "rnn":
        new = [squashed("tanh", value) for value in total]
    elif task.cell == "gru":
        new = []
        for unit in range(units):
            reset, keep = squashed("sigmoid", total[unit]), squashed("sigmoid", total[units + unit])
            proposed = squashed("tanh", given[2 * units + unit] + rounded(reset * fed[2 * units + unit]))
            new.append(rounded(proposed + keep * (h[unit] - proposed)))
    else:
        new = []
        for unit in range(units):
            enters, keeps, leaves = (squashed("sigmoid", total[gate * units + unit]) for gate in range(3))
            c[unit] = rounded(keeps * c[unit] + enters * squashed("tanh", total[3 * units + unit]))
            new.append(rounded(leaves * squashed("tanh", c[unit])))
    h[:] = new


@pytest.mark.parametrize("cell", CELLS)
def test_networks_follow_their_equations(cell: str) -> None:
    """At almost no temperature the likeliest symbol follows; the state ends as the equations say."""
    task = RecurrentNetwork(cell=cell, hidden=5, symbols=6, temperature=1e-4, radius=1.2, length=30)  # type: ignore[arg-type]
    networks = draw_networks(rng(8), task, 2)
    tokens, states = task.run(rng(9), networks, 3, 30)
    first = rng(9).integers(0, 6, (2, 3))
    for which in range(2):
        into, recurrent, out = (part[which].tolist() for part in networks.weights)
        for sequence in range(3):
            h, c, token = [0.0] * 5, [0.0] * 5, int(first[which, sequence])
            for step in range(30):
                advanced(task, h, c, into[token], recurrent)
                logits = [math.fsum(h[i] * out[i][s] for i in range(5)) for s in range(6)]
                token = int(tokens[step, which, sequence])
                assert logits[token] > max(logits) - 0.002
            assert h == states[which, sequence].tolist()


@pytest.mark.parametrize("cell", CELLS)
def test_sums_are_exact(cell: str) -> None:
    """In single precision as in double, so no order of additions can change a token."""
    task = RecurrentNetwork(cell=cell, hidden=24, symbols=20, temperature=0.1)  # type: ignore[arg-type]
    networks = draw_networks(rng(1), task, 3)
    exact = networks.exact(task)
    assert exact[0].dtype == np.float32
    assert all(np.array_equal(part * 1024, np.round(part * 1024)) for part in exact)
    states = rng(2).integers(-256, 257, (3, 50, 24)) / 256
    for weights in exact[1:]:
        assert np.array_equal(states.astype(np.float32) @ weights, states @ weights.astype(np.float64))


def test_symbols_are_drawn_from_the_softmax() -> None:
    task = RecurrentNetwork(hidden=4, symbols=5, temperature=0.7)
    networks = draw_networks(rng(5), task, 1)
    tokens, states = task.run(rng(6), networks, 60_000, 1)
    logits = states[0].astype(float) @ networks.out[0] / 0.7
    chances = np.exp(logits)
    chances /= chances.sum(axis=1, keepdims=True)
    found = np.bincount(tokens[0, 0], minlength=5) / 60_000
    assert (abs(found - chances.mean(axis=0)) < 5 * np.sqrt(chances.mean(axis=0) / 60_000)).all()


def test_networks_have_the_spectral_radius() -> None:
    task = RecurrentNetwork(cell="lstm", hidden=32, symbols=16, radius=0.7)
    networks = draw_networks(rng(2), task, 3)
    for weights in networks.recurrent:
        for gate in range(4):
            radius = np.abs(np.linalg.eigvals(weights[:, gate * 32 : (gate + 1) * 32])).max()
            assert abs(radius - 0.7) < 0.02
    assert abs(networks.into.std() * 4 - 1) < 0.05
    assert abs(networks.out.std() * math.sqrt(32) - 1) < 0.05


@pytest.mark.parametrize(
    ("spec", "named"),
    [("rnn:radius=5,hidden=8", "radius = 5.0: 0 of 1000 networks pass (0 die"), ("rnn:DEAD", "temperature = ")],
)
def test_networks_that_die_or_explode_are_refused(spec: str, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if spec == "rnn:DEAD":
        monkeypatch.setattr("proctool.procedural.recurrent._DEAD", 0.0)
        spec = "rnn:small"
    with pytest.raises(OptionError) as caught:
        parse_spec(spec).sample(rng(), 600)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
