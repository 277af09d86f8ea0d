"""What every task and corpus gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Samples:
    """Sequences and which of their tokens a model is to predict.

    tokens   (n, length) unsigned integers
    targets  (n, length) bool: true where that token is to be predicted from those before it
    """

    tokens: NDArray[np.unsignedinteger[Any]]
    targets: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.tokens)
