"""The samples that every task and corpus gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Samples:
    """Sequences and the tokens that a model must predict.

    tokens   (n, length) unsigned integers
    targets  (n, length) bool: true for tokens that the model must predict from the tokens before
    """

    tokens: NDArray[np.unsignedinteger[Any]]
    targets: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.tokens)
