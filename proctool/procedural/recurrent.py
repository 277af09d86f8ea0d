"""Sequences of recurrent networks drawn at random."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from proctool.errors import OptionError
from proctool.procedural.draws import after_the_first
from proctool.procedural.registry import Task, require, require_fits, task
from proctool.procedural.samples import Samples

Floats = NDArray[np.floating[Any]]

# Weights and states are multiples of these. So all sums of products are exact, and the tokens are the same bits in
# whatever order a platform's BLAS adds.
_WEIGHT, _STATE = 2.0**-10, 2.0**-8
_STATE_LIMIT = 4.0  # limit of the unbounded cells, linear and relu
_GATES = {"linear": 1, "relu": 1, "rnn": 1, "gru": 3, "lstm": 4}
_TESTED = (8, 128)  # sequences and tokens of the test of a network
_DEAD = 0.9  # share of one symbol
_EXPLODED = 0.5  # share of states at their limit
_MOST_CANDIDATES = 1000


@task("rnn")
@dataclass(frozen=True)
class RecurrentNetwork(Task):
    """Sequences emitted by a random recurrent network, with each symbol fed back as input.

        tokens   4 7 7 1 0 3 7 2      (n, length)
        targets  . x x x x x x x

    A network is drawn for every `per_network` samples. Its weights are normal with mean 0: input weights of variance
    1 / symbols, recurrent weights of variance 1 / hidden, scaled so that each gate's matrix has the spectral radius
    `radius`, and output weights of variance 1 / hidden; biases are 0. The state starts at 0 and the first input is
    drawn uniformly. A symbol is drawn from the softmax of the logits / temperature. Cells: `linear` (the state is the
    sum of the two products), `relu` and `rnn` (with ReLU or tanh on it), `gru` and `lstm`.

    States are rounded to multiples of 2^-8 and weights to multiples of 2^-10; states of linear and relu cells are cut
    off at 4 either way. A network is drawn again if, in 8 sequences of up to 128 tokens, one symbol takes 90 % of the
    places (it dies) or half of the final states are at the limit (it explodes).

    Source: Synthetic Pre-Pre-Training (arXiv 2605.10129) and its code, which draws 1000 linear networks of 64 units,
    radius 0.9 and temperature 1, and 100 sequences of 2048 tokens from each, over a tokenizer's whole vocabulary; its
    logits are then almost equal, as the input weights' variance is 1 / symbols. Random LSTMs as in Bloem (arXiv
    2506.20057), without the second input that is drawn at random there.
    """

    cell: Literal["linear", "relu", "rnn", "gru", "lstm"] = "linear"
    """Type of cell; rnn is the tanh cell."""
    hidden: int = 64
    """Units of the state."""
    symbols: int = 64
    """Size of the alphabet."""
    temperature: float = 1.0
    """Temperature of the softmax that draws a symbol; lower is more regular."""
    radius: float = 0.9
    """Spectral radius of the recurrent weights."""
    per_network: int = 128
    """Number of samples that share a network."""
    length: int = 2048
    """Tokens in one sample."""

    presets: ClassVar = {
        "small": {"cell": "rnn", "hidden": 8, "symbols": 8, "temperature": 0.2, "per_network": 16, "length": 64},
        "lstm": {"cell": "lstm", "symbols": 256, "temperature": 0.05, "length": 512},
    }
    size_option: ClassVar = "length"

    def __post_init__(self) -> None:
        require(1 <= self.hidden <= 1024, self, "hidden", "must be between 1 and 1024")
        require(2 <= self.symbols <= 4096, self, "symbols", "must be between 2 and 4096")
        require(1e-4 <= self.temperature <= 1e4, self, "temperature", "must be between 0.0001 and 10000")
        require(0 < self.radius <= 100, self, "radius", "must be above 0 and at most 100")
        require(1 <= self.per_network <= 1024, self, "per_network", "must be between 1 and 1024")
        require(self.length >= 2, self, "length", "must be at least 2")
        require_fits(self, length="length", vocabulary="symbols")

    @property
    def layout(self) -> dict[str, range]:
        """The symbols, then padding."""
        return {"symbol": range(self.symbols), "pad": range(self.symbols, self.symbols + 1)}

    @property
    def min_entropy_bits(self) -> float:
        """No bound is known, so splits are separated by content."""
        return 0.0

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw n samples."""
        each = min(self.per_network, n)
        networks = self.networks(rng, -(-n // each))
        tokens = self.run(rng, networks, each, self.length)[0]
        tokens = tokens.reshape(self.length, -1)[:, :n]
        return Samples(np.ascontiguousarray(tokens.T), after_the_first(n, self.length))

    def networks(self, rng: np.random.Generator, count: int) -> Networks:
        """Draw `count` networks that neither die nor explode. Raises OptionError if they are too rare."""
        kept: list[Networks] = []
        found = drawn = 0
        dead = exploded = 0
        while found < count:
            candidates = draw_networks(rng, self, count - found)
            shown, state = self.run(rng, candidates, _TESTED[0], min(_TESTED[1], self.length))
            dies = _commonest(shown, self.symbols) >= _DEAD
            at_limit = (np.abs(state) >= _STATE_LIMIT).mean(axis=(1, 2)) >= _EXPLODED
            kept.append(candidates.chosen(~(dies | at_limit)))
            found += len(kept[-1])
            drawn += len(candidates)
            dead += int(np.count_nonzero(dies & ~at_limit))
            exploded += int(np.count_nonzero(at_limit))
            if drawn >= _MOST_CANDIDATES and found < drawn / 100:
                option = "radius" if exploded > dead else "temperature"
                change = "lower radius" if exploded > dead else "raise temperature"
                raise OptionError(
                    f"{self.name}: {option} = {getattr(self, option)}: {found} of {drawn} networks pass "
                    f"({dead} die, {exploded} explode); {change}"
                )
        return Networks(*(np.concatenate(parts) for parts in zip(*(each.weights for each in kept), strict=True)))

    def run(
        self, rng: np.random.Generator, networks: Networks, count: int, steps: int
    ) -> tuple[NDArray[np.unsignedinteger[Any]], Floats]:
        """The output of each network in `count` sequences, and its last states.

        Tokens (steps, networks, count), states (networks, count, hidden).
        """
        into, recurrent, out = networks.exact(self)
        many = len(networks)
        rows = np.ascontiguousarray(into.reshape(many * self.symbols, -1))
        first = np.arange(0, many * self.symbols, self.symbols)[:, None]
        noise = _gumbel() * into.dtype.type(self.temperature)
        state = np.zeros((2 if self.cell == "lstm" else 1, many, count, self.hidden), into.dtype)
        token = rng.integers(0, self.symbols, (many, count))
        tokens = np.empty((steps, many, count), self.dtype)
        for step in range(steps):
            self._advance(state, rows.take(first + token, axis=0), recurrent)
            scores = state[0] @ out
            scores += noise.take(rng.integers(0, 1 << 16, scores.shape, dtype=np.uint16), mode="clip")
            token = scores.argmax(axis=2)
            tokens[step] = token
        return tokens, state[0]

    def _advance(self, state: Floats, given: Floats, recurrent: Floats) -> None:
        """One step of the cell. state (1 or 2, networks, count, hidden), given (networks, count, gates * hidden)."""
        h, units = state[0], self.hidden
        if self.cell in ("linear", "relu", "rnn"):
            given += h @ recurrent
            if self.cell == "rnn":
                h[:] = _looked_up(given, _tanh(), given.dtype)
                return
            np.clip(_rounded(given), 0 if self.cell == "relu" else -_STATE_LIMIT, _STATE_LIMIT, out=h)
            return
        fed = h @ recurrent
        if self.cell == "gru":
            gates = _looked_up(given[..., : 2 * units] + fed[..., : 2 * units], _sigmoid(), given.dtype)
            reset, keep = gates[..., :units], gates[..., units:]
            new = _looked_up(given[..., 2 * units :] + _rounded(reset * fed[..., 2 * units :]), _tanh(), given.dtype)
            h[:] = _rounded(new + keep * (h - new))
            return
        given += fed
        gates = _looked_up(given[..., : 3 * units], _sigmoid(), given.dtype)
        new = _looked_up(given[..., 3 * units :], _tanh(), given.dtype)
        enters, keeps, leaves = gates[..., :units], gates[..., units : 2 * units], gates[..., 2 * units :]
        memory = state[1]
        np.clip(_rounded(keeps * memory + enters * new), -16, 16, out=memory)
        h[:] = _rounded(leaves * _looked_up(memory, _tanh(), given.dtype))


@dataclass(frozen=True)
class Networks:
    """The weights of several networks."""

    into: Floats
    """Weights of the input symbol. (networks, symbols, gates * hidden)"""
    recurrent: Floats
    """Recurrent weights. (networks, hidden, gates * hidden)"""
    out: Floats
    """Output weights. (networks, hidden, symbols)"""

    def __len__(self) -> int:
        return len(self.into)

    @property
    def weights(self) -> tuple[Floats, Floats, Floats]:
        """All of them."""
        return self.into, self.recurrent, self.out

    def chosen(self, which: NDArray[np.bool_]) -> Networks:
        """The marked networks. marked (networks,)."""
        return Networks(*(part[which] for part in self.weights))

    def exact(self, task: RecurrentNetwork) -> tuple[Floats, Floats, Floats]:
        """The weights in float32 if all sums are exact, else in float64."""
        limit = _STATE_LIMIT if task.cell in ("linear", "relu") else 1.0
        sums = max(float(np.abs(part).sum(axis=1).max()) for part in (self.recurrent, self.out)) * limit
        largest = (sums + float(np.abs(self.into).max())) / (_WEIGHT * _STATE)
        dtype = np.float32 if largest < 1 << 24 else np.float64
        return self.into.astype(dtype), self.recurrent.astype(dtype), self.out.astype(dtype)


def draw_networks(rng: np.random.Generator, task: RecurrentNetwork, count: int) -> Networks:
    """Draw random networks, without testing them."""
    gates, hidden, symbols = _GATES[task.cell], task.hidden, task.symbols
    into = rng.standard_normal((count, symbols, gates * hidden)) / symbols**0.5
    recurrent = rng.standard_normal((count, gates, hidden, hidden))
    recurrent *= task.radius / np.abs(np.linalg.eigvals(recurrent)).max(axis=-1)[..., None, None]
    recurrent = recurrent.transpose(0, 2, 1, 3).reshape(count, hidden, gates * hidden)
    out = rng.standard_normal((count, hidden, symbols)) / hidden**0.5
    return Networks(*(np.round(part / _WEIGHT) * _WEIGHT for part in (into, recurrent, out)))


def _commonest(tokens: NDArray[np.unsignedinteger[Any]], symbols: int) -> NDArray[np.float64]:
    """The share of the most common symbol of each network. (steps, networks, count) -> (networks,)."""
    rows = tokens.swapaxes(0, 1).reshape(tokens.shape[1], -1).astype(np.intp)
    rows += np.arange(len(rows))[:, None] * symbols
    counts = np.bincount(rows.ravel(), minlength=len(rows) * symbols).reshape(len(rows), symbols)
    share: NDArray[np.float64] = counts.max(axis=1) / rows.shape[1]
    return share


def _rounded(values: Floats) -> Floats:
    """Round to the nearest multiple of a state's unit, in place."""
    values *= values.dtype.type(1 / _STATE)
    np.rint(values, out=values)
    values *= values.dtype.type(_STATE)
    return values


_TABLE_LIMIT = 8.0  # beyond this, tanh and the sigmoid change by less than a state's unit
_CELLS = int(_TABLE_LIMIT / _STATE)


def _looked_up(values: Floats, table: NDArray[np.float64], dtype: np.dtype[Any]) -> Floats:
    """Look up a function in its table, with argument and value rounded to a state's unit."""
    found: Floats = table.astype(dtype).take((np.rint(values * (1 / _STATE)) + _CELLS).astype(np.intp), mode="clip")
    return found


@functools.cache
def _tanh() -> NDArray[np.float64]:
    places = np.arange(-_CELLS, _CELLS + 1) * _STATE
    values: NDArray[np.float64] = np.round(np.tanh(places) / _STATE) * _STATE
    return values


@functools.cache
def _sigmoid() -> NDArray[np.float64]:
    places = np.arange(-_CELLS, _CELLS + 1) * _STATE
    values: NDArray[np.float64] = np.round(1 / (1 + np.exp(-places)) / _STATE) * _STATE
    return values


@functools.cache
def _gumbel() -> NDArray[np.float32]:
    """Quantiles of the standard Gumbel distribution; 16 random bits select one. (65536,)."""
    return (-np.log(-np.log((np.arange(1 << 16) + 0.5) / (1 << 16)))).astype(np.float32)
