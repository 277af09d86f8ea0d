"""Bracket languages: dyck (nested) and shuffle-dyck (crossing allowed)."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from proctool.procedural.draws import Mask, Tokens, after_the_first, in_chunks
from proctool.procedural.registry import Task, require, require_fits, task
from proctool.procedural.samples import Samples


@dataclass(frozen=True)
class Brackets(Task):
    """Sequences of k types of bracket: opening ids 0..k-1, closing ids k..2k-1, padding 2k."""

    k: int = 64
    """Number of bracket types."""
    length: int = 2048
    """Tokens per sample; must be even, so that every bracket can close."""
    p_open: float = 0.5
    """Probability of opening a bracket when both are allowed."""

    presets: ClassVar = {"small": {"k": 16, "length": 128}}
    size_option: ClassVar = "length"

    def __post_init__(self) -> None:
        require(self.k >= 1, self, "k", "must be at least 1")
        require(self.length >= 2, self, "length", "must be at least 2")
        require(self.length % 2 == 0, self, "length", "must be even, so that every bracket can close")
        require(0 <= self.p_open <= 1, self, "p_open", "must be from 0 to 1")
        require_fits(self, length="length", vocabulary="k")

    @property
    def layout(self) -> dict[str, range]:
        """Opening and closing brackets by type, then padding."""
        return {
            "open": range(self.k),
            "close": range(self.k, 2 * self.k),
            "pad": range(2 * self.k, 2 * self.k + 1),
        }

    @property
    def min_entropy_bits(self) -> float:
        """The entropy of the types: half of the tokens open, each with one of k types."""
        return self.length / 2 * math.log2(self.k)


@task("dyck")
@dataclass(frozen=True)
class Dyck(Brackets):
    """Balanced, nested brackets of k types.

        tokens   ( [ ] { } ) < >      (n, length)
        targets  . x x x x x x x

    If no bracket is open, open one. If as many brackets are open as tokens are left, close. Otherwise open with
    probability p_open. The type of an opening bracket is uniform; a closing bracket closes the innermost one.

    Source: Procedural Pretraining (arXiv 2601.21725), section 3; published k = 64 and length 2048.
    """

    @property
    def min_entropy_bits(self) -> float:
        """The entropy of the types, and of at least length / 2 - 1 free choices between opening and closing."""
        likelier = max(self.p_open, 1 - self.p_open)
        return super().min_entropy_bits - (self.length / 2 - 1) * math.log2(likelier)

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw n samples."""
        tokens = in_chunks(self._draw, rng, n, self.length)
        return Samples(tokens, after_the_first(n, self.length))

    def _draw(self, rng: np.random.Generator, n: int) -> Tokens:
        small = self.length < 1 << 15
        signed: type[np.signedinteger[Any]] = np.int16 if small else np.int32
        unsigned: type[np.unsignedinteger[Any]] = np.uint32 if small else np.uint64
        opens = rng.random((n, self.length), dtype=np.float32) < self.p_open
        # The depth after each token, without a loop over tokens. Count an opening as +1 and a closing as -1. A closing
        # with nothing open becomes an opening, which raises all later depths by 2. The number of raises that keeps the
        # depth at or above 0 is half of the lowest point of the walk so far, rounded up.
        walk = np.cumsum(opens.view(np.int8) * np.int8(2) - np.int8(1), axis=1, dtype=signed)
        lowest = np.minimum.accumulate(walk, axis=1)
        depth = walk - (np.minimum(lowest, 0) >> 1 << 1)
        # Once the depth equals the number of tokens left, every further token closes a bracket.
        np.minimum(depth, np.arange(self.length - 1, -1, -1, dtype=signed), out=depth)
        opens[:, 0] = True
        np.greater(depth[:, 1:], depth[:, :-1], out=opens[:, 1:])
        # Sorted by level, then by position, the two tokens of a bracket are neighbours: opening, closing, and so on.
        bits = 16 if small else 32
        words = (depth - opens).astype(unsigned) << unsigned(bits)
        words |= np.arange(self.length, dtype=unsigned)
        words.sort(axis=1)
        place = (words & unsigned((1 << bits) - 1)).astype(np.intp)
        place += np.arange(0, n * self.length, self.length)[:, None]
        kind = rng.integers(0, self.k, (n, self.length // 2), dtype=self.dtype)
        tokens = np.empty(n * self.length, self.dtype)
        tokens[place[:, ::2]] = kind
        tokens[place[:, 1::2]] = kind + self.dtype(self.k)
        return tokens.reshape(n, self.length)


# Steps of shuffle-dyck whose random numbers are drawn at once: many enough to make calls cheap, few enough for the
# cache.
_STEPS = 64


@task("shuffle-dyck")
@dataclass(frozen=True)
class ShuffleDyck(Brackets):
    """Brackets of k types, each type balanced on its own, crossing allowed.

        tokens   ( [ ) { ] } < >      (n, length)
        targets  . x x x x x x x

    If no bracket is open, open one; if max_depth brackets are open, close one. Otherwise open with probability p_open.
    The type of an opening bracket is uniform; a closing bracket has a uniform type among the open ones.

    Source: k-shuffle-Dyck (Hu et al., arXiv 2502.19249), as in Procedural Pretraining (arXiv 2601.21725), section 3.
    The published generator stops at the length even with open brackets: `balanced=false`. Hu's text defines balanced
    strings, but Hu's code (and that of arXiv 2605.10129) uses 64 types, probability 0.51 and at most 8 open brackets,
    and also stops with open brackets: `shuffle-dyck:hu`.
    """

    presets: ClassVar = {
        **Brackets.presets,
        "hu": {"k": 64, "length": 2048, "p_open": 0.51, "max_depth": 8, "balanced": False},
    }

    max_depth: int = 16
    """Maximum number of brackets open at once."""
    balanced: bool = True
    """Whether all brackets are closed at the end."""

    def __post_init__(self) -> None:
        require(1 <= self.max_depth <= 1 << 14, self, "max_depth", f"must be between 1 and {1 << 14}")
        super().__post_init__()

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw n samples."""
        # Each sample has a row of k slots, one per type, with the number of its open brackets. Types with open brackets
        # come first, up to `last`. So a uniform slot is a uniform type, of all types or of the open ones. Type and
        # number share a word: the type in the low 16 bits, the number above.
        one = 1 << 16
        slots = np.tile(np.arange(self.k, dtype=np.int32), n)
        start = np.arange(0, n * self.k, self.k)
        before = start - 1
        last = before
        tokens = np.empty((n, self.length), self.dtype)
        walk = np.zeros(n, np.intp)
        for first in range(0, self.length, _STEPS):
            rows = np.empty((min(_STEPS, self.length - first), n), self.dtype)
            opens = self._openings(rng, walk, first, len(rows))
            # Arithmetic is faster than np.where, which mispredicts every second branch here.
            changes = opens * np.int32(2 * one) - np.int32(one)
            widest = opens * np.intp(self.k)
            uniforms = rng.random((len(rows), n), dtype=np.float32)
            for row, change, all_types, uniform in zip(rows, changes, widest, uniforms, strict=True):
                slot = (uniform * np.maximum(last - before, all_types)).astype(np.intp)
                slot += start
                word = slots.take(slot)
                row[:] = word  # the low 16 bits
                word += change
                # A type that opens its first bracket moves to the slot after the last open one, a type that closes its
                # last bracket to the last open slot. Other types also swap with the last, as their order is irrelevant.
                other = last + (slot > last)
                slots[slot] = slots.take(other)
                slots[other] = word
                last = other - (word < one)
            rows += ~opens * self.dtype(self.k)
            tokens[:, first : first + _STEPS] = rows.T
        return Samples(tokens, after_the_first(n, self.length))

    def _openings(self, rng: np.random.Generator, walk: NDArray[np.intp], first: int, steps: int) -> Mask:
        """Which tokens open a bracket from position `first` on, (steps, n); updates `walk`."""
        wanted = (rng.random((steps, len(walk)), dtype=np.float32) < self.p_open).astype(np.intp)
        depth = np.empty((steps + 1, len(walk)), np.intp)
        depth[0] = walk
        # One table lookup per step: from 2 * depth (+ 1 to open) to 2 * next depth.
        following = _following(self.max_depth)
        for step, wants in enumerate(wanted):
            following.take(depth[step] + wants, out=depth[step + 1], mode="clip")
        walk[:] = depth[-1]
        if self.balanced:
            # Once the depth equals the number of tokens left, every further token closes a bracket.
            left = np.arange(self.length - first, self.length - first - steps - 1, -1)
            np.minimum(depth, 2 * left[:, None], out=depth)
        return depth[1:] > depth[:-1]


@functools.lru_cache
def _following(max_depth: int) -> NDArray[np.intp]:
    """The table from 2 * depth (+ 1 to open) to 2 * next depth. (2 * max_depth + 2,)."""
    depth, wants = np.divmod(np.arange(2 * max_depth + 2), 2)
    opens = ((wants > 0) | (depth == 0)) & (depth < max_depth)
    return 2 * (depth + np.where(opens, 1, -1))
