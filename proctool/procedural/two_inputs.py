"""Transductions of two inputs: union, intersect, difference."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from proctool.procedural.draws import Mask, Tokens
from proctool.procedural.registry import require, task
from proctool.procedural.samples import Samples
from proctool.procedural.transduction import Transduction, first_appearances


@dataclass(frozen=True)
class OfTwoInputs(Transduction):
    """`a SEP b SEP output PAD...`: an output of distinct symbols in order of first appearance in a, then b."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.inputs % 2 == 0, self, "inputs", "must be even: half of them for each of the two inputs")

    @property
    def length(self) -> int:
        """Both inputs, two separators, and an output as long as both inputs."""
        return 2 * self.inputs + 2

    @abstractmethod
    def kept(self, a: Tokens, b: Tokens) -> Mask:
        """Which symbols of a, or of a and then b, are in the output. (n, inputs / 2) each -> (n, that or inputs)."""

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw n samples."""
        both = self.draw(rng, n, self.inputs)
        half = self.inputs // 2
        a, b = both[:, :half], both[:, half:]
        kept = self.kept(a, b)
        return self.written(a, b, output=both[:, : kept.shape[1]], kept=kept)


@task("union")
@dataclass(frozen=True)
class Union(OfTwoInputs):
    """Distinct symbols of two inputs, in order of first appearance.

        tokens   7 3 | 3 9 | 7 3 9 _      (n, 2 * inputs + 2)
        targets  . . . . . . x x x .

    The two inputs have inputs / 2 symbols each.

    Source: Procedural Pretraining (arXiv 2601.21725), section 3.
    """

    def kept(self, a: Tokens, b: Tokens) -> Mask:
        """First appearances in a, then b."""
        return first_appearances(np.concatenate([a, b], axis=1), self.symbols)


@dataclass(frozen=True)
class OfFirstInput(OfTwoInputs):
    """An output that takes symbols from a alone."""

    @property
    def length(self) -> int:
        """Both inputs, two separators, and an output as long as one of them."""
        return self.inputs + 2 + self.inputs // 2

    def shared(self, a: Tokens, b: Tokens) -> Mask:
        """Which symbols of a are in b. (n, inputs / 2)."""
        n = len(a)
        rows = np.arange(0, n * self.symbols, self.symbols)[:, None]
        in_b = np.zeros(n * self.symbols, bool)
        in_b[b + rows] = True
        return in_b.take(a + rows)


@task("intersect")
@dataclass(frozen=True)
class Intersect(OfFirstInput):
    """Distinct symbols of the first input that are also in the second, in their order.

        tokens   7 3 9 3 | 4 3 8 7 | 7 3 _ _      (n, 3 / 2 * inputs + 2)
        targets  . . . . . . . . . . x x . .

    The two inputs have inputs / 2 symbols each. If they share none, nothing is a target.

    Source: after the synthetic tasks of Wu, Li and Liang (arXiv 2206.10139).
    """

    def kept(self, a: Tokens, b: Tokens) -> Mask:
        """First appearances of what is shared."""
        return first_appearances(a, self.symbols) & self.shared(a, b)


@task("difference")
@dataclass(frozen=True)
class Difference(OfFirstInput):
    """Distinct symbols of the first input that are not in the second, in their order.

        tokens   7 3 9 3 | 4 9 8 6 | 7 3 _ _      (n, 3 / 2 * inputs + 2)
        targets  . . . . . . . . . . x x . .

    The two inputs have inputs / 2 symbols each. If the second has all of the first, nothing is a target.

    Source: after the synthetic tasks of Wu, Li and Liang (arXiv 2206.10139).
    """

    def kept(self, a: Tokens, b: Tokens) -> Mask:
        """First appearances of what is not shared."""
        return first_appearances(a, self.symbols) & ~self.shared(a, b)
