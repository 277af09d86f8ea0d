"""Multi-query associative recall."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from proctool.procedural.draws import shuffled_rows
from proctool.procedural.registry import Task, require, require_fits, task
from proctool.procedural.samples import Samples


@task("mqar")
@dataclass(frozen=True)
class MultiQueryRecall(Task):
    """Recall at many places: key-value pairs, then each key again with its value.

        tokens   k3 v7 k1 v2 k9 v5 _ _ k1 v2 _ _ _ _ k9 v5 k3 v7      (n, length)
        targets  .  .  .  .  .  .  . . .  x  . . . . .  x  .  x

    Keys are distinct, values drawn uniformly with replacement. After the pairs come slots of two tokens; slot s = 1,
    2, ... is taken with weight s^(power - 1), without replacement, and the keys fill the taken slots in random order.
    Id 0 is blank, keys are 1..vocab/2-1, values vocab/2..vocab-1.

    Source: MQAR (Arora et al., arXiv 2312.04927). There the value is only a label; here it follows its key, because a
    decoder sees only one stream of tokens.
    """

    pairs: int = 16
    """Number of key-value pairs."""
    length: int = 256
    """Tokens per sample; must be even."""
    vocab: int = 8192
    """Vocabulary size: half keys, half values."""
    power: float = 0.01
    """Exponent of the gaps; smaller values put queries nearer."""

    presets: ClassVar = {"small": {"pairs": 4, "length": 64, "vocab": 128}}
    targets_determined: ClassVar = True
    size_option: ClassVar = "length"

    def __post_init__(self) -> None:
        require(1 <= self.pairs <= 1024, self, "pairs", "must be between 1 and 1024")
        require(self.length % 2 == 0, self, "length", "must be even: slots have two tokens")
        require(self.length >= 4 * self.pairs, self, "length", f"{self.pairs} pairs and queries need {4 * self.pairs}")
        require(self.vocab % 2 == 0, self, "vocab", "must be even: half keys, half values")
        require(self.vocab // 2 > self.pairs, self, "vocab", f"{self.pairs} pairs need at least {2 * self.pairs + 2}")
        require(0 < self.power <= 1, self, "power", "must be above 0 and at most 1")
        require_fits(self, length="length", vocabulary="vocab")

    @property
    def layout(self) -> dict[str, range]:
        """Blank, keys, values."""
        half = self.vocab // 2
        return {"blank": range(1), "key": range(1, half), "value": range(half, self.vocab)}

    @property
    def min_entropy_bits(self) -> float:
        """The entropy of the ordered keys and of the values."""
        keys = self.vocab // 2 - 1
        return self.pairs * math.log2(self.vocab // 2) + sum(math.log2(keys - taken) for taken in range(self.pairs))

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw n samples."""
        half, pairs = self.vocab // 2, self.pairs
        shown = np.empty((n, pairs, 2), self.dtype)
        shown[:, :, 0] = distinct(rng, n, pairs, half - 1) + 1
        shown[:, :, 1] = rng.integers(half, self.vocab, (n, pairs), dtype=self.dtype)
        slots = self.length // 2 - pairs
        # The smallest exponential times with these rates are a weighted draw without replacement.
        times = rng.standard_exponential((n, slots)) * np.arange(1, slots + 1) ** (1 - self.power)
        # Sorted, because numpy does not define the order within a partition.
        places = pairs + np.sort(times.argpartition(pairs - 1, axis=1)[:, :pairs], axis=1)
        places = shuffled_rows(rng, places, self.length).astype(np.intp)
        tokens = np.zeros((n, self.length // 2, 2), self.dtype)
        targets = np.zeros(tokens.shape, bool)
        tokens[:, :pairs] = shown
        rows = np.arange(n)[:, None]
        tokens[rows, places] = shown
        targets[rows, places, 1] = True
        return Samples(tokens.reshape(n, -1), targets.reshape(n, -1))


def distinct(rng: np.random.Generator, n: int, count: int, below: int) -> NDArray[np.uint64]:
    """`count` distinct whole numbers less than `below` in random order, in each of n rows. (n, count)."""
    # Floyd's algorithm: draw from 0..top; if the draw is not new, take top, which is new.
    kept = np.empty((count, n), np.int64)
    for index, top in enumerate(range(below - count, below)):
        drawn = rng.integers(0, top, n, endpoint=True)
        seen = (kept[:index] == drawn).any(axis=0)
        kept[index] = np.where(seen, top, drawn)
    return shuffled_rows(rng, kept.T, below)
