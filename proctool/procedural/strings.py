"""Languages of plain strings: ww."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from proctool.procedural.draws import Mask, after_the_first
from proctool.procedural.registry import Task, require, require_fits, task
from proctool.procedural.samples import Samples


@task("ww")
@dataclass(frozen=True)
class Repeated(Task):
    """A random string, then the same string again.

        tokens   7 3 7 9 7 3 7 9      (n, 2 * half)
        targets  . x x x x x x x

    As in every language here, all tokens after the first are targets, so the loss cannot fall below half the string's
    entropy.

    Source: Procedural Pretraining (arXiv 2601.21725), section 3.
    """

    half: int = 64
    """Number of symbols in the repeated string."""
    symbols: int = 100
    """Size of the alphabet; 0..symbols-1 are drawn uniformly."""

    presets: ClassVar = {"small": {"half": 20, "symbols": 21}}
    size_option: ClassVar = "half"

    def __post_init__(self) -> None:
        require(self.half >= 1, self, "half", "must be at least 1")
        require(self.symbols >= 1, self, "symbols", "must be at least 1")
        require_fits(self, length="half", vocabulary="symbols")

    @property
    def length(self) -> int:
        """The string twice."""
        return 2 * self.half

    @property
    def layout(self) -> dict[str, range]:
        """The symbols, then padding."""
        return {"symbol": range(self.symbols), "pad": range(self.symbols, self.symbols + 1)}

    @property
    def min_entropy_bits(self) -> float:
        """The string's entropy."""
        return self.half * math.log2(self.symbols)

    def determined(self, samples: Samples) -> Mask:
        """The second half."""
        copied = np.zeros(samples.tokens.shape, bool)
        copied[:, self.half :] = True
        return copied

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw n samples."""
        string = rng.integers(0, self.symbols, (n, self.half), dtype=self.dtype)
        return Samples(np.concatenate([string, string], axis=1), after_the_first(n, self.length))
