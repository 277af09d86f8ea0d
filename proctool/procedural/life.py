"""Conway's game of life and its generalisation to more states."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from proctool.procedural.registry import Task, require, require_fits, task
from proctool.procedural.samples import Samples

_RULE = re.compile(r"B([0-8]*)/S([0-8]*)")


@task("life")
@dataclass(frozen=True)
class Life(Task):
    """Frames of the game of life or a similar automaton, each computed from the one before.

        tokens   0 1 0 0  1 1 0 0  1 1 1 0      (n, (steps + 1) * height * width)
        targets  . . . .  x x x x  x x x x

    A token is a cell's state; rows are written from the top, frames one after another. The first frame is drawn
    uniformly. State 0 is dead and state 1 alive; the grid is a ring both ways. By a rule such as B3/S23 (the game of
    life), a dead cell comes alive if the number of its eight neighbours in state 1 stands after B, and a living cell
    stays alive if it stands after S. With more than two states, a cell that does not stay alive ages instead: from 1
    to 2 and so on to states - 1 and to 0, and only cells in state 1 count ("Generations").

    Source: Gardner's description of Conway's game (Scientific American, October 1970); the family with more states is
    Generations of MCell (Wojtowicz). Automata of 256 states as pretraining data (BabyLM 2026, structural priors):
    the rule used there is unknown to us and may differ.
    """

    rule: str = "B3/S23"
    """Neighbour counts for birth (B) and survival (S), such as B3/S23."""
    states: int = 2
    """States of a cell, 2 to 256."""
    height: int = 16
    """Rows per frame."""
    width: int = 16
    """Cells per row."""
    steps: int = 7
    """Frames after the first."""

    presets: ClassVar = {
        "small": {"height": 8, "width": 8, "steps": 3},
        "brain": {"rule": "B2/S", "states": 3},
        "256": {"rule": "B2/S34", "states": 256, "steps": 15},
    }
    targets_determined: ClassVar = True
    size_option: ClassVar = "steps"

    def __post_init__(self) -> None:
        require(bool(_RULE.fullmatch(self.rule)), self, "rule", "write for example B3/S23")
        require(2 <= self.states <= 256, self, "states", "must be between 2 and 256")
        require(self.height >= 3, self, "height", "must be at least 3, for 8 different neighbours")
        require(self.width >= 3, self, "width", "must be at least 3, for 8 different neighbours")
        require(self.steps >= 1, self, "steps", "must be at least 1")
        require_fits(self, length="steps", vocabulary="states")

    @property
    def length(self) -> int:
        """All frames."""
        return (self.steps + 1) * self.height * self.width

    @property
    def layout(self) -> dict[str, range]:
        """The states, then padding."""
        return {"cells": range(self.states), "pad": range(self.states, self.states + 1)}

    @property
    def min_entropy_bits(self) -> float:
        """The entropy of the first frame."""
        return self.height * self.width * math.log2(self.states)

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw n samples."""
        frames = np.empty((self.steps + 1, self.height, self.width, n), np.uint8)
        frames[0] = rng.integers(0, self.states, frames.shape[1:], dtype=np.uint16)
        become = self._becomes()
        for frame, after in itertools.pairwise(frames):
            self._step(frame, after, become)
        tokens = frames.reshape(self.length, n).T.astype(self.dtype, order="C")
        targets = np.ones((n, self.length), bool)
        targets[:, : self.height * self.width] = False
        return Samples(tokens, targets)

    def _becomes(self) -> NDArray[np.uint8]:
        """The next state by 9 * state + living neighbours, for the states 0, 1 and 2 (any that ages). (27,)."""
        matched = _RULE.fullmatch(self.rule)
        assert matched
        born, stays = ({int(count) for count in counts} for counts in matched.groups())
        dies = 2 % self.states
        dead = [int(count in born) for count in range(9)]
        living = [1 if count in stays else dies for count in range(9)]
        return np.array(dead + living, np.uint8)

    def _step(self, frame: NDArray[np.uint8], after: NDArray[np.uint8], become: NDArray[np.uint8]) -> None:
        alive = (frame == 1).view(np.uint8)
        across = np.roll(alive, 1, axis=1)
        across += np.roll(alive, -1, axis=1)
        across += alive
        around = np.roll(across, 1, axis=0)
        around += np.roll(across, -1, axis=0)
        around += across
        around -= alive
        alive *= np.uint8(9)
        around += alive
        # Comparing only the few counts of a rule is faster than 27 comparisons.
        after[:] = 0
        for value in np.flatnonzero(become).tolist():
            after += (around == value).view(np.uint8) * become[value]
        if self.states > 2:
            older = frame + np.uint8(1)
            older *= (frame != self.states - 1).view(np.uint8)
            np.copyto(after, older, where=frame > 1)
