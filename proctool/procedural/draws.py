"""Random orders and target masks that several tasks share.

Tasks draw through `Generator.integers` and `Generator.random` (mqar and those that draw a model also through
`standard_normal` and `standard_exponential`): fixed recipes over PCG64 words, the same on every platform. numpy does
not promise them for ever; the golden hashes in the tests would show a release that changed them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.unsignedinteger[Any]]
Mask = NDArray[np.bool_]

# About what a core's second-level cache holds of a generator's working arrays.
_CHUNK_TOKENS = 1 << 17


def in_chunks(
    draw: Callable[[np.random.Generator, int], Tokens], rng: np.random.Generator, n: int, length: int
) -> Tokens:
    """`draw(rng, n)` in pieces that stay in the cache. (n, length)."""
    rows = max(1, _CHUNK_TOKENS // length)
    return np.concatenate([draw(rng, min(rows, n - first)) for first in range(0, max(n, 1), rows)])


def after_the_first(n: int, length: int) -> NDArray[np.bool_]:
    """The targets of a language: every token after the first. (n, length)."""
    targets = np.ones((n, length), bool)
    targets[:, 0] = False
    return targets


def packed(rows: Tokens, kept: Mask, pad: int) -> tuple[Tokens, Mask]:
    """What each row keeps moved to its front, and where that now stands; `pad` behind it. (n, length) each."""
    front = np.arange(rows.shape[1]) < np.count_nonzero(kept, axis=1)[:, None]
    moved = np.full(rows.shape, pad, rows.dtype)
    # Boolean indexing runs through rows in order, so what a row keeps lands in the same row's front.
    moved[front] = rows[kept]
    return moved, front


def shuffled(rng: np.random.Generator, n: int, count: int) -> NDArray[np.uint64]:
    """0..count-1 in an independent random order in each of n rows. (n, count)."""
    return shuffled_rows(rng, np.broadcast_to(np.arange(count), (n, count)), count)


def shuffled_rows(
    rng: np.random.Generator, rows: NDArray[Any], below: int, last: NDArray[np.bool_] | None = None
) -> NDArray[np.uint64]:
    """The whole numbers of each row, all less than `below`, in random order. (n, length) -> (n, length).

    Those marked `last`, which must be equal, go to the row's end.
    """
    # Sorting random words that carry the item in their low bits is several times faster than argsort. For 16-bit
    # items 47 random bits stand above them, so a tie, which alone could favour an order, is rarer than 1 in 10^7
    # even in rows of 2048.
    bits = np.uint64(below.bit_length())
    words = rng.integers(0, 1 << 63, rows.shape, dtype=np.uint64) >> bits << bits
    words |= rows.astype(np.uint64)
    if last is not None:
        words[last] |= np.uint64(1 << 63)
    words.sort(axis=1)
    words &= (np.uint64(1) << bits) - np.uint64(1)
    return words
