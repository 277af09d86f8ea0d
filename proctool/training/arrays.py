"""Samples as arrays, and the one place where targets shift: the prediction of token t is made at position t - 1.

No torch here: processes that make batches start in a fraction of the time without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proctool.procedural.samples import Samples

IGNORED = -100
"""A label that cross-entropy leaves out."""
Arrays = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
"""Tokens, positions and labels, as `Batch` has them, of any integer type."""


def arrays(samples: Samples, length: int) -> Arrays:
    """The first `length` tokens of each sample, and where among them which target is predicted."""
    rows, places = samples.targets[:, 1:].nonzero()  # places are those of the predictions
    return samples.tokens[:, :length], rows * length + places, samples.tokens[rows, places + 1].astype("int64")


def padded_length(length: int) -> int:
    """Tokens of a sample of `length` in a batch that is not cut: nothing is predicted from the last."""
    return max(length - 1, 1)


def padded(samples: Samples, room: int) -> Arrays:
    """Arrays whose shapes depend on those of the samples and on `room` alone: so many positions and labels."""
    tokens, positions, labels = arrays(samples, padded_length(samples.tokens.shape[1]))
    wide_positions, wide_labels = np.zeros(room, "int64"), np.full(room, IGNORED, "int64")
    wide_positions[: len(labels)], wide_labels[: len(labels)] = positions, labels
    return tokens, wide_positions, wide_labels


def room_for(parts: Sequence[Samples]) -> int:
    """Labels for which each of a step's micro-batches has room: the most among them, rounded up to a power of two."""
    most = max(int(part.targets[:, 1:].sum()) for part in parts)
    return min(1 << max(most - 1, 0).bit_length(), parts[0].targets[:, 1:].size)


def count_targets(samples: Samples) -> int:
    """How many targets a step has in all, at least 1."""
    return max(int(samples.targets[:, 1:].sum()), 1)
