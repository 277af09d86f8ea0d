"""Sums of losses by position in the row and by repetition. Shapes: B rows of L tokens, T targets in total.

    row         a b c a b d
    copyable 2  . . . . x .     "a b" occurred before; n = 2
    position    0 1 2 3 4 5     tokens read before; the first token is never predicted

This file does not import torch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from proctool.loss_parts import ICL_TOKEN, Band, LossParts, Ngrams, Part

NGRAMS = (2, 3)
_ICL = 2
"""Numbers for the in-context-learning score: the summed difference and the number of rows."""


class LossSums:
    """Sums of losses. `values` is one vector, so that a single reduction adds up the processes."""

    def __init__(self, length: int, last: int | None = None) -> None:
        """Make sums for rows of up to `length` tokens, including the first.

        `last` is the position of the last token in the in-context-learning score (default: the row's last).
        """
        self.length = length
        self.last = length - 1 if last is None else last
        self.values = np.zeros(2 * length + 2 * len(NGRAMS) + _ICL)

    @property
    def nats_at(self) -> NDArray[np.float64]:
        """Summed losses by position: (length,)"""
        return self.values[: self.length]

    @property
    def count_at(self) -> NDArray[np.float64]:
        """Targets by position: (length,)"""
        return self.values[self.length : 2 * self.length]

    @property
    def _copied(self) -> NDArray[np.float64]:
        """By n, the summed losses of copyable targets and their number: (2, 2)"""
        return self.values[2 * self.length : -_ICL].reshape(len(NGRAMS), 2)

    def add(self, tokens: NDArray[np.integer], targets: NDArray[np.bool_], nats: NDArray[np.float64]) -> None:
        """Add a batch: tokens (B, L) and targets (B, L), with the losses of the targets in row-major order (T,).

        L may be smaller than `length`. Tokens after a row's last target do not matter.
        """
        rows, places = targets.nonzero()
        self.nats_at[:] += np.bincount(places, nats, self.length)
        self.count_at[:] += np.bincount(places, minlength=self.length)
        for sums, seen in zip(self._copied, repeated(tokens, NGRAMS), strict=True):
            copyable = seen[rows, places]
            sums += nats[copyable].sum(), copyable.sum()
        if ICL_TOKEN <= self.last < targets.shape[1]:
            both = targets[:, ICL_TOKEN - 1] & targets[:, self.last]
            of_both = both[rows]
            early, late = (nats[of_both & (places == at)].sum() for at in (ICL_TOKEN - 1, self.last))
            self.values[-_ICL:] += early - late, both.sum()

    def parts(self) -> LossParts:
        """The mean losses of all parts."""
        nats, count = self.nats_at.sum(), self.count_at.sum()
        difference, rows = self.values[-_ICL:]
        return LossParts(
            bands=_bands(self.nats_at, self.count_at),
            ngrams=tuple(
                Ngrams(n=n, copyable=_part(*sums), other=_part(nats - sums[0], count - sums[1]))
                for n, sums in zip(NGRAMS, self._copied, strict=True)
            ),
            icl_score=float(difference / rows) if rows else None,
            icl_rows=int(rows),
        )


def repeated(tokens: NDArray[np.integer], sizes: tuple[int, ...]) -> list[NDArray[np.bool_]]:
    """For each n in `sizes` (ascending), whether a token and the n - 1 before it occurred earlier in the same row.

    (B, L) -> (B, L) each. Occurrences may overlap.
    """
    batch, length = tokens.shape
    ids = tokens.astype(np.int64)
    most = int(ids.max(initial=0)) + 1
    found = []
    codes = np.repeat(np.arange(batch), length).reshape(batch, length)  # identify the row and the n-gram ending here
    for n in range(1, max(sizes) + 1):
        before = codes if n == 1 else codes[:, :-1]
        keys = before * most + ids[:, n - 1 :]  # (B, L - n + 1)
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        codes = inverse.reshape(keys.shape)
        if n in sizes:
            seen = np.ones(keys.size, bool)
            seen[first] = False
            found.append(np.pad(seen.reshape(keys.shape), ((0, 0), (length - keys.shape[1], 0))))
    return found


def _part(nats: float, targets: float) -> Part:
    return Part(targets=int(targets), loss=float(nats / targets) if targets else None)


def _bands(nats_at: NDArray[np.float64], count_at: NDArray[np.float64]) -> tuple[Band, ...]:
    """Means over bands of positions, divided at powers of two."""
    bands = []
    start = 1
    while start < len(count_at):
        stop = min(2 * start, len(count_at))
        part = _part(nats_at[start:stop].sum(), count_at[start:stop].sum())
        if part.targets:
            bands.append(Band(first=start, last=stop - 1, targets=part.targets, loss=part.loss))
        start *= 2
    return tuple(bands)
