"""Transductions that look one thing up: first, last, select, search, count, replace."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from proctool.procedural.draws import Mask, Tokens
from proctool.procedural.registry import require, task
from proctool.procedural.samples import Samples
from proctool.procedural.transduction import Transduction


class OneAnswer(Transduction):
    """`input SEP answer`: one token of the input."""

    @property
    def length(self) -> int:
        """The input, a separator, the answer."""
        return self.inputs + 2

    @abstractmethod
    def answer(self, x: Tokens) -> Tokens:
        """(n, inputs) -> (n, 1)."""

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw n samples."""
        x = self.draw(rng, n, self.inputs)
        return self.written(x, output=self.answer(x))


@task("first")
@dataclass(frozen=True)
class First(OneAnswer):
    """The first symbol of the input.

        tokens   7 3 9 | 7      (n, inputs + 2)
        targets  . . . . x

    Source: after the synthetic tasks of Wu, Li and Liang (arXiv 2206.10139).
    """

    def answer(self, x: Tokens) -> Tokens:
        """The first."""
        return x[:, :1]


@task("last")
@dataclass(frozen=True)
class Last(OneAnswer):
    """The last symbol of the input.

        tokens   7 3 9 | 9      (n, inputs + 2)
        targets  . . . . x

    Source: after the synthetic tasks of Wu, Li and Liang (arXiv 2206.10139).
    """

    def answer(self, x: Tokens) -> Tokens:
        """The last."""
        return x[:, -1:]


@dataclass(frozen=True)
class Numbered(Transduction):
    """`input SEP question SEP answer` with number tokens 0..inputs after the padding."""

    @property
    def length(self) -> int:
        """The input, the question and the answer, with two separators."""
        return self.inputs + 4

    @property
    def layout(self) -> dict[str, range]:
        """The layout of every transduction, then the numbers 0..inputs."""
        layout = super().layout
        end = layout["pad"].stop
        return layout | {"numeral": range(end, end + self.inputs + 1)}

    def number(self, value: np.ndarray[tuple[int], np.dtype[np.intp]]) -> Tokens:
        """The token of each number. (n,) -> (n, 1)."""
        return (value + self.layout["numeral"].start).astype(self.dtype)[:, None]

    def position(self, rng: np.random.Generator, n: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
        """A position in the input, drawn uniformly. (n,)."""
        return rng.integers(0, self.inputs, n)


class AboutSymbol(Numbered):
    """`input SEP symbol SEP number`: a question about a symbol of the input, at a position drawn uniformly."""

    @abstractmethod
    def answer(self, here: Mask) -> Tokens:
        """The token of a number, from where the symbol appears. (n, inputs) -> (n, 1)."""

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw n samples."""
        x, place = self.draw(rng, n, self.inputs), self.position(rng, n)
        symbol = x[np.arange(n), place][:, None]
        return self.written(x, symbol, output=self.answer(x == symbol))


@task("select")
@dataclass(frozen=True)
class Select(Numbered):
    """The symbol at a position, counted from 0.

        tokens   7 3 9 | #1 | 3      (n, inputs + 4)
        targets  . . . . .  . x

    Number tokens follow the padding: number i is symbols + 2 + i.

    Source: after the synthetic tasks of Wu, Li and Liang (arXiv 2206.10139).
    """

    @property
    def min_entropy_bits(self) -> float:
        """The entropy of the input and of the position."""
        return super().min_entropy_bits + math.log2(self.inputs)

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw n samples."""
        x, place = self.draw(rng, n, self.inputs), self.position(rng, n)
        return self.written(x, self.number(place), output=x[np.arange(n), place][:, None])


@task("search")
@dataclass(frozen=True)
class Search(AboutSymbol):
    """The position, counted from 0, where a symbol of the input appears first.

        tokens   7 3 9 3 | 3 | #1      (n, inputs + 4)
        targets  . . . . . . . x

    The symbol is the one at a uniformly drawn position. Number i is token symbols + 2 + i.

    Source: after the synthetic tasks of Wu, Li and Liang (arXiv 2206.10139).
    """

    def answer(self, here: Mask) -> Tokens:
        """The first position."""
        return self.number(here.argmax(axis=1))


@task("count")
@dataclass(frozen=True)
class Count(AboutSymbol):
    """How often a symbol of the input appears.

        tokens   7 3 9 3 | 3 | #2      (n, inputs + 4)
        targets  . . . . . . . x

    The symbol is the one at a uniformly drawn position. Number i is token symbols + 2 + i.

    Source: after the synthetic tasks of Wu, Li and Liang (arXiv 2206.10139).
    """

    def answer(self, here: Mask) -> Tokens:
        """The number of positions."""
        return self.number(np.count_nonzero(here, axis=1))


@task("replace")
@dataclass(frozen=True)
class Replace(Transduction):
    """The input with one symbol replaced by another wherever it appears.

        tokens   7 3 9 3 | 3 5 | 7 5 9 5      (n, 2 * inputs + 4)
        targets  . . . . . . . . x x x x

    The replaced symbol is the one at a uniformly drawn position; the new symbol is drawn from the alphabet.

    Source: after the synthetic tasks of Wu, Li and Liang (arXiv 2206.10139).
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.symbols >= 3, self, "symbols", "must be at least 3, to replace one by another")

    @property
    def length(self) -> int:
        """The input, the two symbols and the output, with two separators."""
        return 2 * self.inputs + 4

    @property
    def min_entropy_bits(self) -> float:
        """The entropy of the input and of the symbol that replaces."""
        return (self.inputs + 1) * math.log2(self.symbols - 1)

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw n samples."""
        x, by = self.draw(rng, n, self.inputs), self.draw(rng, n, 1)
        old = x[np.arange(n), rng.integers(0, self.inputs, n)][:, None]
        return self.written(x, np.concatenate([old, by], axis=1), output=np.where(x == old, by, x))
