"""Neural cellular automata: grids that follow rules drawn at random."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from proctool.errors import OptionError
from proctool.procedural.draws import Tokens, after_the_first
from proctool.procedural.registry import Task, require, require_fits, task
from proctool.procedural.samples import Samples

Floats = NDArray[np.floating[Any]]
Grids = NDArray[np.uint8]

_TESTED = 10  # frames whose compressed size decides whether a rule is kept
# Weights are drawn as multiples of this, then rounded to the units of Rules. All sums and products below are exact, so
# the tokens are the same bits in whatever order a platform's BLAS adds.
_QUANTUM = 2.0**-12
_NEAR, _OUT = 2.0**-10, 2.0**-8
_LOGIT = _NEAR * _OUT
_BITS = 4  # bits per state; more than 15 states would need too large a vocabulary
_MOST_CANDIDATES = 2000
_AT_ONCE = 4  # rules that run at once, so that their tables fit the cache
_TRIED_AT_ONCE = 16


@task("nca")
@dataclass(frozen=True)
class NeuralAutomaton(Task):
    """Frames of a two-dimensional cellular automaton under a rule drawn at random.

        tokens   <s> p p p p </s> <s> p p p p </s> <s> p p      (n, length)
        targets   .  x x x x  x    x  x x x x  x    x  x x

    A rule is one draw of a small network: a 3x3 convolution to 4 channels, a 1x1 convolution to 16, ReLU, a 1x1
    convolution to the states, weights truncated normal with variance 1 / inputs; it gives the logits of a cell's next
    state, sampled at the temperature. The grid is a ring both ways. A first state has its own random logits, shared
    by its cells; `dropped` frames come before those shown. Tokens are patches of 2x2 cells in raster order, cell i
    counting states^i, with a start and an end token around each frame, cut to the length. Rules are kept when gzip
    (level 9) of the patches of 10 frames takes between `complexity` and `most_complexity` of their size as 32-bit
    integers.

    The first two convolutions have nothing between them and are one here, with weights rounded to multiples of 2^-10.
    Those of the last one are rounded to multiples of 2^-8.

    Which borderline rules pass depends on the zlib build; everything else is the same bits on every platform.

    Source: Lee et al. (arXiv 2603.10055); published with a 12x12 grid, 10 states, length 1024, and bands of
    50 % and more for text and mathematics, 30 to 40 % for code.
    """

    grid: int = 12
    """Cells per side; must be even."""
    states: int = 10
    """States of a cell; a patch of 4 cells is one of states^4 tokens."""
    length: int = 1024
    """Tokens in one sample."""
    per_rule: int = 16
    """Number of samples, with different first states, that share a rule."""
    complexity: float = 0.5
    """Minimum compressed size of a rule's frames, as a share."""
    most_complexity: float = 1.0
    """Maximum compressed size of a rule's frames, as a share."""
    temperature: float = 1e-4
    """Temperature of the softmax that draws a cell's next state."""
    dropped: int = 10
    """Frames dropped before the first one; 0 keeps the random first frame."""

    presets: ClassVar = {
        "small": {"grid": 6, "states": 4, "length": 128, "complexity": 0.4},
        "text": {"complexity": 0.5, "most_complexity": 1.0},
        "mathematics": {"complexity": 0.5, "most_complexity": 1.0},
        "code": {"complexity": 0.3, "most_complexity": 0.4},
    }
    size_option: ClassVar = "length"

    def __post_init__(self) -> None:
        require(self.grid >= 4, self, "grid", "must be at least 4")
        require(self.grid % 2 == 0, self, "grid", "must be even, because patches are 2 cells wide")
        require(self.states >= 2, self, "states", "must be at least 2")
        require(self.length >= 2, self, "length", "must be at least 2")
        require(self.per_rule >= 1, self, "per_rule", "must be at least 1")
        require(0 <= self.complexity < 1, self, "complexity", "must be at least 0 and below 1")
        reason = f"must be above complexity, {self.complexity}, and at most 2"
        require(self.complexity < self.most_complexity <= 2, self, "most_complexity", reason)
        require(0 < self.temperature <= 1, self, "temperature", "must be above 0 and at most 1")
        require(0 <= self.dropped <= 1000, self, "dropped", "must be between 0 and 1000")
        require_fits(self, length="length", vocabulary="states")

    @property
    def layout(self) -> dict[str, range]:
        """The patches, the two tokens around a frame, padding."""
        end = self.states**4
        return {
            "patch": range(end),
            "start": range(end, end + 1),
            "end": range(end + 1, end + 2),
            "pad": range(end + 2, end + 3),
        }

    @property
    def min_entropy_bits(self) -> float:
        """No bound is known, so splits are separated by content.

        The test of a rule uses one first state. With other first states, 1 of 200 samples of the published recipe is
        much simpler, and a few die out; such sequences can repeat.
        """
        return 0.0

    @property
    def frame_length(self) -> int:
        """Tokens per frame, including its start and end tokens."""
        return (self.grid // 2) ** 2 + 2

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw n samples."""
        frames = -(-self.length // self.frame_length)
        groups = -(-n // self.per_rule)
        each = min(n, self.per_rule)
        tokens = np.empty((groups * each, frames, self.frame_length), self.dtype)
        tokens[:, :, 0] = self.states**4
        tokens[:, :, -1] = self.states**4 + 1
        rules = self.rules(rng, groups)
        for first in range(0, groups, _AT_ONCE):
            some = rules.chosen(np.arange(first, min(first + _AT_ONCE, groups)))
            shown = self.patches(self.run(rng, some, each, frames))
            tokens[first * each : (first + len(some)) * each, :, 1:-1] = shown.reshape(-1, *shown.shape[2:])
        shown = np.ascontiguousarray(tokens.reshape(len(tokens), -1)[:n, : self.length])
        return Samples(shown, after_the_first(n, self.length))

    def rules(self, rng: np.random.Generator, count: int) -> Rules:
        """Draw `count` rules whose frames have a compressed size in the band.

        Raises OptionError if _MOST_CANDIDATES consecutive rules are outside it.
        """
        kept: list[Rules] = []
        found = drawn = in_vain = 0
        while found < count:
            candidates = draw_rules(rng, self.states, min(_TRIED_AT_ONCE, max(_AT_ONCE, 2 * (count - found))))
            frames = self.patches(self.run(rng, candidates, 1, _TESTED)).astype("<i4")
            sizes = np.array([len(zlib.compress(each.tobytes(), 9, wbits=31)) for each in frames])  # 31: as gzip
            shares = sizes / frames[0].nbytes
            kept.append(candidates.chosen((shares > self.complexity) & (shares < self.most_complexity)))
            found += len(kept[-1])
            drawn += len(candidates)
            in_vain = 0 if len(kept[-1]) else in_vain + len(candidates)
            if in_vain >= _MOST_CANDIDATES:
                raise OptionError(
                    f"{self.name}: complexity = {self.complexity}, most_complexity = {self.most_complexity}: "
                    f"only {found} of {drawn} rules are between them; widen the band"
                )
        every = Rules(np.concatenate([each.near for each in kept]), np.concatenate([each.out for each in kept]))
        return every.chosen(np.arange(count))

    def run(self, rng: np.random.Generator, rules: Rules, count: int, frames: int) -> Grids:
        """Frames of each rule from `count` first states, without dropped ones. (rules, count, frames, grid, grid)."""
        shape = (len(rules), count)
        odds = np.exp(rng.standard_normal((self.states, *shape)))
        ends = np.cumsum(odds, axis=0) / odds.sum(axis=0)
        chances = rng.random((*shape, self.grid**2))
        first = np.zeros(chances.shape, np.uint8)
        for end in ends[:-1]:
            first += chances >= end[..., None]
        grids: Grids = first.reshape(*shape, self.grid, self.grid)
        shown = np.empty((*shape, frames, self.grid, self.grid), np.uint8)
        tables = rules.tables()
        weights = rules.weights(tables)
        for time in range(self.dropped + frames):
            if time >= self.dropped:
                shown[:, :, time - self.dropped] = grids
            if time < self.dropped + frames - 1:
                grids = _step(rng, grids, tables, weights, self.temperature)
        return shown

    def patches(self, frames: Grids) -> Tokens:
        """(..., grid, grid) -> (..., patches)."""
        half = self.grid // 2
        cells = frames.reshape(*frames.shape[:-2], half, 2, half, 2).astype(self.dtype)
        across = cells[..., 0] + cells[..., 1] * self.dtype(self.states)
        both = across[..., 0, :] + across[..., 1, :] * self.dtype(self.states**2)
        patches: Tokens = both.reshape(*frames.shape[:-2], half * half)
        return patches


@dataclass(frozen=True)
class Rules:
    """The networks that give a cell's next state, for several rules.

    The first two convolutions have nothing between them, so they are one, with a weight per neighbour, unit and state.
    Weights are integers in units of 2^-10 (near) and 2^-8 (out), so that all sums are exact.
    """

    near: NDArray[np.int16]
    """Weights of the first two convolutions. (rules, 9 neighbours in raster order, states, 16)"""
    out: NDArray[np.int16]
    """Weights of the last convolution. (rules, states, 16)"""

    def __len__(self) -> int:
        return len(self.out)

    def chosen(self, which: NDArray[Any]) -> Rules:
        """The rules at these indices or with this mask."""
        return Rules(self.near[which], self.out[which])

    def tables(self) -> NDArray[np.int16]:
        """The contribution of three cells in a row to the units, for the row above, the same row and the row below.

        (3, rules * states^3, 16)
        """
        rules, _, states, units = self.near.shape
        rows = self.near.reshape(rules, 3, 3, states, units)
        left, middle, right = (rows[:, :, place] for place in range(3))
        three = left[:, :, :, None, None] + middle[:, :, None, :, None] + right[:, :, None, None, :]
        return np.ascontiguousarray(three.swapaxes(0, 1)).reshape(3, rules * states**3, units)

    def weights(self, tables: NDArray[np.int16]) -> Floats:
        """The last convolution in float32 if all its sums are exact, else in float64. (rules, states, 16)."""
        most = sum(int(np.abs(table.astype(np.int32)).max()) for table in tables)
        sums = int(np.abs(self.out.astype(np.int64)).sum(axis=2).max()) * most
        return self.out.astype(np.float32 if sums < 1 << 24 else np.float64)


def _step(
    rng: np.random.Generator, grids: Grids, tables: NDArray[np.int16], weights: Floats, temperature: float
) -> Grids:
    """The next frames. (rules, count, grid, grid) -> the same shape."""
    rules, count, size, _ = grids.shape
    states = weights.shape[1]
    # The table index of a cell with its two neighbours, including the offset of the rule.
    cells = grids.astype(np.uint16)
    spelt = cells * np.uint16(states)
    spelt += (np.arange(rules) * states**3).astype(np.uint16)[:, None, None, None]
    spelt[..., :-1] += cells[..., 1:]
    spelt[..., -1] += cells[..., 0]
    cells *= np.uint16(states**2)
    spelt[..., 1:] += cells[..., :-1]
    spelt[..., 0] += cells[..., -1]
    flat = spelt.reshape(rules * count, size * size).astype(np.intp)
    wide = size * tables.shape[2]
    above, units, below = (table.take(flat, axis=0).reshape(rules * count, size * wide) for table in tables)
    units[:, wide:] += above[:, :-wide]
    units[:, :wide] += above[:, -wide:]
    units[:, :-wide] += below[:, wide:]
    units[:, -wide:] += below[:, :wide]
    units &= ~(units >> 15)  # ReLU: clears the value if its sign bit is set
    active = units.reshape(rules, -1, tables.shape[2]).astype(weights.dtype)
    logits = weights @ active.swapaxes(1, 2)  # (rules, states, cells)
    # The last bits of a logit hold its state, so the largest logit gives the state.
    keys = logits.astype(np.int32)
    keys <<= _BITS
    keys |= np.arange(states, dtype=np.int32)[:, None]
    top = keys.max(axis=1)
    after = (top & ((1 << _BITS) - 1)).astype(np.uint8)
    # Noise only matters between logits this close; at a larger difference its probability is e^-40.
    margin = int(min(40 * temperature / _LOGIT * (1 << _BITS), 2**31 - 1 - 2**30))
    near = (keys > (top - margin)[:, None]).sum(axis=1, dtype=np.uint8)
    rule, cell = np.divmod(np.flatnonzero(near > 1), near.shape[1])
    if len(rule):
        noise = -np.log(rng.standard_exponential((len(rule), states)))  # standard Gumbel
        after[rule, cell] = (logits[rule, :, cell] * _LOGIT + temperature * noise).argmax(axis=1)
    following: Grids = after.reshape(grids.shape)
    return following


def draw_rules(rng: np.random.Generator, states: int, count: int) -> Rules:
    """Draw random rules."""
    near = _weights(rng, (count, 9, 4, states), inputs=9 * states)
    mix = _weights(rng, (count, 16, 4), inputs=4)
    out = _weights(rng, (count, states, 16), inputs=16)
    both = np.einsum("ruc,rpcs->rpsu", mix, near)
    return Rules(np.rint(both / _NEAR).astype(np.int16), np.rint(out / _OUT).astype(np.int16))


def _weights(rng: np.random.Generator, shape: tuple[int, ...], inputs: int) -> Floats:
    """Normal weights truncated at two standard deviations, with variance 1 / inputs."""
    drawn = rng.standard_normal(shape)
    while (outside := np.abs(drawn) > 2).any():
        drawn[outside] = rng.standard_normal(np.count_nonzero(outside))
    cut_off = 0.87962566103423978  # the standard deviation after truncation
    weights: Floats = np.round(drawn / (cut_off * inputs**0.5) / _QUANTUM) * _QUANTUM
    return weights
