"""The cost of an experiment or a run on given GPUs: operations, memory, hours. Nothing is run or opened."""

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
    """GPU type: h100, h200, b200, a100-80gb, l40s, rtx-4090, ..."""
    gpus: tuple[int, ...] = field(default=(1, 8, 64), metadata={"comma": True})
    """Number of GPUs; each number gives a column."""
    mfu: float = 0.4
    """Share of the GPU's peak that training reaches (MFU)."""

    def __post_init__(self) -> None:
        find_gpu(self.gpu)
        if not 0 < self.mfu <= 1:
            raise OptionError(f"mfu = {self.mfu:g}: must be above 0 and at most 1; 0.3 to 0.5 is usual")
        if not self.gpus:
            raise OptionError("gpus: give at least one number")
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
    """Sets the vocabulary size; without a local file, GPT-2's size counts."""
    end_of_text: str | None = None
    """The token that ends a text (default: the one the tokenizer names)."""
    context: int = 1024
    """Tokens per row."""
    batch_size: int = 32
    """Samples per optimiser step, over all micro-batches and processes."""
    accumulate: int = 1
    """Micro-batches per step on a single GPU."""
    budget: int | None = None
    """Tokens of the corpus."""
    steps: int | None = None
    """Optimiser steps (default: one pass over the budget)."""
    precision: str = "bf16"
    """fp32, tf32, bf16 or fp16."""
    micro_batch: int | Literal["auto"] | None = None
    """Samples at once on a GPU instead of --accumulate; auto: what fits."""
    gradient_checkpointing: bool | Literal["auto"] = False
    """Recompute activations in the backward pass; auto: only if needed."""
    dropout: float = 0.0
    """Dropout rate wherever the family has dropout."""

    def stage(self) -> Stage:
        """The run as a stage. Raises OptionError."""
        steps = self.steps
        if steps is None:
            if self.budget is None:
                raise OptionError("plan: give a recipe, --budget TOKENS or --steps N")
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
    """The cost of `stages` (parents first); their `accumulate` is meant for `processes` GPUs.

    The time is a stage's operations divided by the speed of its GPUs at `hardware.mfu`. It assumes linear scaling and
    leaves out evaluations and checkpoints. Each GPU gets at least one sample of a step; free GPUs train other stages.
    Raises OptionError, ModelError.
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
                _epochs(first), flops(first), options.precision, fits, first.tries, first.procedural_tokens,
            )
        )  # fmt: skip
    totals = []
    for place, count in enumerate(hardware.gpus):
        left: dict[str, float | None] = {stage.key: 0.0 for stage in stages}
        for group, plan in zip(groups.values(), plans, strict=True):
            left |= {stage.key: plan.fits[place].seconds for stage in group}
        at_once = count // together[count]
        seconds = seconds_left(stages, left, set(), at_once)
        assert seconds is not None, "every stage has an estimate"
        totals.append(Total(count, together[count], at_once, seconds))
    return ExperimentPlan(
        gpu, hardware.mfu, tuple(plans), sum(stage.tokens for stage in training), sum(map(flops, training)),
        tuple(totals),
    )  # fmt: skip


def _training(stage: Stage) -> TrainingOptions:
    assert isinstance(stage.options, TrainingOptions)
    return stage.options


def _together(stages: Sequence[Stage], count: int) -> int:
    """The largest number of GPUs, at most `count`, that divides the batches of all stages evenly."""
    common = math.gcd(*(_training(stage).batch_size for stage in stages)) if stages else 1
    return _divisor(common, count)


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
    from proctool.models.components import train_only
    from proctool.training.loss import LOGITS_AT_ONCE

    options = _training(stage)
    model = outlined(stage)
    if options.train is not None:
        model = copy.deepcopy(model)
        train_only(model, options.train)
    return training_memory(
        model, length=stage.length, logits_at_once=LOGITS_AT_ONCE, precision=options.precision,
        dropout=options.dropout, checkpointing=checkpointing, optimizer=options.optimizer,
    )  # fmt: skip


def _fit(stage: Stage, gpu: GPU, mfu: float, gpus: int, together: int, processes: int) -> GpuFit:
    options = _training(stage)
    peak = gpu.peak(options.precision)
    if peak is None:
        raise OptionError(
            f"gpu: {gpu.name} does not support {options.precision}; plan with fp16 (in a recipe: launch.precision)"
        )
    share = options.batch_size // together
    micro = _divisor(share, options.samples_at_once(processes))
    fixed = dataclasses.replace(
        options, batch_size=share * together, accumulate=1,
        micro_batch=AUTO if options.micro_batch == AUTO else micro,
    )  # fmt: skip
    # The plan has a whole model on each GPU; if it does not fit, the advice may be to shard it.
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
