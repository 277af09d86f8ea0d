"""Tasks used as diagnostics of algorithmic skill: haystack, sorting (and those in arithmetic.py)."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from proctool.procedural.draws import shuffled
from proctool.procedural.registry import Task, require, require_fits, task
from proctool.procedural.samples import Samples


@task("haystack")
@dataclass(frozen=True)
class Haystack(Task):
    """Recall: key-value pairs in random order, then a query for one key's value.

        tokens   k3 41 k9 17 k1 90 ?9 17 _ _      (n, 2 * pairs + 2)
        targets  .  .  .  .  .  .  .  x  . .

    Each sample has 1..pairs pairs, uniformly; its keys are distinct, its values drawn uniformly with replacement.
    With h = vocab / 2: padding is 0, values are 1..h-1, key i is h + i and its query h + keys + i; ids past the last
    query stay unused, as published.

    Source: Procedural Pretraining (arXiv 2601.21725), its diagnostics; published 30 pairs, vocabulary 256.
    """

    pairs: int = 30
    """Maximum number of key-value pairs in a sample."""
    vocab: int = 256
    """Vocabulary size: half padding and values, half keys and queries."""

    keys: int | None = None
    """Number of distinct keys (default: as many as pairs)."""

    presets: ClassVar = {"small": {"pairs": 8, "vocab": 64}}
    targets_determined: ClassVar = True
    size_option: ClassVar = "pairs"

    def __post_init__(self) -> None:
        require(self.pairs >= 1, self, "pairs", "must be at least 1")
        require(self.vocab >= 4, self, "vocab", "must be at least 4: padding, a value, a key and its query")
        require(self.keys is None or self.keys >= self.pairs, self, "keys", f"must be at least pairs, {self.pairs}")
        room = (self.vocab - self.vocab // 2) // 2
        blamed = "pairs" if self.keys is None else "keys"
        require(self.key_count <= room, self, blamed, f"a vocabulary of {self.vocab} has room for {room} keys")
        require_fits(self, length="pairs", vocabulary="vocab")

    @property
    def key_count(self) -> int:
        """The number of distinct keys."""
        return self.pairs if self.keys is None else self.keys

    def resized(self, size: int) -> Self:
        """The task with another number of pairs and the same keys, so that no id changes its meaning."""
        return dataclasses.replace(self, pairs=size, keys=max(self.key_count, size))

    @property
    def length(self) -> int:
        """The pairs, the query and its value."""
        return 2 * self.pairs + 2

    @property
    def layout(self) -> dict[str, range]:
        """Padding, values, keys, queries and unused ids."""
        keys = self.vocab // 2
        queries, end = keys + self.key_count, keys + 2 * self.key_count
        layout = {"pad": range(1), "value": range(1, keys), "key": range(keys, queries), "query": range(queries, end)}
        return layout | ({"unused": range(end, self.vocab)} if end < self.vocab else {})

    @property
    def min_entropy_bits(self) -> float:
        """The likeliest samples have one pair; this is their -log2 probability."""
        return math.log2(self.pairs * self.key_count * len(self.layout["value"]))

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw n samples."""
        keys, values = self.layout["key"], self.layout["value"]
        count = rng.integers(1, self.pairs, n, endpoint=True)
        asked = (rng.random(n) * count).astype(np.intp)
        order = shuffled(rng, n, self.key_count)[:, : self.pairs]
        tokens = np.empty((n, self.length), self.dtype)
        tokens[:, 0:-2:2] = order + np.uint64(keys.start)
        tokens[:, 1:-2:2] = rng.integers(values.start, values.stop, (n, self.pairs), dtype=self.dtype)
        rows = np.arange(n)
        key, value = tokens[rows, 2 * asked], tokens[rows, 2 * asked + 1]
        tokens[np.arange(self.length) >= 2 * count[:, None]] = 0
        tokens[rows, 2 * count] = key + self.dtype(self.key_count)
        tokens[rows, 2 * count + 1] = value
        targets = np.zeros(tokens.shape, bool)
        targets[rows, 2 * count + 1] = True
        return Samples(tokens, targets)


@task("sorting")
@dataclass(frozen=True)
class Sorting(Task):
    """A list of numbers, then the same list sorted.

        tokens   7 3 7 0 | 0 3 7 7      (n, 2 * items + 1)
        targets  . . . . . x x x x

    Source: the diagnostics of Procedural Pretraining (arXiv 2601.21725). The task `sort` differs in keeping id 0 free.
    """

    items: int = 10
    """Numbers in the list."""
    symbols: int = 100
    """Numbers are 0..symbols-1, one token each, drawn uniformly."""

    presets: ClassVar = {"small": {"items": 6, "symbols": 20}}
    targets_determined: ClassVar = True
    size_option: ClassVar = "items"

    def __post_init__(self) -> None:
        require(self.items >= 1, self, "items", "must be at least 1")
        require(self.symbols >= 1, self, "symbols", "must be at least 1")
        require_fits(self, length="items", vocabulary="symbols")

    @property
    def length(self) -> int:
        """The list, a separator, the sorted list."""
        return 2 * self.items + 1

    @property
    def layout(self) -> dict[str, range]:
        """The numbers, the separator, padding."""
        end = self.symbols
        return {"number": range(end), "separator": range(end, end + 1), "pad": range(end + 1, end + 2)}

    @property
    def min_entropy_bits(self) -> float:
        """The list's entropy."""
        return self.items * math.log2(self.symbols)

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw n samples."""
        tokens = np.empty((n, self.length), self.dtype)
        tokens[:, : self.items] = rng.integers(0, self.symbols, (n, self.items), dtype=self.dtype)
        tokens[:, self.items] = self.symbols
        tokens[:, self.items + 1 :] = np.sort(tokens[:, : self.items], axis=1)
        targets = np.zeros(tokens.shape, bool)
        targets[:, self.items + 1 :] = True
        return Samples(tokens, targets)
