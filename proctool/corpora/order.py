"""The order of rows: a new seeded permutation for every epoch, computed on demand."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 10
_BLOCK = 4096


@dataclass(frozen=True)
class RowOrder:
    """The row at each training position.

    Position p is in epoch p // rows; every epoch visits every row once, in its own order. Nothing is stored: the
    permutation is a Feistel network over the next power of four, repeated until the result is a row (Black & Rogaway,
    "Ciphers with arbitrary finite domains", 2002). So resuming needs one integer, and the order does not depend on
    batch size, ranks or workers. Raises ValueError without rows or for a negative seed.
    """

    rows: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rows < 1 or self.seed < 0:
            raise ValueError(f"an order needs at least one row and a seed of 0 or more, got {self}")

    def indices(self, start: int, stop: int) -> NDArray[np.int64]:
        """The rows at positions start..stop - 1: (stop - start,)."""
        found = np.empty(max(stop - start, 0), np.int64)
        position = start
        while position < stop:
            epoch, first = divmod(position, self.rows)
            count = min(self.rows - first, stop - position)
            number, offset = divmod(first, _BLOCK)
            count = min(count, _BLOCK - offset)
            block = _block(self.rows, self.seed, epoch, number)
            found[position - start : position - start + count] = block[offset : offset + count]
            position += count
        return found

    def repetition(self, positions: int) -> str:
        """A note if `positions` exceeds the rows ("this budget repeats the corpus 13 times ..."), else ""."""
        times = positions / self.rows
        if times <= 1:
            return ""
        written = f"{times:.0f}" if times >= 10 else f"{times:.1f}".removesuffix(".0")
        return f"this budget repeats the corpus {written} times ({positions} rows needed, {self.rows} available)"


@functools.lru_cache(maxsize=16)
def _block(rows: int, seed: int, epoch: int, number: int) -> NDArray[np.int64]:
    """The rows of one block of positions of an epoch: numpy is faster on blocks than on small batches."""
    # Hash the whole key instead of adding seed and epoch, so that neighbouring seeds share nothing.
    stream = hashlib.shake_256(f"rows/{rows}/{seed}/{epoch}".encode()).digest(8 * _ROUNDS)
    keys = tuple(np.frombuffer(stream, "<u8").astype(np.uint64))
    half = max(1, ((rows - 1).bit_length() + 1) // 2)
    first = number * _BLOCK
    found = _feistel(np.arange(first, min(first + _BLOCK, rows), dtype=np.uint64), keys, half)
    while (outside := found >= rows).any():
        found[outside] = _feistel(found[outside], keys, half)
    return found.astype(np.int64)


def _feistel(values: NDArray[np.uint64], keys: tuple[np.uint64, ...], half: int) -> NDArray[np.uint64]:
    """A permutation of 0 .. 4**half - 1."""
    shift, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = values >> shift, values & mask
    for key in keys:
        left, right = right, left ^ (mixed(right ^ key) & mask)
    return (left << shift) | right


def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
