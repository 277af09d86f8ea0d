"""Options of `proctool plan`: the devices, and one run instead of a recipe. Does not import torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from proctool.errors import OptionError
from proctool.experiment.stage import Label, Stage
from proctool.models.hardware import find_gpu
from proctool.models.shapes import written_sizes
from proctool.training.options import PretrainOptions

_MOST_GPUS = 100_000
CPU = "cpu"


@dataclass(frozen=True, kw_only=True)
class HardwareOptions:
    """The devices to plan for."""

    gpu: str = "h100"
    """GPU type: h100, h200, b200, a100-80gb, rtx-4090, ...; cpu: this machine."""
    gpus: tuple[int, ...] | None = field(default=None, metadata={"comma": True})
    """Number of GPUs; each number gives a column (default: 1,8,64)."""
    mfu: float | None = None
    """Share of the peak that training reaches (default: 0.4; cpu: 0.6)."""
    price_per_hour: float | None = None
    """Price of a GPU (cpu: of this machine) per hour, in your currency."""

    def __post_init__(self) -> None:
        if not self.is_cpu:
            find_gpu(self.gpu)
        elif self.gpus not in (None, (1,)):
            raise OptionError("gpus: leave it out with --gpu cpu, which plans for this machine")
        if self.mfu is not None and not 0 < self.mfu <= 1:
            raise OptionError(f"mfu = {self.mfu:g}: must be above 0 and at most 1; 0.3 to 0.5 is usual")
        if self.gpus == ():
            raise OptionError("gpus: give at least one number")
        for number in self.gpus or ():
            if not 1 <= number <= _MOST_GPUS:
                raise OptionError(f"gpus = {number}: must be from 1 to {_MOST_GPUS}")
        price = self.price_per_hour
        if price is not None and not (0 <= price < math.inf):
            raise OptionError(f"price_per_hour = {price:g}: must be a number from 0")

    @property
    def is_cpu(self) -> bool:
        """Whether to plan for the CPU of this machine."""
        return self.gpu.lower() == CPU

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers of GPUs to plan for."""
        return self.gpus or ((1,) if self.is_cpu else (1, 8, 64))


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """One pretraining run to plan, as for `proctool pretrain`."""

    model: str = "gpt2"
    """A preset, layers x heads x width (4x4x64), config.json or OWNER/NAME."""
    family: str = "gpt2"
    """Architecture family for shapes and presets: gpt2, llama, qwen3, ..."""
    tokenizer: str | None = None
    """Sets the vocabulary size (default: the model's own, else gpt2)."""
    end_of_text: str | None = None
    """The token that ends a text (default: the one the tokenizer names)."""
    context: int = 1024
    """Tokens per row."""
    batch_size: int = 32
    """Samples per optimiser step, over all micro-batches and processes."""
    accumulate: int = 1
    """Micro-batches per step on a single GPU."""
    corpus: str | None = None
    """Corpus to train on; its tokens limit the budget. Never downloaded."""
    text_field: str | None = None
    """Field that holds a record's text, such as text or meta.text."""
    budget: int | None = None
    """Tokens of the corpus (default: all of them)."""
    steps: int | None = None
    """Optimiser steps (default: one pass over the budget)."""
    precision: str | None = None
    """fp32, tf32, bf16 or fp16 (default: bf16; cpu: fp32)."""
    micro_batch: int | Literal["auto"] | None = None
    """Samples at once on a GPU instead of --accumulate; auto: what fits."""
    gradient_checkpointing: bool | Literal["auto"] = False
    """Recompute activations in the backward pass; auto: only if needed."""
    dropout: float = 0.0
    """Dropout rate wherever the family has dropout."""

    @property
    def own_tokenizer(self) -> str:
        """The tokenizer: by default that of the model's folder or repository, if its configuration says a size."""
        return self.tokenizer or (self.model if written_sizes(self.model).vocab_size else "gpt2")

    def stage(self, *, corpus_tokens: int | None = None, precision: str = "bf16") -> Stage:
        """The run as a stage, on a corpus of so many training tokens. Raises OptionError."""
        known = [number for number in (self.budget, corpus_tokens) if number is not None]
        budget, steps = min(known, default=None), self.steps
        if steps is None:
            if budget is None:
                raise OptionError("plan: give a recipe, --budget TOKENS or --steps N")
            steps = max(1, -(-budget // max(1, self.batch_size * self.context)))
        from proctool.config import build

        options = build(
            PretrainOptions,
            {
                "steps": steps,
                "budget": budget,
                "tokenizer": self.own_tokenizer,
                "precision": self.precision or precision,
                **{
                    name: getattr(self, name)
                    for name in (
                        "model", "family", "end_of_text", "context", "batch_size", "accumulate", "micro_batch",
                        "gradient_checkpointing", "dropout",
                    )
                },
            },
            "",
        )  # fmt: skip
        return Stage(Label("pretrain"), ("pretrain",), options, {}, None, options.context)
