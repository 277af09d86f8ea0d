"""One optimiser step, from samples to updated weights. The host does not wait for the device within it."""

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
"""Batches to prepare in advance if a step takes about 1 ms. Streams draw blocks of 1024 samples, which takes longer."""
_LAUNCH_BOUND = 1e11
"""A step of fewer operations spends most of its time on launches: 1e11 take 5 ms at 20 TFLOP/s, in some 500 kernels."""


class Step:
    """An optimiser step: gradients of the micro-batches, their norm, the guard's verdict, new weights.

    With a `lag` (in steps), the host does not read the verdict before the update. The optimiser obeys it on the device:
    from a bad gradient on, no step changes the weights, the optimiser's state or its step count. With `lag` 0, the host
    reads the verdict and then decides.
    """

    def __init__(self, engine: Engine, guard: Guard, clip: float | None, lag: int) -> None:
        self.engine, self.guard, self.clip, self.lag = engine, guard, clip, lag
        self.accelerator = engine.accelerator

    def __call__(self, batches: Sequence[AnyBatch], targets: int, rate: float, *, is_logged: bool) -> Readout:
        """Take a step on this process's micro-batches; `targets` is the total of all processes. Returns the verdict."""
        self.engine.set_learning_rate(rate)
        return Readout(self.take([_on_device(batch, self.accelerator.device) for batch in batches], targets, is_logged))

    def take(self, batches: Sequence[AnyBatch], targets: int | Tensor, is_logged: bool) -> Tensor:
        """Take a step on batches that are already on the device.

        Returns what `Guard.judge` returns, (4,). With mixed batches, the loss share of procedural rows follows, (5,).
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
    """Whether to pad batches to one shape, which pays off if a GPU takes longer to launch kernels than to run them.

    `flops` counts the operations of a padded step. `logits` is the largest number of logits in a micro-batch; padded
    batches compute them all at once, so they must fit.
    """
    return device == "cuda" and processes == 1 and flops < _LAUNCH_BOUND and logits <= LOGITS_AT_ONCE


def micro_batches(samples: Samples, micro: int, accelerator: Accelerator, fixed: bool = False) -> StepBatches:
    """This process's micro-batches of a step, and the step's number of targets over all processes.

    With `fixed`, all micro-batches have the same shape: samples keep their length, and the number of targets is padded
    to a power of two.
    """
    parts = list(_shares(samples, micro, accelerator, cut=not fixed))
    room = room_for(parts) if fixed else None
    is_mixed = samples.procedural is not None and not fixed  # the number of procedural targets changes shapes
    batches = [MixedBatch.of(part) if is_mixed else Batch.of(part, room=room) for part in parts]
    if accelerator.device.type == "cuda":  # copies from pinned memory overlap with computation
        batches = [type(batch)(*(tensor.pin_memory() for tensor in batch)) for batch in batches]
    procedural = int(samples.targets[samples.procedural, 1:].sum()) if is_mixed else None
    return StepBatches(batches, count_targets(samples), procedural)


def _on_device(batch: AnyBatch, device: torch.device) -> AnyBatch:
    return type(batch)(*(tensor.to(device, non_blocking=True) for tensor in batch))


def _shares(samples: Samples, micro: int, accelerator: Accelerator, cut: bool) -> Iterator[Samples]:
    """This process's micro-batches of a step. `cut` allows splitting them by length."""
    for start in range(accelerator.process_index * micro, len(samples), accelerator.num_processes * micro):
        part = samples.at(slice(start, start + micro))
        # All processes must run the same number of backward passes, so only a single process may split.
        yield from by_length(part) if cut and accelerator.num_processes == 1 else [part]
