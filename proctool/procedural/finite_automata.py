"""Strings of random deterministic finite automata."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from proctool.procedural.draws import after_the_first, shuffled
from proctool.procedural.registry import Task, require, require_fits, task
from proctool.procedural.samples import Samples


@task("dfa")
@dataclass(frozen=True)
class FiniteAutomaton(Task):
    """Strings of one random automaton, a new one for each sample.

        tokens   c a a | c b | c a b a | c a ...      (n, length)
        targets  . x x x x x x x x x x x x x x

    An automaton has a start state and, in each state, `branches` distinct symbols drawn uniformly, each leading to a
    state drawn uniformly. A string starts in the start state and follows its symbols with equal probability; it goes
    on with probability 1 - 1 / mean, so strings have that many symbols on average. A separator follows each.

    Source: after RegBench (Akyurek et al., arXiv 2401.12973), whose automata have 4 to 12 states and 18 symbols.
    """

    states: int = 12
    """Number of states."""
    symbols: int = 18
    """Size of the alphabet."""
    branches: int = 3
    """Number of symbols that can follow each state."""
    mean: int = 20
    """Average number of symbols in a string."""
    length: int = 512
    """Tokens in one sample."""

    presets: ClassVar = {"small": {"states": 4, "symbols": 8, "branches": 2, "mean": 10, "length": 128}}
    size_option: ClassVar = "length"

    def __post_init__(self) -> None:
        require(1 <= self.states <= 1000, self, "states", "must be between 1 and 1000")
        require(self.symbols >= 1, self, "symbols", "must be at least 1")
        require(self.branches >= 1, self, "branches", "must be at least 1")
        require(self.branches <= self.symbols, self, "branches", f"cannot exceed the {self.symbols} symbols")
        require(self.states * self.symbols <= 1 << 16, self, "symbols", f"states * symbols must be at most {1 << 16}")
        require(self.mean >= 1, self, "mean", "must be at least 1")
        require(self.length >= 2, self, "length", "must be at least 2")
        require_fits(self, length="length", vocabulary="symbols")

    @property
    def layout(self) -> dict[str, range]:
        """The symbols, the separator, padding."""
        end = self.symbols
        return {"symbol": range(end), "separator": range(end, end + 1), "pad": range(end + 1, end + 2)}

    @property
    def min_entropy_bits(self) -> float:
        """A lower bound: any first symbol, then the likeliest continuation through a known automaton."""
        stop = 1 / self.mean
        branch = math.log2(self.branches)
        symbol = branch - math.log2(1 - stop) if stop < 1 else math.inf
        separated = branch - math.log2(stop)  # a separator and the symbol after it
        return math.log2(self.symbols) + (self.length - 2) * min(symbol, separated / 2)

    def automata(self, rng: np.random.Generator, n: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The symbol and the next state of each branch of each state. (n, states, branches) each."""
        symbols = shuffled(rng, n * self.states, self.symbols)[:, : self.branches]
        following = rng.integers(0, self.states, (n, self.states, self.branches))
        return symbols.astype(np.intp).reshape(following.shape), following

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw n samples."""
        drawn, following = self.automata(rng, n)
        # Each state has one more branch: the separator, which leads to the start. A state is identified by the index of
        # its first branch over all automata.
        width = self.branches + 1
        start = np.arange(0, n * self.states * width, self.states * width)
        symbols = np.full((n, self.states, width), self.symbols, self.dtype)
        symbols[:, :, :-1] = drawn
        states = np.zeros((n, self.states, width), np.intp)
        states[:, :, :-1] = following * width
        states += start[:, None, None]
        symbol_of, state_after = symbols.ravel(), states.ravel()

        stops = rng.random((self.length, n), dtype=np.float32) < 1 / self.mean
        taken = rng.integers(0, self.branches, (self.length, n), dtype=np.uint16)
        tokens = np.empty((self.length, n), self.dtype)
        state = start
        ends = np.ones(n, bool)
        for row, stop, branch in zip(tokens, stops, taken, strict=True):
            ends = stop & ~ends  # a string has at least one symbol
            chosen = state + np.maximum(branch, ends * np.uint16(self.branches))
            symbol_of.take(chosen, out=row, mode="clip")
            state = state_after.take(chosen)
        return Samples(np.ascontiguousarray(tokens.T), after_the_first(n, self.length))
