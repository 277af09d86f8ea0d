"""Strings of probabilistic context-free grammars drawn at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from proctool.errors import OptionError
from proctool.procedural.draws import Tokens, after_the_first
from proctool.procedural.registry import Task, require, require_fits, task
from proctool.procedural.samples import Samples

_MOST_CANDIDATES = 2000


@task("pcfg")
@dataclass(frozen=True)
class RandomGrammar(Task):
    """Strings of a probabilistic context-free grammar that is drawn at random.

        tokens   c a a b | c b | a d a a | c      (n, length)
        targets  . x x x x x x x x x x x x x

    Grammars have the normal form of Greibach: a rule writes one symbol and then 0, 1 or 2 nonterminals. A nonterminal
    has `rules` rules. The first writes a symbol alone. Each other rule's two places for a nonterminal are filled with
    probability branching / 2 each. Symbols and nonterminals are drawn uniformly, the probabilities of a nonterminal's
    rules uniformly from the simplex. A grammar whose strings can grow forever is drawn again: one whose matrix of
    expected nonterminals (row expanded, column written) has a spectral radius of 1 or more.

    A string starts from nonterminal 0 and is expanded from the left; a separator follows it. If `depth` nonterminals
    are waiting, the first rule is used.

    Source: made for proctool; no paper publishes this distribution. Context-free grammars as training data for
    language models: Allen-Zhu and Li (arXiv 2305.13673), whose grammars have a fixed depth.
    """

    nonterminals: int = 8
    """Number of nonterminals of a grammar."""
    rules: int = 4
    """Number of rules per nonterminal."""
    symbols: int = 64
    """Size of the alphabet."""
    branching: float = 1.0
    """Average nonterminals that a rule writes, except the first rule."""
    depth: int = 32
    """Maximum number of nonterminals that wait to be expanded."""
    per_grammar: int = 1
    """Number of samples that share a grammar."""
    grammar: int | None = None
    """Number of one grammar for all samples (default: new grammars)."""
    length: int = 512
    """Tokens in one sample."""

    presets: ClassVar = {
        "small": {"nonterminals": 4, "rules": 3, "symbols": 12, "length": 96},
        "deep": {"nonterminals": 16, "rules": 6, "symbols": 256, "branching": 1.2, "depth": 128, "length": 2048},
    }
    size_option: ClassVar = "length"

    def __post_init__(self) -> None:
        require(1 <= self.nonterminals <= 256, self, "nonterminals", "must be between 1 and 256")
        require(2 <= self.rules <= 64, self, "rules", "must be between 2 and 64")
        require(self.symbols >= 1, self, "symbols", "must be at least 1")
        require(0 <= self.branching <= 2, self, "branching", "must be between 0 and 2")
        require(1 <= self.depth <= 4096, self, "depth", "must be between 1 and 4096")
        require(1 <= self.per_grammar <= 1024, self, "per_grammar", "must be between 1 and 1024")
        require(self.grammar is None or self.grammar >= 0, self, "grammar", "must be at least 0")
        require(self.length >= 2, self, "length", "must be at least 2")
        require_fits(self, length="length", vocabulary="symbols")

    @property
    def layout(self) -> dict[str, range]:
        """The symbols, the separator, padding."""
        end = self.symbols
        return {"symbol": range(end), "separator": range(end, end + 1), "pad": range(end + 1, end + 2)}

    @property
    def min_entropy_bits(self) -> float:
        """No bound is known, so splits are separated by content."""
        return 0.0

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw n samples."""
        grammars, of = self.shared(rng, n)
        # A nonterminal is identified by its index over all grammars. One more, at the bottom of each stack, writes the
        # separator, then itself and the start again.
        size = self.nonterminals + 1
        first = of * size
        width = self.depth + 3
        stack = np.zeros(n * width, np.intp)
        bottom = np.arange(0, n * width, width)
        stack[bottom] = first + self.nonterminals
        stack[bottom + 1] = first
        place = bottom + 1
        full = bottom + self.depth + 1
        symbol, left, right, grows = grammars.tables(self)
        sums = grammars.sums()
        tokens = np.empty((self.length, n), self.dtype)
        chances = rng.random((self.length, n), dtype=np.float32)
        for row, chance in zip(tokens, chances, strict=True):
            top = stack.take(place)
            rule = np.count_nonzero(sums.take(top, axis=1) <= chance, axis=0)
            rule[place + 1 >= full] = 0
            rule += top * self.rules
            symbol.take(rule, out=row, mode="clip")
            stack[place] = right.take(rule)
            stack[place + 1] = left.take(rule)
            place += grows.take(rule)
        return Samples(np.ascontiguousarray(tokens.T), after_the_first(n, self.length))

    def shared(self, rng: np.random.Generator, n: int) -> tuple[Grammars, NDArray[np.intp]]:
        """The grammars of n samples, and the index of each sample's grammar. Raises OptionError."""
        if self.grammar is not None:
            numbered = np.random.Generator(np.random.PCG64(self.grammar))
            return self.grammars(numbered, 1), np.zeros(n, np.intp)
        count = -(-n // self.per_grammar)
        return self.grammars(rng, count), np.arange(n) // self.per_grammar

    def grammars(self, rng: np.random.Generator, count: int) -> Grammars:
        """Draw `count` grammars whose strings end. Raises OptionError if such grammars are too rare."""
        kept: list[Grammars] = []
        found = drawn = 0
        while found < count:
            candidates = draw_grammars(rng, self, count - found)
            kept.append(candidates.chosen(candidates.growth() < 1))
            found += len(kept[-1])
            drawn += len(candidates)
            if drawn >= _MOST_CANDIDATES and found < drawn / 100:
                raise OptionError(
                    f"{self.name}: branching = {self.branching}: {found} of {drawn} grammars have strings that end; "
                    "lower branching"
                )
        return Grammars(*(np.concatenate(parts) for parts in zip(*(each.parts for each in kept), strict=True)))


@dataclass(frozen=True)
class Grammars:
    """Several grammars."""

    symbols: NDArray[np.intp]
    """The symbol that each rule writes. (grammars, nonterminals, rules)"""
    children: NDArray[np.intp]
    """The nonterminals after the symbol, from the left, -1 for none. (grammars, nonterminals, rules, 2)"""
    chances: NDArray[np.float64]
    """Probability of each rule. (grammars, nonterminals, rules)"""

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def parts(self) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
        """All of it."""
        return self.symbols, self.children, self.chances

    def chosen(self, which: NDArray[np.bool_]) -> Grammars:
        """The marked grammars. marked (grammars,)."""
        return Grammars(self.symbols[which], self.children[which], self.chances[which])

    def growth(self) -> NDArray[np.float64]:
        """The spectral radius of the matrix of expected nonterminals; below 1, strings have a finite average length."""
        count, size, _ = self.symbols.shape
        present = self.children[..., None] == np.arange(size)  # (grammars, nonterminals, rules, 2, nonterminals)
        expected = np.einsum("gnr,gnrm->gnm", self.chances, present.sum(axis=3))
        radius: NDArray[np.float64] = np.abs(np.linalg.eigvals(expected)).max(axis=1).reshape(count)
        return radius

    def tables(self, task: RandomGrammar) -> tuple[Tokens, NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
        """For each rule: the symbol, the nonterminal to expand first, the next one, and the growth of the stack.

        The bottom nonterminal is the last of each grammar. (grammars * (nonterminals + 1) * rules,) each.
        """
        count, size, rules = self.symbols.shape
        base = (np.arange(count) * (size + 1))[:, None, None]
        shape = (count, size + 1, rules)
        symbol: Tokens = np.full(shape, task.symbols, task.dtype)
        symbol[:, :-1] = self.symbols
        left, right, grows = np.empty(shape, np.intp), np.empty(shape, np.intp), np.empty(shape, np.intp)
        written = np.count_nonzero(self.children >= 0, axis=3)
        grows[:, :-1] = written - 1
        # One child replaces the expanded nonterminal; of two children, the first is above the second.
        one = written == 1
        right[:, :-1] = base + np.maximum(np.where(one, self.children[..., 0], self.children[..., 1]), 0)
        left[:, :-1] = base + np.maximum(self.children[..., 0], 0)
        right[:, -1:], left[:, -1:], grows[:, -1:] = base + size, base, 1
        return symbol.ravel(), left.ravel(), right.ravel(), grows.ravel()

    def sums(self) -> NDArray[np.float32]:
        """Cumulative probabilities of the rules without the last. (rules - 1, grammars * (nonterminals + 1))."""
        count, size, rules = self.symbols.shape
        ends = np.zeros((count, size + 1, rules - 1), np.float32)
        ends[:, :-1] = np.cumsum(self.chances, axis=2)[:, :, :-1]
        return np.ascontiguousarray(ends.reshape(-1, rules - 1).T)


def draw_grammars(rng: np.random.Generator, task: RandomGrammar, count: int) -> Grammars:
    """Draw random grammars, including those whose strings may not end."""
    shape = (count, task.nonterminals, task.rules)
    symbols = rng.integers(0, task.symbols, shape)
    children = rng.integers(0, task.nonterminals, (*shape, 2))
    children[rng.random(children.shape) >= task.branching / 2] = -1
    children[:, :, 0] = -1
    swapped = children[..., 0] < 0
    children[swapped] = children[swapped][:, ::-1]
    chances = rng.standard_exponential(shape)
    chances /= chances.sum(axis=2, keepdims=True)
    return Grammars(symbols.astype(np.intp), children.astype(np.intp), chances)
