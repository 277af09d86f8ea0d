"""One optimiser step: from a step's samples to changed weights, without a wait of the host for the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor

from proctool.procedural.samples import Samples
from proctool.training.arrays import count_targets, room_for
from proctool.training.batch import AnyBatch, Batch, MixedBatch, StepBatches, by_length
from proctool.training.engine import Engine
from proctool.training.guard import Guard
from proctool.training.late import Readout
from proctool.training.loss import LOGITS_AT_ONCE

BATCHES_AHEAD = 32
"""Batches made ahead where a step takes about a millisecond: a stream draws 1024 samples at once, in several."""
_LAUNCH_BOUND = 1e11
"""Operations of a step below which launches take most of its time: about 5 ms at 20 TFLOP/s, for some 500 kernels."""


class Step:
    """Gradients of a step's micro-batches, their norm and what the guard says of it, then new weights.

    With a `lag`, the weights are changed without asking: a bad gradient leaves them, the optimiser's state and its
    step count as they are, and so do all after it. Without, the guard's verdict is read first.
    """

    def __init__(self, engine: Engine, guard: Guard, clip: float | None, lag: int) -> None:
        self.engine, self.guard, self.clip, self.lag = engine, guard, clip, lag
        self.accelerator = engine.accelerator

    def __call__(self, batches: Sequence[AnyBatch], targets: int, rate: float, *, is_logged: bool) -> Readout:
        """Take a step over this process's micro-batches, with so many targets in all processes. What was judged."""
        self.engine.set_learning_rate(rate)
        return Readout(self.take([_on_device(batch, self.accelerator.device) for batch in batches], targets, is_logged))

    def take(self, batches: Sequence[AnyBatch], targets: int | Tensor, is_logged: bool) -> Tensor:
        """The step on batches that are on the device already; `Guard.judge`'s numbers.

        For procedural rows among corpus rows, their share of the loss follows.
        """
        is_mixed = isinstance(batches[0], MixedBatch)
        losses = torch.zeros((2,) if is_mixed else (), device=self.accelerator.device)
        for number, batch in enumerate(batches, start=1):
            losses += self.engine.add_gradients(batch, targets, number == len(batches))
        norm = self.engine.clip_or_step(self.clip)
        scaled = self.accelerator.scaler is not None
        if (is_logged or scaled) and self.accelerator.num_processes > 1:
            losses = self.accelerator.reduce(losses)
        loss, *procedural = losses.unbind() if is_mixed else (losses,)
        judged = self.guard.judge(loss, norm, scaled=scaled)
        if self.lag:
            self.engine.step(hold=self.guard.stopped)
        elif not judged[0]:
            self.engine.step()
        return torch.cat([judged, procedural[0].to(judged.dtype)[None]]) if procedural else judged


def has_fixed_shapes(device: str, processes: int, flops: float, logits: int) -> bool:
    """Whether a step's batches are padded to one shape: where a GPU takes longer to launch kernels than to run them.

    `flops` are those of a padded step, `logits` the most numbers that a micro-batch's logits can have, which padded
    targets ask to be made at once.
    """
    return device == "cuda" and processes == 1 and flops < _LAUNCH_BOUND and logits <= LOGITS_AT_ONCE


def micro_batches(samples: Samples, micro: int, accelerator: Accelerator, fixed: bool = False) -> StepBatches:
    """A step's micro-batches for this process, and how many targets the step has in all.

    With `fixed`, all have one shape: that of the samples, and targets rounded up to a power of two.
    """
    parts = list(_shares(samples, micro, accelerator, cut=not fixed))
    room = room_for(parts) if fixed else None
    is_mixed = samples.procedural is not None and not fixed  # the number of procedural targets changes shapes
    batches = [MixedBatch.of(part) if is_mixed else Batch.of(part, room=room) for part in parts]
    if accelerator.device.type == "cuda":  # from pinned memory, copies run beside the computation
        batches = [type(batch)(*(tensor.pin_memory() for tensor in batch)) for batch in batches]
    procedural = int(samples.targets[samples.procedural, 1:].sum()) if is_mixed else None
    return StepBatches(batches, count_targets(samples), procedural)


def _on_device(batch: AnyBatch, device: torch.device) -> AnyBatch:
    return type(batch)(*(tensor.to(device, non_blocking=True) for tensor in batch))


def _shares(samples: Samples, micro: int, accelerator: Accelerator, cut: bool) -> Iterator[Samples]:
    """This process's micro-batches of a step's samples, to be cut further by length where that saves work."""
    for start in range(accelerator.process_index * micro, len(samples), accelerator.num_processes * micro):
        part = samples.at(slice(start, start + micro))
        # Processes must make as many backward passes as each other, so only one alone may cut further.
        yield from by_length(part) if cut and accelerator.num_processes == 1 else [part]
