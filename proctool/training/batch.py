"""Samples as tensors, cut by length where that saves work."""

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
"""Lengths are rounded up to multiples of it, so that a compiled model meets few of them."""
_LEAST = 1 << 11
"""Tokens in a batch, below which cutting it further costs more than it saves."""


class Batch(NamedTuple):
    """Samples as tensors on a device: B samples of L tokens, with T targets among them.

    tokens     (B, L) int64; what follows the last target, which no prediction depends on, is cut off
    positions  (T,) int64, flat indices into (B, L) where predictions are made: one before each target
    labels     (T,) int64, the target tokens, or arrays.IGNORED
    """

    tokens: Tensor
    positions: Tensor
    labels: Tensor

    @classmethod
    def of(cls, samples: Samples, device: torch.device | str = "cpu", *, room: int | None = None) -> Batch:
        """The first token has nothing before it, so it is never a target.

        With `room`, the shape depends on the samples' shape alone: nothing is cut off, and T is `room`, of which no
        loss counts what is too much.
        """
        parts = padded(samples, room) if room is not None else arrays(samples, int(_needed(samples).max(initial=1)))
        made = (torch.from_numpy(np.ascontiguousarray(part, "int64")) for part in parts)
        return cls(*(part.to(device, non_blocking=True) for part in made))


class MixedBatch(NamedTuple):
    """A batch of corpus rows with procedural rows among them.

    procedural (K,) int64: which of the T targets are those of procedural rows
    """

    tokens: Tensor
    positions: Tensor
    labels: Tensor
    procedural: Tensor

    @classmethod
    def of(cls, samples: Samples) -> MixedBatch:
        """The samples, with their marks."""
        batch = Batch.of(samples)
        assert samples.procedural is not None
        rows = batch.positions // batch.tokens.shape[1]
        return cls(*batch, torch.from_numpy(samples.procedural)[rows].nonzero()[:, 0])


AnyBatch = Batch | MixedBatch


class StepBatches(NamedTuple):
    """What a step is taken on."""

    batches: Sequence[AnyBatch]
    """The micro-batches of this process."""
    targets: int
    """Target tokens of the step, in all processes; at least 1."""
    procedural: int | None = None
    """Those of procedural rows; None where losses are not measured apart."""


def by_length(samples: Samples) -> Iterator[Samples]:
    """The samples in groups of like length, counted to the last target, where that saves much of the work.

    In a haystack sample of one pair nearly all is padding; beside one of thirty it would be computed for nothing.
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
    """For each sample, how many tokens its predictions depend on: those before its last target; at least 1. (B,)"""
    length = samples.targets.shape[1]
    last = length - 1 - samples.targets[:, ::-1].argmax(1)
    return np.maximum(np.where(samples.targets.any(1), last, 0), 1)
