"""The cost of an experiment or a run on given GPUs: operations, memory, hours. Nothing is run or opened."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proctool.experiment.cost import flops, outlined
from proctool.experiment.estimate import seconds_left
from proctool.experiment.plan_options import HardwareOptions
from proctool.experiment.planned_device import Device, planned_device, usual_mfu
from proctool.experiment.stage import Stage
from proctool.experiment.stage_time import StageTime, stage_time
from proctool.models.memory import Layout, Memory, training_memory
from proctool.training.options import AUTO, PretrainOptions, TrainingOptions
from proctool.training.step_cut import cut_step

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class GpuFit:
    """One stage on some GPUs: the split of a step, the peak memory of one GPU in bytes, and the time."""

    gpus: int
    processes: int
    """GPUs that train one stage together; the rest train other stages or are idle."""
    micro_batch: int
    accumulate: int
    gradient_checkpointing: bool
    plain: int
    sharded: int
    fits: bool
    fits_sharded: bool
    advice: str | None
    """The change that makes it fit, if it does not."""
    seconds: float
    floor: float
    """Seconds that a step takes at least, to start its kernels."""
    flops_at_floor: float
    """FLOPs of a step on one GPU that take as long as the floor."""
    at_floor: bool
    """Whether the time is that of the floor, because the FLOPs alone would take less."""


@dataclass(frozen=True)
class StagePlan:
    """Stages that differ only in their seed."""

    name: str
    stages: int
    parameters: int
    tokens: int
    """For each stage."""
    epochs: float | None
    flops: int
    precision: str
    fits: tuple[GpuFit, ...]
    tries: int = 1
    """Maximum number of donors per stage; the costs are for one donor."""
    procedural_tokens: int = 0
    """Those of `tokens` that are procedural; the others are of a corpus."""


@dataclass(frozen=True)
class Total:
    """All stages on some GPUs."""

    gpus: int
    processes: int
    at_once: int
    """Stages that train at the same time."""
    seconds: float
    cost: float | None
    """Of all its GPUs for that time, if their price is known."""


@dataclass(frozen=True)
class ExperimentPlan:
    """Everything that `proctool plan` shows."""

    gpu: Device
    mfu: float
    stages: tuple[StagePlan, ...]
    tokens: int
    flops: int
    totals: tuple[Total, ...]


def plan_stages(stages: Sequence[Stage], hardware: HardwareOptions, processes: int = 1) -> ExperimentPlan:
    """The cost of `stages` (parents first); their `accumulate` is meant for `processes` GPUs.

    The time is a stage's operations divided by the speed of its GPUs at `hardware.mfu`, but at least the time to start
    the kernels of its steps. It assumes linear scaling and leaves out evaluations and checkpoints. Each GPU gets at
    least one sample of a step; free GPUs train other stages.
    Raises OptionError, ModelError.
    """
    device = planned_device(hardware)
    mfu = hardware.mfu or usual_mfu(device)
    training = [stage for stage in stages if stage.trains]
    groups: dict[tuple[str, TrainingOptions], list[Stage]] = {}
    for stage in training:
        groups.setdefault((stage.label.group, dataclasses.replace(_training(stage), seed=0)), []).append(stage)
    timed = [(group, stage_time(group[0], device, mfu)) for group in groups.values()]
    totals = [_total(stages, timed, count, processes, hardware.price_per_hour) for count in hardware.counts]
    plans = []
    for (name, _), (group, time) in zip(groups, timed, strict=True):
        first = group[0]
        fits = tuple(_fit(first, time, device, total, processes) for total in totals)
        plans.append(
            StagePlan(
                name, len(group), sum(each.numel() for each in outlined(first).parameters()), first.tokens,
                _epochs(first), flops(first), _training(first).precision, fits, first.tries, first.procedural_tokens,
            )
        )  # fmt: skip
    return ExperimentPlan(
        device, mfu, tuple(plans), sum(stage.tokens for stage in training), sum(map(flops, training)),
        tuple(totals),
    )  # fmt: skip


def _total(
    stages: Sequence[Stage],
    timed: Sequence[tuple[Sequence[Stage], StageTime]],
    count: int,
    processes: int,
    price: float | None,
) -> Total:
    """All stages on `count` GPUs: as many GPUs for each stage as can share its steps, or fewer if that is faster.

    Fewer are faster for tiny steps: more GPUs do not shorten them, but train other stages meanwhile.
    """
    best: Total | None = None
    batches = [_training(group[0]).batch_size for group, _ in timed]
    common = math.gcd(*batches) if batches else 1
    for together in (each for each in range(min(common, count), 0, -1) if common % each == 0):
        left: dict[str, float | None] = {stage.key: 0.0 for stage in stages}
        for group, time in timed:
            parts = _at_once(group[0], together, processes)[1]
            left |= dict.fromkeys((stage.key for stage in group), time.seconds(together, parts))
        at_once = count // together
        seconds = seconds_left(stages, left, set(), at_once)
        assert seconds is not None, "every stage has an estimate"
        if best is None or seconds < 0.99 * best.seconds:
            cost = None if price is None else price * count * seconds / 3600
            best = Total(count, together, at_once, seconds, cost)
    assert best is not None, "one GPU divides every batch"
    return best


def _training(stage: Stage) -> TrainingOptions:
    assert isinstance(stage.options, TrainingOptions)
    return stage.options


def _divisor(number: int, most: int) -> int:
    """The largest divisor of `number` up to `most`."""
    return next(each for each in range(min(number, max(most, 1)), 0, -1) if number % each == 0)


def _epochs(stage: Stage) -> float | None:
    options = stage.options
    if isinstance(options, PretrainOptions) and options.budget:
        return (stage.tokens - stage.procedural_tokens) / options.budget
    return None


def stage_memory(stage: Stage, *, checkpointing: bool) -> Memory:
    """The memory of a stage on a GPU, with or without gradient checkpointing. Raises ModelError."""
    options = _training(stage)
    return _memory(
        outlined(stage), stage.length, options.train, options.precision, options.dropout, options.optimizer,
        checkpointing,
    )  # fmt: skip


@functools.lru_cache(maxsize=64)
def _memory(
    model: PreTrainedModel,
    length: int,
    train: tuple[str, ...] | None,
    precision: str,
    dropout: float,
    optimizer: str,
    checkpointing: bool,
) -> Memory:
    from proctool.models.components import train_only
    from proctool.training.loss import LOGITS_AT_ONCE

    if train is not None:
        model = copy.deepcopy(model)
        train_only(model, train)
    return training_memory(
        model, length=length, logits_at_once=LOGITS_AT_ONCE, precision=precision, dropout=dropout,
        checkpointing=checkpointing, optimizer=optimizer,
    )  # fmt: skip


def _at_once(stage: Stage, together: int, processes: int) -> tuple[int, int]:
    """Samples at once on each of so many GPUs, and micro-batches in a step, before memory is considered."""
    options = _training(stage)
    share = options.batch_size // together
    micro = _divisor(share, options.samples_at_once(processes))
    return micro, share // micro


def _fit(stage: Stage, time: StageTime, device: Device, total: Total, processes: int) -> GpuFit:
    options, together = _training(stage), total.processes
    share = options.batch_size // together
    micro, _ = _at_once(stage, together, processes)
    fixed = dataclasses.replace(
        options, batch_size=share * together, accumulate=1,
        micro_batch=AUTO if options.micro_batch == AUTO else micro,
    )  # fmt: skip
    # The plan has a whole model on each GPU; if it does not fit, the advice may be to shard it.
    cut = cut_step(fixed, lambda again: stage_memory(stage, checkpointing=again), device.room, processes=together)
    micro, memory = cut.micro_batch, stage_memory(stage, checkpointing=cut.gradient_checkpointing)
    plain, sharded = (memory.peak(Layout(micro, together, shard, micro < share)) for shard in (False, True))
    fits, fits_sharded = plain <= device.room, together > 1 and sharded <= device.room
    advice = None if fits else _advice(stage, memory, device, share, together, fits_sharded)
    parts = share // micro
    floor = time.floor(parts)
    return GpuFit(
        total.gpus, together, micro, parts, cut.gradient_checkpointing, plain, sharded, fits, fits_sharded, advice,
        time.seconds(together, parts), floor, floor * time.rate, time.is_at_floor(together, parts),
    )  # fmt: skip


def _advice(stage: Stage, memory: Memory, gpu: Device, share: int, together: int, fits_sharded: bool) -> str:
    """The smallest change that makes it fit."""
    largest = functools.partial(Memory.largest_micro_batch, room=gpu.room, share=share, devices=together)
    if micro := largest(memory):
        return f"accumulate: {share // micro}"
    if fits_sharded:
        return "shard it (FSDP2)"
    if together > 1 and (micro := largest(memory, sharded=True)):
        return f"shard it (FSDP2), accumulate: {share // micro}"
    lean = stage_memory(stage, checkpointing=True)
    if micro := largest(lean):
        return f"gradient_checkpointing, accumulate: {share // micro}"
    if together > 1 and (micro := largest(lean, sharded=True)):
        return f"shard it (FSDP2), gradient_checkpointing, accumulate: {share // micro}"
    return "does not fit; use larger GPUs" + (", or shard over more GPUs" if share > 1 else "")
