"""Random orders and target masks that several tasks share.

Tasks draw with `Generator.integers` and `Generator.random` (mqar and tasks that draw a model also with
`standard_normal` and `standard_exponential`). They give the same numbers from PCG64 on every platform. numpy does not
promise this for future releases; the golden hashes in the tests would detect a change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.unsignedinteger[Any]]
Mask = NDArray[np.bool_]

# Number of values whose working arrays fit a core's second-level cache.
_CHUNK_TOKENS = 1 << 17


def in_chunks(
    draw: Callable[[np.random.Generator, int], Tokens], rng: np.random.Generator, n: int, length: int
) -> Tokens:
    """`draw(rng, n)` in pieces that fit the cache. (n, length)."""
    rows = max(1, _CHUNK_TOKENS // length)
    return np.concatenate([draw(rng, min(rows, n - first)) for first in range(0, max(n, 1), rows)])


def after_the_first(n: int, length: int) -> NDArray[np.bool_]:
    """The targets of a language: every token after the first. (n, length)."""
    targets = np.ones((n, length), bool)
    targets[:, 0] = False
    return targets


def packed(rows: Tokens, kept: Mask, pad: int) -> tuple[Tokens, Mask]:
    """The kept tokens of each row moved to its front, then `pad`; and the mask of kept tokens. (n, length) each."""
    front = np.arange(rows.shape[1]) < np.count_nonzero(kept, axis=1)[:, None]
    moved = np.full(rows.shape, pad, rows.dtype)
    # Boolean indexing goes through rows in order, so the kept tokens of a row stay in that row.
    moved[front] = rows[kept]
    return moved, front


def shuffled(rng: np.random.Generator, n: int, count: int) -> NDArray[np.uint64]:
    """0..count-1 in an independent random order in each of n rows. (n, count)."""
    return shuffled_rows(rng, np.broadcast_to(np.arange(count), (n, count)), count)


def shuffled_rows(
    rng: np.random.Generator, rows: NDArray[Any], below: int, last: NDArray[np.bool_] | None = None
) -> NDArray[np.uint64]:
    """Shuffle the integers of each row, all less than `below`. (n, length) -> (n, length).

    Items marked `last`, which must be equal, go to the end of the row.
    """
    # Sorting random words with the item in their low bits is several times faster than argsort. Only a tie could favour
    # an order. 16-bit items have 47 random bits above them, so even rows of 2048 have a tie in less than 1 of 10^7.
    bits = np.uint64(below.bit_length())
    words = rng.integers(0, 1 << 63, rows.shape, dtype=np.uint64) >> bits << bits
    words |= rows.astype(np.uint64)
    if last is not None:
        words[last] |= np.uint64(1 << 63)
    words.sort(axis=1)
    words &= (np.uint64(1) << bits) - np.uint64(1)
    return words
