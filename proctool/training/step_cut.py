"""Chooses how to cut a step so that it fits into memory: samples at a time, and gradient checkpointing.

This changes results only by rounding. The start event records what `auto` chose, and a resumed run uses the same. It
therefore ends with the bits of an uninterrupted run, whatever memory is free when it resumes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from proctool.errors import OptionError
from proctool.events import Event, StartEvent
from proctool.launched import launch
from proctool.models.memory import Layout, Memory, training_memory
from proctool.training.environment import flag
from proctool.training.options import AUTO, TrainingOptions
from proctool.training.room import DeviceMemory, device_memory
from proctool.units import format_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MemoryOf = Callable[[bool], Memory]
"""Estimates the memory of training, with or without gradient checkpointing."""


@dataclass(frozen=True)
class StepCut:
    """How a process divides its share of a step."""

    micro_batch: int
    """Samples per micro-batch."""
    accumulate: int
    """Number of micro-batches."""
    gradient_checkpointing: bool
    fits: bool = True
    """Whether the estimate fits into memory. Always true if nothing had to be chosen."""
    lean_mlp: bool = False
    """Whether the backward pass recomputes GPT-2's GELU (models/faster.py)."""

    def applied(self, options: TrainingOptions) -> TrainingOptions:
        """The options with `auto` replaced by the choice."""
        return dataclasses.replace(
            options, micro_batch=None, accumulate=self.accumulate, gradient_checkpointing=self.gradient_checkpointing
        )


def is_chosen(options: TrainingOptions) -> bool:
    """Whether the options leave something open that depends on memory."""
    return AUTO in (options.micro_batch, options.gradient_checkpointing)


def cut_step(
    options: TrainingOptions, memory_of: MemoryOf, room: int, *, processes: int = 1, sharded: bool = False
) -> StepCut:
    """The cut for `room` bytes per process: as few micro-batches as fit, with checkpointing only if necessary.

    If nothing fits, the cut is one sample at a time with checkpointing, if the options allow it, because the estimate
    may be too high. Raises OptionError if the processes cannot share the batch evenly.
    """
    most = options.samples_at_once(processes)
    share = options.batch_size // processes

    def largest(memory: Memory) -> int:
        if options.micro_batch != AUTO:
            return most if memory.peak(Layout(most, processes, sharded, most < share)) <= room else 0
        return memory.largest_micro_batch(room, share, devices=processes, sharded=sharded)

    wanted = options.gradient_checkpointing
    checkpointing = wanted is True
    micro = largest(memory_of(checkpointing))
    if not micro and wanted == AUTO:
        checkpointing = True
        micro = largest(memory_of(True))
    found = micro or (1 if options.micro_batch == AUTO else most)
    return StepCut(found, share // found, checkpointing, fits=bool(micro))


def fixed_cut(options: TrainingOptions, processes: int = 1) -> StepCut:
    """The cut for options that leave nothing open. Raises OptionError."""
    micro = options.samples_at_once(processes)
    return StepCut(micro, options.batch_size // processes // micro, options.gradient_checkpointing is True)


def recorded_cut(options: TrainingOptions, events: Iterable[Event], processes: int = 1) -> StepCut | None:
    """The choice in a run's start event; None if there is none or it does not suit the number of processes."""
    start = next((event for event in events if isinstance(event, StartEvent)), None)
    if start is None or not start.micro_batch or start.gradient_checkpointing is None:
        return None
    share, uneven = divmod(options.batch_size, processes)
    if uneven or share % start.micro_batch:
        return None
    return StepCut(start.micro_batch, share // start.micro_batch, start.gradient_checkpointing)


def cut_for(
    options: TrainingOptions, model: PreTrainedModel, length: int, device: torch.device, events: Iterable[Event] = ()
) -> StepCut:
    """The cut for training `model` on samples of `length` tokens on this launch's devices.

    `events` are those of a run to resume. Its choice is kept unless it exceeds the device's total memory. All processes
    of the launch must call this. Raises OptionError.
    """
    from proctool.training.loss import LOGITS_AT_ONCE

    on_cpu, processes = device.type == "cpu", launch().processes
    sharded = flag("ACCELERATE_USE_FSDP")

    def memory_of(checkpointing: bool, lean: bool = True) -> Memory:
        return training_memory(
            model, length=length, logits_at_once=LOGITS_AT_ONCE, precision=options.precision,
            dropout=options.dropout, checkpointing=checkpointing, on_cpu=on_cpu, lean=lean,
            optimizer=options.optimizer,
        )  # fmt: skip

    def peak(cut: StepCut, lean: bool = True) -> int:
        layout = Layout(cut.micro_batch, processes, sharded, cut.accumulate > 1)
        return memory_of(cut.gradient_checkpointing, lean).peak(layout)

    cut = fixed_cut(options, processes) if not is_chosen(options) else recorded_cut(options, events, processes)
    # No estimate is needed on a CPU, where GELU takes a hundredth of the time, or if a compiler decides.
    if cut is not None and not is_chosen(options) and (on_cpu or options.compile):
        return dataclasses.replace(cut, lean_mlp=not cut.gradient_checkpointing)
    room, total = _agreed(device_memory(device, processes))
    if cut is None or (is_chosen(options) and peak(cut) > total):
        cut = cut_step(options, memory_of, room, processes=processes, sharded=sharded)
    keeps = not on_cpu and peak(cut, lean=False) <= room
    return dataclasses.replace(cut, lean_mlp=not cut.gradient_checkpointing and not keeps)


def require_possible(cut: StepCut, model: PreTrainedModel, length: int, device: torch.device) -> None:
    """Raise OptionError if even a 16-bit hidden state per layer and token does not fit; all training keeps those."""
    config = model.config
    layers, width = (getattr(config, name, 0) for name in ("num_hidden_layers", "hidden_size"))
    needed, total = 2 * cut.micro_batch * length * layers * width, device_memory(device).total
    if needed > total:
        raise OptionError(
            f"batch_size: {cut.micro_batch} samples of {length} tokens at once need more than {format_bytes(needed)}, "
            f"and there are {format_bytes(total)} of memory; lower it, or give --micro-batch auto"
        )


def planned_memory(options: TrainingOptions, model: PreTrainedModel, length: int) -> dict[str, Any]:
    """For a dry run: the estimated peak memory of one process of this launch, its share of the device's memory, and the
    cut that follows from the free memory.
    """
    from proctool.training.loss import LOGITS_AT_ONCE

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    sharers = launch().processes if device is None else 1
    cut = cut_for(options, model, length, device or torch.device("cpu"))
    memory = training_memory(
        model, length=length, logits_at_once=LOGITS_AT_ONCE, precision=options.precision, dropout=options.dropout,
        checkpointing=cut.gradient_checkpointing, on_cpu=device is None, lean=cut.lean_mlp,
        optimizer=options.optimizer,
    )  # fmt: skip
    layout = Layout(cut.micro_batch, launch().processes, accumulates=cut.accumulate > 1)
    chosen = {"micro_batch": cut.micro_batch, "gradient_checkpointing": cut.gradient_checkpointing}
    total = device_memory(device or torch.device("cpu")).total // sharers
    return {"peak_bytes": memory.peak(layout), "memory_bytes": total, **(chosen if is_chosen(options) else {})}


def _agreed(memory: DeviceMemory) -> tuple[int, int]:
    """The smallest room and total over all processes, because all use the same cut."""
    held = [(memory.room, memory.total)]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        from accelerate.utils import gather_object

        held = gather_object(held)
    return min(room for room, _ in held), min(total for _, total in held)
