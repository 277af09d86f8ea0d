"""Samples as tensors, grouped by length where that saves work."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from proctool.training.arrays import arrays, padded

if TYPE_CHECKING:
    from proctool.procedural.samples import Samples

_STEP = 16
"""Lengths are rounded up to a multiple of this, so that a compiled model sees few different shapes."""
_LEAST = 1 << 11
"""Grouping must save at least this many tokens, or the extra batches cost more than they save."""


class Batch(NamedTuple):
    """Samples as tensors on a device: B samples of L tokens, with T targets in total.

    tokens     (B, L) int64; tokens from the last target on are cut off, since no prediction depends on them
    positions  (T,) int64, flat indices into (B, L) of the predictions, each one position before its target
    labels     (T,) int64, the target tokens, or arrays.IGNORED for padding
    """

    tokens: Tensor
    positions: Tensor
    labels: Tensor

    @classmethod
    def of(cls, samples: Samples, device: torch.device | str = "cpu", *, room: int | None = None) -> Batch:
        """Make a batch from samples. Their first token has no token before it, so it is never a target.

        With `room`, the batch's shape depends only on the samples' shape: no tokens are cut off, and the targets are
        padded to T = `room` with labels that the loss ignores.
        """
        parts = padded(samples, room) if room is not None else arrays(samples, int(_needed(samples).max(initial=1)))
        made = (torch.from_numpy(np.ascontiguousarray(part, "int64")) for part in parts)
        return cls(*(part.to(device, non_blocking=True) for part in made))


class MixedBatch(NamedTuple):
    """A batch of corpus rows and procedural rows; see Batch for the other fields.

    procedural  (K,) int64, the indices of the targets (0 to T - 1) that are in procedural rows
    """

    tokens: Tensor
    positions: Tensor
    labels: Tensor
    procedural: Tensor

    @classmethod
    def of(cls, samples: Samples) -> MixedBatch:
        """Make a batch from samples whose procedural rows are marked."""
        batch = Batch.of(samples)
        assert samples.procedural is not None
        rows = batch.positions // batch.tokens.shape[1]
        return cls(*batch, torch.from_numpy(samples.procedural)[rows].nonzero()[:, 0])


AnyBatch = Batch | MixedBatch


class StepBatches(NamedTuple):
    """The data of one optimiser step."""

    batches: Sequence[AnyBatch]
    """The micro-batches of this process."""
    targets: int
    """Target tokens of the step over all processes; at least 1."""
    procedural: int | None = None
    """Target tokens in procedural rows; None if their loss is not measured separately."""


def by_length(samples: Samples) -> Iterator[Samples]:
    """Group samples by length up to the last target, if that saves enough work; otherwise yield them as one group.

    Example: a haystack sample with one pair is mostly padding. In a batch with a sample of thirty pairs, the model
    would compute all of that padding.
    """
    needed = np.minimum(-(-_needed(samples) // _STEP) * _STEP, samples.tokens.shape[1])
    if len(samples) * int(needed.max(initial=1)) - int(needed.sum()) < _LEAST:
        yield samples
        return
    order = np.argsort(needed, kind="stable")
    edges = [0, *(np.flatnonzero(np.diff(needed[order])) + 1), len(order)]
    for start, stop in itertools.pairwise(edges):
        rows = order[start:stop]
        yield samples.at(rows)


def _needed(samples: Samples) -> np.ndarray:
    """The number of tokens before each sample's last target, at least 1; (B,). Predictions depend on no others."""
    length = samples.targets.shape[1]
    last = length - 1 - samples.targets[:, ::-1].argmax(1)
    return np.maximum(np.where(samples.targets.any(1), last, 0), 1)
