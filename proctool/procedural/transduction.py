"""Transductions of one input: identity, reverse, duplicate, sort, set, delete."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from proctool.procedural.draws import Mask, Tokens, packed
from proctool.procedural.registry import Task, require, require_fits, task
from proctool.procedural.samples import Samples


@dataclass(frozen=True)
class Transduction(Task):
    """`input SEP output PAD...`, the loss on the output only.

    Symbols 1..symbols-1 are drawn uniformly with replacement; 0 is kept for POP, SEP is symbols, PAD symbols + 1.
    """

    inputs: int = 64
    """Number of input symbols."""
    symbols: int = 100
    """Size of the alphabet, including POP (0); 1..symbols-1 are drawn."""

    presets: ClassVar = {"small": {"inputs": 20, "symbols": 21}}
    targets_determined: ClassVar = True
    size_option: ClassVar = "inputs"

    def __post_init__(self) -> None:
        require(self.inputs >= 1, self, "inputs", "must be at least 1")
        require(self.symbols >= 2, self, "symbols", "must be at least 2: POP and one to draw")
        require_fits(self, length="inputs", vocabulary="symbols")

    @property
    def length(self) -> int:
        """The input, a separator, and an output as long as the input."""
        return 2 * self.inputs + 1

    @property
    def layout(self) -> dict[str, range]:
        """POP, the symbols, the separator, padding."""
        return {
            "pop": range(1),
            "symbol": range(1, self.symbols),
            "separator": range(self.symbols, self.symbols + 1),
            "pad": range(self.symbols + 1, self.symbols + 2),
        }

    @property
    def min_entropy_bits(self) -> float:
        """The entropy of the input."""
        return self.inputs * math.log2(self.symbols - 1)

    def draw(self, rng: np.random.Generator, n: int, count: int) -> Tokens:
        """Random input symbols. (n, count)."""
        return rng.integers(1, self.symbols, (n, count), dtype=self.dtype)

    def written(self, *prompt: Tokens, output: Tokens, kept: Mask | None = None) -> Samples:
        """`prompt SEP prompt SEP output PAD...`, each (n, some), with those symbols of `output` that are `kept`."""
        n, widest = output.shape
        tokens = np.empty((n, self.length), self.dtype)
        targets = np.zeros(tokens.shape, bool)
        end = 0
        for part in prompt:
            start, end = end, end + part.shape[1] + 1
            tokens[:, start : end - 1] = part
            tokens[:, end - 1] = self.symbols
        answer = slice(end, end + widest)
        if kept is None:
            tokens[:, answer] = output
            targets[:, answer] = True
        else:
            tokens[:, answer], targets[:, answer] = packed(output, kept, self.symbols + 1)
        tokens[:, answer.stop :] = self.symbols + 1
        return Samples(tokens, targets)


class OfOneInput(Transduction):
    """A transduction of one input with `inputs` symbols."""

    @abstractmethod
    def transduce(self, x: Tokens) -> tuple[Tokens, Mask | None]:
        """The output of each row, and which of its symbols are kept (None: all). (n, inputs) -> (n, inputs) each."""

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw n samples."""
        x = self.draw(rng, n, self.inputs)
        output, kept = self.transduce(x)
        return self.written(x, output=output, kept=kept)


@task("identity")
@dataclass(frozen=True)
class Identity(OfOneInput):
    """The input again.

        tokens   7 3 7 9 | 7 3 7 9      (n, 2 * inputs + 1)
        targets  . . . . . x x x x

    Source: Procedural Pretraining (arXiv 2601.21725), section 3.
    """

    def transduce(self, x: Tokens) -> tuple[Tokens, Mask | None]:
        """The input."""
        return x, None


@task("reverse")
@dataclass(frozen=True)
class Reverse(OfOneInput):
    """The input backwards.

        tokens   7 3 7 9 | 9 7 3 7      (n, 2 * inputs + 1)
        targets  . . . . . x x x x

    Source: Procedural Pretraining (arXiv 2601.21725), section 3.
    """

    def transduce(self, x: Tokens) -> tuple[Tokens, Mask | None]:
        """The reversed input."""
        return x[:, ::-1], None


@task("duplicate")
@dataclass(frozen=True)
class Duplicate(Transduction):
    """The input twice.

        tokens   7 3 9 | 7 3 9 7 3 9      (n, 3 * inputs + 1)
        targets  . . . . x x x x x x

    Source: after the synthetic tasks of Wu, Li and Liang (arXiv 2206.10139).
    """

    @property
    def length(self) -> int:
        """The input, a separator, the input twice."""
        return 3 * self.inputs + 1

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw n samples."""
        x = self.draw(rng, n, self.inputs)
        return self.written(x, output=np.concatenate([x, x], axis=1))


@task("sort")
@dataclass(frozen=True)
class Sort(OfOneInput):
    """The input in ascending order, duplicates kept.

        tokens   7 3 7 9 | 3 7 7 9      (n, 2 * inputs + 1)
        targets  . . . . . x x x x

    Source: Procedural Pretraining (arXiv 2601.21725), section 3.
    """

    def transduce(self, x: Tokens) -> tuple[Tokens, Mask | None]:
        """The input sorted."""
        return np.sort(x, axis=1), None


def first_appearances(x: Tokens, symbols: int) -> Mask:
    """Where a symbol appears for the first time in its row. x (n, length), below `symbols`, -> (n, length)."""
    n = len(x)
    unseen = np.ones(n * symbols, bool)
    cells = x.T + np.arange(0, n * symbols, symbols)  # (length, n)
    first = np.empty(cells.shape, bool)
    # Position by position, because numpy does not define the order of repeats in one indexed assignment.
    for step, cell in enumerate(cells):
        first[step] = unseen.take(cell)
        unseen[cell] = False
    return np.ascontiguousarray(first.T)


@task("set")
@dataclass(frozen=True)
class Set(OfOneInput):
    """Distinct symbols in order of first appearance.

        tokens   7 3 7 9 | 7 3 9 _      (n, 2 * inputs + 1)
        targets  . . . . . x x x .

    Source: Procedural Pretraining (arXiv 2601.21725), section 3.
    """

    def transduce(self, x: Tokens) -> tuple[Tokens, Mask | None]:
        """The input without repeats."""
        return x, first_appearances(x, self.symbols)


@task("delete")
@dataclass(frozen=True)
class Delete(Transduction):
    """The input less the first occurrence of one symbol.

        tokens   7 3 7 9 | 7 | 3 7 9 _      (n, 2 * inputs + 3)
        targets  . . . . . . . x x x .

    The symbol to delete is drawn like the others. With the published options it is absent from about half of the
    samples, and then nothing is deleted.

    Source: Procedural Pretraining (arXiv 2601.21725), section 3.
    """

    @property
    def length(self) -> int:
        """The input, a separator, the symbol, a separator, and an output as long as the input."""
        return 2 * self.inputs + 3

    @property
    def min_entropy_bits(self) -> float:
        """The entropy of the input and of the symbol to delete."""
        return (self.inputs + 1) * math.log2(self.symbols - 1)

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw n samples."""
        x, deleted = self.draw(rng, n, self.inputs), self.draw(rng, n, 1)
        found = x == deleted
        rows = np.flatnonzero(found.any(axis=1))
        kept = np.ones(x.shape, bool)
        kept[rows, found[rows].argmax(axis=1)] = False
        return self.written(x, deleted, output=x, kept=kept)
