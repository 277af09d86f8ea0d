"""The samples that every task and corpus gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Samples:
    """Sequences and the tokens that a model must predict.

    tokens   (n, length) unsigned integers
    targets  (n, length) bool: true for tokens that the model must predict from the tokens before
    procedural  (n,) bool: the rows of a task among rows of a corpus; None for data of one kind
    """

    tokens: NDArray[np.unsignedinteger[Any]]
    targets: NDArray[np.bool_]
    procedural: NDArray[np.bool_] | None = None

    def at(self, rows: NDArray[np.integer[Any]] | slice) -> Self:
        """Some of the samples."""
        marks = None if self.procedural is None else self.procedural[rows]
        return type(self)(self.tokens[rows], self.targets[rows], marks)

    def __len__(self) -> int:
        return len(self.tokens)
