"""Markov chains drawn at random."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from proctool.procedural.draws import after_the_first
from proctool.procedural.registry import Task, require, require_fits, task
from proctool.procedural.samples import Samples

_MOST_ENTRIES = 1 << 24


@task("markov")
@dataclass(frozen=True)
class MarkovChain(Task):
    """A random Markov chain: each symbol depends on the `order` symbols before it.

        tokens   4 7 1 1 7 4 7 1      (n, length)
        targets  . x x x x x x x

    A chain is drawn for every `per_chain` samples. For each context of `order` symbols it has `branches` next symbols,
    drawn uniformly with replacement, and their probabilities, drawn uniformly from the simplex and rounded to
    multiples of 2^-16. The first `order` symbols of a sample are uniform. Order 0 draws all symbols independently.

    Source: the baseline for structured data, with only n-grams to learn (like the Markov baselines in the code of
    Bloem, arXiv 2506.20057).
    """

    order: int = 2
    """Number of symbols that the next symbol depends on."""
    symbols: int = 64
    """Size of the alphabet."""
    branches: int = 8
    """Number of possible next symbols per context."""
    per_chain: int = 128
    """Number of samples that share a chain."""
    length: int = 512
    """Tokens in one sample."""

    presets: ClassVar = {"small": {"symbols": 12, "branches": 3, "per_chain": 16, "length": 64}}
    size_option: ClassVar = "length"

    def __post_init__(self) -> None:
        require(0 <= self.order <= 16, self, "order", "must be between 0 and 16")
        require(self.symbols >= 2, self, "symbols", "must be at least 2")
        require(1 <= self.branches <= 4096, self, "branches", "must be between 1 and 4096")
        require(1 <= self.per_chain <= 1024, self, "per_chain", "must be between 1 and 1024")
        require(self.length >= 2, self, "length", "must be at least 2")
        require_fits(self, length="length", vocabulary="symbols")
        chains = -(-1024 // self.per_chain)
        entries = chains * self.symbols**self.order * self.branches
        reason = f"the tables of {chains} chains have {entries} entries; the limit is {_MOST_ENTRIES}"
        require(entries <= _MOST_ENTRIES, self, "order", reason)

    @property
    def layout(self) -> dict[str, range]:
        """The symbols, then padding."""
        return {"symbol": range(self.symbols), "pad": range(self.symbols, self.symbols + 1)}

    @property
    def min_entropy_bits(self) -> float:
        """A lower bound: the entropy of the first symbols."""
        return min(self.order, self.length) * math.log2(self.symbols)

    def chains(self, rng: np.random.Generator, count: int) -> tuple[NDArray[np.intp], NDArray[np.uint16]]:
        """The next symbols of each context, and their cumulative probabilities (0 to 2^16) without the last.

        (chains, contexts, branches) and (chains, contexts, branches - 1).
        """
        contexts = self.symbols**self.order
        following = rng.integers(0, self.symbols, (count, contexts, self.branches))
        chances = rng.standard_exponential((count, contexts, self.branches))
        ends = np.cumsum(chances, axis=2)
        ends = np.floor(ends[..., :-1] / ends[..., -1:] * (1 << 16)).clip(0, (1 << 16) - 1)
        return following, ends.astype(np.uint16)

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw n samples."""
        following, ends = self.chains(rng, -(-n // self.per_chain))
        contexts = following.shape[1]
        symbol_of = following.ravel()
        end_of = np.ascontiguousarray(ends.reshape(len(symbol_of) // self.branches, self.branches - 1).T)
        chain = np.arange(n) // self.per_chain * contexts
        tokens = np.empty((self.length, n), self.dtype)
        started = min(self.order, self.length)
        tokens[:started] = rng.integers(0, self.symbols, (started, n))
        context = np.zeros(n, np.intp)
        for row in tokens[:started]:
            context = context * self.symbols + row
        chances = rng.integers(0, 1 << 16, (self.length - started, n), dtype=np.uint16)
        for row, chance in zip(tokens[started:], chances, strict=True):
            at = chain + context
            branch = np.count_nonzero(end_of.take(at, axis=1) <= chance, axis=0)
            symbol = symbol_of.take(at * self.branches + branch)
            row[:] = symbol
            context *= self.symbols
            context += symbol
            context %= contexts
        return Samples(np.ascontiguousarray(tokens.T), after_the_first(n, self.length))
