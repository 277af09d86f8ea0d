"""Elementary cellular automata."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from proctool.procedural.registry import Task, require, require_fits, task
from proctool.procedural.samples import Samples


@task("eca")
@dataclass(frozen=True)
class ElementaryAutomaton(Task):
    """Rows of a binary cellular automaton, each computed from the row above.

        tokens   0 0 1 0 1  0 1 1 1 1  1 1 0 0 1      (n, (steps + 1) * width / patch)
        targets  . . . . .  x x x x x  x x x x x

    The first row is drawn uniformly. A cell's next state is the bit of the rule's number (Wolfram's numbering) that
    its left neighbour, itself and its right neighbour spell; the row is a ring. With patch > 1, each token holds
    that many cells side by side, the first as the highest bit.

    Source: Rule 110 in Procedural Pretraining (arXiv 2601.21725), section 3, and arXiv 2505.22308.
    """

    rule: int = 110
    """Number of the rule, 0 to 255."""
    width: int = 32
    """Cells in a row."""
    steps: int = 31
    """Rows after the first."""
    patch: int = 1
    """Cells in a token; a divisor of the width."""

    presets: ClassVar = {"small": {"width": 16, "steps": 7}}
    targets_determined: ClassVar = True
    size_option: ClassVar = "steps"

    def __post_init__(self) -> None:
        require(0 <= self.rule <= 255, self, "rule", "must be from 0 to 255")
        require(self.width >= 1, self, "width", "must be at least 1")
        require(self.steps >= 1, self, "steps", "must be at least 1")
        require(
            1 <= self.patch <= 15, self, "patch", "must be from 1 to 15, because the vocabulary has 2^patch patches"
        )
        require(self.width % self.patch == 0, self, "patch", f"must divide the width, {self.width}")
        require_fits(self, length="steps", vocabulary="patch")

    @property
    def length(self) -> int:
        """All rows."""
        return (self.steps + 1) * self.width // self.patch

    @property
    def layout(self) -> dict[str, range]:
        """The patches, then padding."""
        end = 1 << self.patch
        return {"cells": range(end), "pad": range(end, end + 1)}

    @property
    def min_entropy_bits(self) -> float:
        """One bit per cell of the first row."""
        return float(self.width)

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw n samples."""
        # (steps + 1, width + 2, n): each row has a copy of its last cell in front and of its first cell behind.
        cells = np.empty((self.steps + 1, self.width + 2, n), np.uint8)
        cells[0, 1:-1] = rng.integers(0, 2, (self.width, n), dtype=np.uint16)
        for row, after in itertools.pairwise(cells):
            row[0], row[-1] = row[-2], row[1]
            spelt = row[:-2] << 2
            spelt |= row[1:-1] << 1
            spelt |= row[2:]
            np.right_shift(np.uint8(self.rule), spelt, out=after[1:-1])
            after[1:-1] &= 1
        patches = cells[:, 1:-1].reshape(self.steps + 1, self.width // self.patch, self.patch, n)
        tokens = np.zeros((self.steps + 1, self.width // self.patch, n), self.dtype)
        for place in range(self.patch):
            tokens <<= 1
            tokens |= patches[:, :, place]
        targets = np.ones((n, self.length), bool)
        targets[:, : self.width // self.patch] = False
        return Samples(np.ascontiguousarray(tokens.reshape(self.length, n).T), targets)
