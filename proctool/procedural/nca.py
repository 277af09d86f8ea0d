"""Neural cellular automata: grids that follow rules drawn at random."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from proctool.errors import OptionError
from proctool.procedural.draws import Tokens, after_the_first
from proctool.procedural.registry import Task, require, require_fits, task
from proctool.procedural.samples import Samples

Floats = NDArray[np.float64]
Grids = NDArray[np.uint8]

_TEMPERATURE = 1e-4
_DROPPED = 10  # frames before the first that is shown
_TESTED = 10  # frames whose compressed size decides on a rule
_NEIGHBOURS = tuple((down, right) for down in range(3) for right in range(3))
# Weights are whole multiples of this, so that all sums and products below are exact in float64: the same bits
# whatever the order in which a platform's BLAS adds them up.
_QUANTUM = 2.0**-12
_MOST_CANDIDATES = 2000


@task("nca")
@dataclass(frozen=True)
class NeuralAutomaton(Task):
    """Frames of a two-dimensional cellular automaton under a rule drawn at random.

        tokens   <s> p p p p </s> <s> p p p p </s> <s> p p      (n, length)
        targets   .  x x x x  x    x  x x x x  x    x  x x

    A rule is one draw of a small network: a 3x3 convolution to 4 channels, a 1x1 convolution to 16, ReLU, a 1x1
    convolution to the states, weights truncated normal with variance 1 / inputs; it gives the logits of a cell's next
    state, sampled at temperature 1e-4. The grid is a ring both ways. A first state has its own random logits, shared
    by its cells; 10 frames are dropped. Tokens are patches of 2x2 cells in raster order, cell i counting states^i, with
    a start and an end token around each frame, cut to the length. Rules are kept when gzip (level 9) of the patches
    of 10 frames takes between 50 % (complexity) and 100 % of their size as 32-bit integers.

    Which borderline rules pass depends on the zlib build; all else is the same bits on every platform.

    Source: Lee et al. (arXiv 2603.10055); published with a 12x12 grid, 10 states, length 1024.
    """

    grid: int = 12
    """Cells along each side; even."""
    states: int = 10
    """States of a cell; a patch of 4 cells is one of states^4 tokens."""
    length: int = 1024
    """Tokens in one sample."""
    per_rule: int = 16
    """Samples, from different first states, that share a rule."""
    complexity: float = 0.5
    """Least compressed size of a rule's frames, as a share of their size."""

    presets: ClassVar = {"small": {"grid": 6, "states": 4, "length": 128, "complexity": 0.4}}
    size_option: ClassVar = "length"

    def __post_init__(self) -> None:
        require(self.grid >= 4, self, "grid", "at least 4 are needed")
        require(self.grid % 2 == 0, self, "grid", "must be even, for patches are 2 cells wide")
        require(self.states >= 2, self, "states", "at least 2 are needed")
        require(self.length >= 2, self, "length", "at least 2 tokens are needed")
        require(self.per_rule >= 1, self, "per_rule", "at least 1 is needed")
        require(0 <= self.complexity < 1, self, "complexity", "must lie between 0 and 1")
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
        """None is known, so splits are kept apart by content.

        From another first state than the tested one, 1 in 200 samples of the published recipe is far simpler, and a
        few die out; those sequences can repeat.
        """
        return 0.0

    @property
    def frame_length(self) -> int:
        """Tokens in a frame, with the two around it."""
        return (self.grid // 2) ** 2 + 2

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw n samples."""
        frames = -(-self.length // self.frame_length)
        tokens = np.empty((n, frames, self.frame_length), self.dtype)
        tokens[:, :, 0] = self.states**4
        tokens[:, :, -1] = self.states**4 + 1
        for first in range(0, n, self.per_rule):
            group = tokens[first : first + self.per_rule]
            group[:, :, 1:-1] = self.patches(self.run(rng, self.rule(rng), len(group), frames))
        shown = np.ascontiguousarray(tokens.reshape(n, -1)[:, : self.length])
        return Samples(shown, after_the_first(n, self.length))

    def rule(self, rng: np.random.Generator) -> Rule:
        """A rule whose frames are neither too regular nor too random. Raises OptionError where none is found."""
        for _ in range(_MOST_CANDIDATES):
            rule = draw_rule(rng, self.states)
            shown = self.patches(self.run(rng, rule, 1, _TESTED)).astype("<i4").tobytes()
            size = len(zlib.compress(shown, 9, wbits=31)) / len(shown)  # 31: with the header of gzip
            if self.complexity < size < 1:
                return rule
        raise OptionError(
            f"{self.name}: complexity = {self.complexity}: none of {_MOST_CANDIDATES} rules with {self.states} states "
            f"on a grid of {self.grid} is so complex"
        )

    def run(self, rng: np.random.Generator, rule: Rule, count: int, frames: int) -> Grids:
        """Frames of `rule` from `count` first states, less the dropped ones. (count, frames, grid, grid)."""
        logits = rng.standard_normal((self.states, count, 1))
        noise = -np.log(rng.standard_exponential((self.states, count, self.grid**2)))
        grids = (logits + noise).argmax(axis=0).astype(np.uint8).reshape(count, self.grid, self.grid)
        shown = np.empty((count, frames, self.grid, self.grid), np.uint8)
        for time in range(_DROPPED + frames):
            if time >= _DROPPED:
                shown[:, time - _DROPPED] = grids
            grids = rule.step(rng, grids)
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
class Rule:
    """The network that gives a cell's next state."""

    near: Floats
    """The 3x3 convolution, for each neighbour. (9, 4, states)"""
    mix: Floats
    """The first 1x1 convolution. (16, 4)"""
    out: Floats
    """The second. (states, 16)"""

    def step(self, rng: np.random.Generator, grids: Grids) -> Grids:
        """The frames after these. (count, grid, grid) -> (count, grid, grid)."""
        size = grids.shape[-1]
        ring = np.arange(-1, size + 1) % size
        padded = grids[:, ring][:, :, ring]
        channels = np.zeros((4, grids.size))
        for (down, right), weights in zip(_NEIGHBOURS, self.near, strict=True):
            # A state is one-hot, so convolving it means looking its weights up.
            channels += weights.take(padded[:, down : down + size, right : right + size].ravel(), axis=1)
        logits = self.out @ np.maximum(self.mix @ channels, 0)  # (states, cells)
        return _sampled(rng, logits).reshape(grids.shape)


def _sampled(rng: np.random.Generator, logits: Floats) -> NDArray[np.uint8]:
    """A state for each cell at the temperature. (states, cells) -> (cells,)."""
    top = logits[0].copy()
    states = np.zeros(top.shape, np.uint8)
    for state, logit in enumerate(logits[1:].copy(), 1):
        np.maximum(states, (logit > top) * np.uint8(state), out=states)
        np.maximum(top, logit, out=top)
    # Noise can only decide between logits this close: beyond, its odds are e^-40.
    close = np.flatnonzero(np.count_nonzero(logits > top - 40 * _TEMPERATURE, axis=0) > 1)
    noise = -np.log(rng.standard_exponential((len(logits), len(close))))  # standard Gumbel
    states[close] = (logits[:, close] + _TEMPERATURE * noise).argmax(axis=0)
    return states


def draw_rule(rng: np.random.Generator, states: int) -> Rule:
    """A rule drawn at random."""
    return Rule(
        near=_weights(rng, (9, 4, states), inputs=9 * states),
        mix=_weights(rng, (16, 4), inputs=4),
        out=_weights(rng, (states, 16), inputs=16),
    )


def _weights(rng: np.random.Generator, shape: tuple[int, ...], inputs: int) -> Floats:
    """Normal weights cut off at two standard deviations, of variance 1 / inputs."""
    drawn = rng.standard_normal(shape)
    while (outside := np.abs(drawn) > 2).any():
        drawn[outside] = rng.standard_normal(np.count_nonzero(outside))
    cut_off = 0.87962566103423978  # the standard deviation of what is left
    weights: Floats = np.round(drawn / (cut_off * inputs**0.5) / _QUANTUM) * _QUANTUM
    return weights
