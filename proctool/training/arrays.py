"""Samples as arrays. Only this file shifts targets: token t is predicted at position t - 1.

This file does not import torch, so that processes that make batches start in a fraction of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proctool.procedural.samples import Samples

IGNORED = -100
"""A label that cross-entropy ignores."""
Arrays = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
"""Tokens, positions and labels as in `Batch`, of any integer type."""


def arrays(samples: Samples, length: int) -> Arrays:
    """The first `length` tokens of each sample, with the positions and labels of their predictions."""
    rows, places = samples.targets[:, 1:].nonzero()  # places of the predictions
    return samples.tokens[:, :length], rows * length + places, samples.tokens[rows, places + 1].astype("int64")


def padded_length(length: int) -> int:
    """Tokens that a padded batch keeps of a sample: all but the last, which predicts nothing."""
    return max(length - 1, 1)


def padded(samples: Samples, room: int) -> Arrays:
    """Arrays whose shapes depend only on the samples' shape and on `room`, the number of positions and labels."""
    tokens, positions, labels = arrays(samples, padded_length(samples.tokens.shape[1]))
    wide_positions, wide_labels = np.zeros(room, "int64"), np.full(room, IGNORED, "int64")
    wide_positions[: len(labels)], wide_labels[: len(labels)] = positions, labels
    return tokens, wide_positions, wide_labels


def room_for(parts: Sequence[Samples]) -> int:
    """Labels per micro-batch of a step: the largest number among them, rounded up to a power of two."""
    most = max(int(part.targets[:, 1:].sum()) for part in parts)
    return min(1 << max(most - 1, 0).bit_length(), parts[0].targets[:, 1:].size)


def count_targets(samples: Samples) -> int:
    """The number of targets in the samples, at least 1."""
    return max(int(samples.targets[:, 1:].sum()), 1)
