"""What an experiment, or one run, takes on named GPUs: operations, memory, hours. Nothing is run or opened."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from proctool.errors import OptionError
from proctool.experiment.cost import flops, outlined
from proctool.experiment.estimate import seconds_left
from proctool.experiment.stage import Label, Stage
from proctool.models.hardware import GPU, find_gpu
from proctool.models.memory import Layout, Memory, training_memory
from proctool.training.options import AUTO, PretrainOptions, TrainingOptions
from proctool.training.step_cut import cut_step

_MOST_GPUS = 100_000


@dataclass(frozen=True, kw_only=True)
class HardwareOptions:
    """The GPUs to plan for."""

    gpu: str = "h100"
    """The kind: h100, h100-pcie, h200, b200, a100-40gb, a100-80gb, l40s, rtx-4090, v100-32gb, ..."""
    gpus: tuple[int, ...] = field(default=(1, 8, 64), metadata={"comma": True})
    """How many of them; several numbers give several columns."""
    mfu: float = 0.4
    """The share of the GPU's peak that training reaches (MFU), taken to be the same on any number of them."""

    def __post_init__(self) -> None:
        find_gpu(self.gpu)
        if not 0 < self.mfu <= 1:
            raise OptionError(f"mfu = {self.mfu:g}: a share of the peak, above 0 and at most 1; 0.3 to 0.5 is usual")
        if not self.gpus:
            raise OptionError("gpus: name at least one number")
        for number in self.gpus:
            if not 1 <= number <= _MOST_GPUS:
                raise OptionError(f"gpus = {number}: must be from 1 to {_MOST_GPUS}")


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """One pretraining run to plan, as for `proctool pretrain`."""

    model: str = "gpt2"
    """A preset, layers x heads x width (4x4x64), config.json or OWNER/NAME."""
    family: str = "gpt2"
    """Architecture family for shapes and presets: gpt2, llama, qwen3, ..."""
    tokenizer: str = "gpt2"
    """Gives the vocabulary; one that is not at hand is taken to be as large as GPT-2's."""
    end_of_text: str | None = None
    """The token that ends a text (default: the one the tokenizer names)."""
    context: int = 1024
    """Tokens in one row."""
    batch_size: int = 32
    """Samples in one optimiser step, over all micro-batches and processes."""
    accumulate: int = 1
    """Micro-batches that one step is cut into on a single GPU."""
    budget: int | None = None
    """Tokens of the corpus."""
    steps: int | None = None
    """Optimiser steps (default: once over the budget)."""
    precision: str = "bf16"
    """fp32, tf32, bf16 or fp16."""
    micro_batch: int | Literal["auto"] | None = None
    """Samples at once on a GPU, in place of --accumulate; auto: as many as fit."""
    gradient_checkpointing: bool | Literal["auto"] = False
    """Recompute activations in the backward pass: on, off, or auto (only if needed to fit)."""
    dropout: float = 0.0
    """Dropout everywhere the family has it."""

    def stage(self) -> Stage:
        """The run as a stage of its own. Raises OptionError."""
        steps = self.steps
        if steps is None:
            if self.budget is None:
                raise OptionError("plan needs a recipe, or --budget TOKENS, or --steps")
            steps = max(1, -(-self.budget // max(1, self.batch_size * self.context)))
        from proctool.config import build

        options = build(
            PretrainOptions,
            {
                "steps": steps,
                **{
                    name: getattr(self, name)
                    for name in (
                        "model", "family", "tokenizer", "end_of_text", "context", "batch_size", "accumulate", "budget",
                        "micro_batch", "precision", "gradient_checkpointing", "dropout",
                    )
                },
            },
            "",
        )  # fmt: skip
        return Stage(Label("pretrain"), ("pretrain",), options, {}, None, options.context)


@dataclass(frozen=True)
class GpuFit:
    """One stage on some GPUs: how a step is cut, what one GPU holds at its peak (bytes), and the time."""

    gpus: int
    processes: int
    """GPUs that train one stage together: what is left over trains another stage, or nothing."""
    micro_batch: int
    accumulate: int
    gradient_checkpointing: bool
    plain: int
    sharded: int
    fits: bool
    fits_sharded: bool
    advice: str | None
    """What to change where it does not fit as planned."""
    seconds: float


@dataclass(frozen=True)
class StagePlan:
    """Stages that differ in the seed alone."""

    name: str
    stages: int
    parameters: int
    tokens: int
    """Of each stage."""
    epochs: float | None
    flops: int
    precision: str
    fits: tuple[GpuFit, ...]
    tries: int = 1
    """Most donors that each trains; the costs are of one."""


@dataclass(frozen=True)
class Total:
    """All stages on some GPUs."""

    gpus: int
    processes: int
    at_once: int
    """Stages that train beside each other."""
    seconds: float


@dataclass(frozen=True)
class ExperimentPlan:
    """Everything that `proctool plan` shows."""

    gpu: GPU
    mfu: float
    stages: tuple[StagePlan, ...]
    tokens: int
    flops: int
    totals: tuple[Total, ...]


def plan_stages(stages: Sequence[Stage], hardware: HardwareOptions, processes: int = 1) -> ExperimentPlan:
    """What `stages` (parents first) take; `processes` is for how many GPUs their `accumulate` was written.

    Time is a stage's operations over those of its GPUs at `hardware.mfu`: linear scaling, evaluations and checkpoints
    left out. A step is never cut below one sample a GPU; what stays free trains other stages. Raises OptionError,
    ModelError.
    """
    gpu = find_gpu(hardware.gpu)
    training = [stage for stage in stages if stage.trains]
    together = {count: _together(training, count) for count in hardware.gpus}
    groups: dict[tuple[str, TrainingOptions], list[Stage]] = {}
    for stage in training:
        groups.setdefault((stage.label.group, dataclasses.replace(_training(stage), seed=0)), []).append(stage)
    plans = []
    for (name, _), group in groups.items():
        first = group[0]
        fits = tuple(_fit(first, gpu, hardware.mfu, count, together[count], processes) for count in hardware.gpus)
        options = _training(first)
        plans.append(
            StagePlan(
                name, len(group), sum(each.numel() for each in outlined(first).parameters()), first.tokens,
                _epochs(first), flops(first), options.precision, fits, first.tries,
            )
        )  # fmt: skip
    totals = []
    for place, count in enumerate(hardware.gpus):
        left: dict[str, float | None] = {stage.key: 0.0 for stage in stages}
        for group, plan in zip(groups.values(), plans, strict=True):
            left |= {stage.key: plan.fits[place].seconds for stage in group}
        at_once = count // together[count]
        seconds = seconds_left(stages, left, set(), at_once)
        assert seconds is not None, "every stage has its seconds"
        totals.append(Total(count, together[count], at_once, seconds))
    return ExperimentPlan(
        gpu, hardware.mfu, tuple(plans), sum(stage.tokens for stage in training), sum(map(flops, training)),
        tuple(totals),
    )  # fmt: skip


def _training(stage: Stage) -> TrainingOptions:
    assert isinstance(stage.options, TrainingOptions)
    return stage.options


def _together(stages: Sequence[Stage], count: int) -> int:
    """The most of `count` GPUs over which the batches of all stages can be spread evenly."""
    common = math.gcd(*(_training(stage).batch_size for stage in stages)) if stages else 1
    return _divisor(common, count)


def _divisor(number: int, most: int) -> int:
    """The largest divisor of `number` up to `most`."""
    return next(each for each in range(min(number, max(most, 1)), 0, -1) if number % each == 0)


def _epochs(stage: Stage) -> float | None:
    options = stage.options
    if isinstance(options, PretrainOptions) and options.budget:
        return stage.tokens / options.budget
    return None


def stage_memory(stage: Stage, *, checkpointing: bool) -> Memory:
    """The memory of a stage on a GPU, with gradient checkpointing or without. Raises ModelError."""
    from proctool.models.components import train_only
    from proctool.training.loss import LOGITS_AT_ONCE

    options = _training(stage)
    model = outlined(stage)
    if options.train is not None:
        model = copy.deepcopy(model)
        train_only(model, options.train)
    return training_memory(
        model, length=stage.length, logits_at_once=LOGITS_AT_ONCE, precision=options.precision,
        dropout=options.dropout,
        checkpointing=checkpointing,
    )  # fmt: skip


def _fit(stage: Stage, gpu: GPU, mfu: float, gpus: int, together: int, processes: int) -> GpuFit:
    options = _training(stage)
    peak = gpu.peak(options.precision)
    if peak is None:
        raise OptionError(f"gpu: a {gpu.name} has no {options.precision}; plan with fp16 (a recipe's launch.precision)")
    share = options.batch_size // together
    micro = _divisor(share, options.samples_at_once(processes))
    fixed = dataclasses.replace(
        options, batch_size=share * together, accumulate=1,
        micro_batch=AUTO if options.micro_batch == AUTO else micro,
    )  # fmt: skip
    # What is planned is a whole model on each GPU; where it does not fit, the advice may be to shard it.
    cut = cut_step(fixed, lambda again: stage_memory(stage, checkpointing=again), gpu.room, processes=together)
    micro, memory = cut.micro_batch, stage_memory(stage, checkpointing=cut.gradient_checkpointing)
    plain, sharded = (memory.peak(Layout(micro, together, shard, micro < share)) for shard in (False, True))
    fits, fits_sharded = plain <= gpu.room, together > 1 and sharded <= gpu.room
    advice = None if fits else _advice(stage, memory, gpu, share, together, fits_sharded)
    seconds = flops(stage) / (peak * mfu * together)
    checkpointing = cut.gradient_checkpointing
    return GpuFit(
        gpus, together, micro, share // micro, checkpointing, plain, sharded, fits, fits_sharded, advice, seconds
    )


def _advice(stage: Stage, memory: Memory, gpu: GPU, share: int, together: int, fits_sharded: bool) -> str:
    """The least change with which it fits."""
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
    return "does not fit; take larger GPUs" + (", or more to shard over" if share > 1 else "")
