"""Options of training commands. Each field is a flag, a key in --config files and a key in recipes.

Does not import torch: help and dry runs read these classes.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, cast

from proctool import config as strict
from proctool.errors import OptionError
from proctool.models.components import parse_components
from proctool.models.shapes import default_context
from proctool.training.accept import REDRAWN_SEEDS, Acceptance
from proctool.training.curriculum import parse_curriculum
from proctool.training.early_stop import parse_until
from proctool.training.mix import MixOptions, checked
from proctool.training.schedule import lr_options

AUTO = "auto"
"""The word for what follows from the device's memory."""

INCIDENTAL = {"incidental": True}
"""Metadata of an option that leaves every result as it is."""


def incidental(options: object) -> frozenset[str]:
    """Options, of an instance or a class, that are no part of what a run is: neither of its settings nor of a key."""
    return _incidental(options if isinstance(options, type) else type(options))


@functools.cache
def _incidental(kind: type) -> frozenset[str]:
    return frozenset(each.name for each in fields(kind) if each.metadata.get("incidental"))


def recorded(options: object) -> dict[str, Any]:
    """The options that a run's settings and a stage's key hold, as JSON has them.

    `compile` was false before it could be left open, and is recorded as that; what it comes to changes no result
    beyond rounding, and is in a run's metrics. AdamW was the only optimiser, and always started fresh: both are
    recorded as nothing.
    """
    values: dict[str, Any] = strict.plain(options)
    for name, only in (("optimizer", "adamw"), ("load_optimizer_state", False)):
        if values.get(name) == only:
            values[name] = None
    if values.get("compile", True) is None:
        values["compile"] = False
    for name in values:
        if is_dataclass(group := getattr(options, name)):
            values[name] = {key: value for key, value in recorded(group).items() if value is not None}
    left_out = incidental(options)
    return {name: value for name, value in values.items() if name not in left_out}


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options that every training command shares."""

    model: str = "4x4x64"
    """A preset, layers x heads x width (4x4x64), config.json or OWNER/NAME."""
    family: str = "gpt2"
    """Architecture family for shapes and presets: gpt2, llama, qwen3, ..."""
    tie: bool | None = None
    """Share the token embeddings with the head (default: the model's)."""
    init_std: float | None = None
    """Standard deviation of fresh weights (shapes: .02 * sqrt(768/width))."""
    init_attention: Literal["mimetic"] | None = None
    """Start of fresh attention; mimetic: QK near I, VO near -I."""
    dropout: float = 0.0
    """Dropout rate, wherever the family has dropout."""
    steps: int = 1000
    """Optimiser steps."""
    batch_size: int = 32
    """Samples per optimiser step, over micro-batches and processes."""
    accumulate: int = 1
    """Micro-batches per step, to save memory; same result."""
    micro_batch: int | Literal["auto"] | None = None
    """Samples per device at a time; auto: as many as fit."""
    lr: float = 1e-3
    """Peak learning rate."""
    schedule: Literal["constant", "cosine", "linear", "wsd"] = "cosine"
    """Learning rate after the ramp; wsd decays over the last fifth."""
    ramp_steps: int = 0
    """Steps over which the learning rate rises from 0 to its peak."""
    final_lr: float = 0.1
    """Final learning rate as a fraction of the peak (not for constant)."""
    weight_decay: float = 0.1
    """AdamW's weight decay; never for norms, biases and embeddings."""
    beta2: float = 0.95
    """AdamW's second-moment decay."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """Optimiser; muon: for matrices of attention and MLPs, AdamW for the rest."""
    lr_of: tuple[str, ...] | None = field(default=None, metadata={"comma": True})
    """Factors on --lr for components: attention=0.5,embeddings=2."""
    clip: float = 1.0
    """Maximum gradient norm; 0 turns clipping off."""
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    """Autocast precision (weights stay fp32); tf32: faster, less exact."""
    compile: bool | None = None
    """Compile layers with torch.compile (default: in long runs on GPUs)."""
    cuda_graph: bool = field(default=True, metadata=INCIDENTAL)
    """Record the steps of small models as CUDA graphs, on one GPU."""
    producers: int | None = field(default=None, metadata=INCIDENTAL)
    """Processes making small models' batches on GPUs (default: cores - 1)."""
    gradient_checkpointing: bool | Literal["auto"] = False
    """Recompute activations: on, off, or auto (only if memory needs it)."""
    deterministic: bool | None = None
    """Use only algorithms that repeat bit for bit on GPUs (slower)."""
    train: tuple[str, ...] | None = field(default=None, metadata={"comma": True})
    """Train only these components: attention,mlp,norms (default: all)."""
    seed: int = 0
    """Seed for fresh weights, data order and dropout."""
    eval_every: int = 100
    """Steps between evaluations on the fixed validation set."""
    eval_samples: int = 512
    """Validation samples (corpus rows)."""
    until: str | None = None
    """Stop at a validation score: accuracy=.99, exact_match=.9, loss=1.5."""
    patience: int | None = None
    """Stop after this many evaluations without a better loss."""
    save: Literal["last", "best", "both"] | None = None
    """Weights to write: last, best by validation loss (NAME-best with both)."""
    track_heads: bool = field(default=False, metadata=INCIDENTAL)
    """Record the scores of every attention head at each evaluation."""
    spike: float | None = field(default=None, metadata=INCIDENTAL)
    """Stop at a gradient norm this many times the median of 100 steps."""
    on_divergence: Literal["error", "end"] = field(default="error", metadata=INCIDENTAL)
    """On a non-finite gradient or a spike: fail (error), or end early (end)."""
    log_every: int = field(default=10, metadata=INCIDENTAL)
    """Steps between lines in metrics.jsonl."""
    checkpoint_every: int = field(default=500, metadata=INCIDENTAL)
    """Steps between checkpoints; a signal always writes one."""
    keep_checkpoints: int = field(default=2, metadata=INCIDENTAL)
    """Latest checkpoints to keep; a finished run removes them all."""
    resume: Literal["auto", "never"] = field(default="auto", metadata=INCIDENTAL)
    """Resume from the run folder's checkpoint, or discard it (never)."""
    extend: bool = field(default=False, metadata=INCIDENTAL)
    """Continue a finished run from its last state up to --steps."""
    force: bool = field(default=False, metadata=INCIDENTAL)
    """Replace a model at --output that another command wrote."""
    keep_state: bool | None = field(default=None, metadata=INCIDENTAL)
    """Keep the final state for --extend (default: if below 64 MiB)."""
    run_dir: Path | None = field(default=None, metadata=INCIDENTAL)
    """Folder for metrics and checkpoints (default: NAME.run of the output)."""
    track: tuple[str, ...] | None = field(default=None, metadata={"comma": True} | INCIDENTAL)
    """Also send metrics to trackers of Accelerate: tensorboard, wandb, ..."""

    def __post_init__(self) -> None:
        for name, least in (
            ("steps", 1), ("batch_size", 1), ("accumulate", 1), ("eval_every", 1), ("eval_samples", 1),
            ("log_every", 1), ("checkpoint_every", 1), ("keep_checkpoints", 1), ("ramp_steps", 0), ("seed", 0),
            ("weight_decay", 0), ("clip", 0), ("final_lr", 0),
        ):  # fmt: skip
            value = getattr(self, name)
            if not least <= value < math.inf:  # nan fails every comparison
                raise OptionError(f"{name} = {value}: must be {'finite' if value > least else f'at least {least}'}")
        if self.producers is not None and self.producers < 0:
            raise OptionError(f"producers = {self.producers}: must be at least 0; 0 makes batches in a thread")
        if self.extend and self.resume == "never":
            raise OptionError("extend: continues a run, but --resume never discards it; leave one of them out")
        if self.deterministic is False:  # as where it is not given: settings of older runs do not have it
            object.__setattr__(self, "deterministic", None)
        if self.until is not None:
            parse_until(self.until)
        if self.patience is not None and self.patience < 1:
            raise OptionError(f"patience = {self.patience}: must be at least 1")
        if self.spike is not None and not 1 < self.spike < math.inf:
            raise OptionError(f"spike = {self.spike:g}: must be above 1; 10 is usual")
        object.__setattr__(self, "lr_of", lr_options(self.lr_of))
        if self.train is not None and not parse_components(self.train, "train"):
            raise OptionError("train: nothing would be trained; give at least one component")
        if not 0 < self.lr < math.inf:
            raise OptionError(f"lr = {self.lr}: must be positive, and finite")
        if self.init_std is not None and not 0 < self.init_std < 10:
            raise OptionError(f"init_std = {self.init_std}: must be above 0 and below 10; 0.02 is GPT-2's")
        if not 0 <= self.dropout < 1:
            raise OptionError(f"dropout = {self.dropout}: must be from 0 to below 1")
        if not 0 <= self.beta2 < 1:
            raise OptionError(f"beta2 = {self.beta2}: must be from 0 to below 1")
        if self.final_lr > 1:
            raise OptionError(f"final_lr = {self.final_lr}: must be at most 1, as a fraction of the peak")
        default = type(self).__dataclass_fields__["ramp_steps"].default
        if self.ramp_steps > self.steps and self.ramp_steps == default:
            # A published default, such as the 500 of diagnostics, in a short try-out.
            object.__setattr__(self, "ramp_steps", max(1, self.steps // 10))
        if self.ramp_steps > self.steps:
            raise OptionError(f"ramp_steps = {self.ramp_steps}: more than the {self.steps} steps of the run")
        if self.batch_size % self.accumulate:
            raise OptionError(f"accumulate = {self.accumulate}: does not divide batch_size = {self.batch_size}")
        if self.micro_batch is not None and self.accumulate > 1:
            raise OptionError("micro_batch and accumulate both set the micro-batch; leave one of them out")
        if isinstance(self.micro_batch, int) and (self.micro_batch < 1 or self.batch_size % self.micro_batch):
            raise OptionError(f"micro_batch = {self.micro_batch}: does not divide batch_size = {self.batch_size}")

    def samples_at_once(self, processes: int) -> int:
        """Samples in one micro-batch of one of so many processes; with micro_batch = auto the most there can be.

        Raises OptionError where shares would be uneven.
        """
        if self.micro_batch is not None:
            share, uneven = divmod(self.batch_size, processes)
            at_once = share if isinstance(self.micro_batch, str) else self.micro_batch
            if uneven or share % at_once:
                each = "" if isinstance(self.micro_batch, str) else f"micro-batches of {at_once} "
                raise OptionError(f"batch_size = {self.batch_size}: does not split into {each}on {processes} processes")
            return at_once
        micro, uneven = divmod(self.batch_size, self.accumulate * processes)
        if uneven:
            raise OptionError(
                f"batch_size = {self.batch_size}: not a multiple of {self.accumulate} micro-batches "
                f"on {processes} processes"
            )
        return micro


@dataclass(frozen=True, kw_only=True)
class TaskTrainingOptions(TrainingOptions):
    """Options of training on a task, whose samples can be made shorter or longer."""

    curriculum: str | None = None
    """Grow samples at a score, such as start=2,step=2,accuracy=.99."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.curriculum is not None:
            parse_curriculum(self.curriculum)


@dataclass(frozen=True, kw_only=True)
class WarmupOptions(TaskTrainingOptions):
    """Train a model on procedural data."""

    task: tuple[str, ...] = ()
    """Task such as set:inputs=24; repeat for a mixture (set*0.5)."""
    data: Path | None = None
    """A file made by `proctool generate`, instead of --task."""
    context: int | None = None
    """Context of the model in tokens (default: the task's length)."""
    schedule: Literal["constant", "cosine", "linear", "wsd"] = "constant"
    """Learning rate after the ramp; wsd decays over the last fifth."""
    batch_size: int = 64
    """Samples per optimiser step, over micro-batches and processes."""
    steps: int = 600
    """Optimiser steps."""
    accept: Acceptance | None = None
    """Train donors until one passes: haystack:above=.15,tries=10."""
    output: Path = field(default=Path("warm.safetensors"), metadata=INCIDENTAL)
    """Model file to write."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.accept is not None and self.extend:
            raise OptionError("extend: not with accept; train donors with more steps instead")
        if self.accept is not None and self.seed >= REDRAWN_SEEDS:
            raise OptionError(f"seed = {self.seed}: with accept it must be below {REDRAWN_SEEDS}")
        if bool(self.task) == (self.data is not None):
            raise OptionError("give either --task SPEC or --data FILE, not both")
        if self.curriculum is not None and self.data is not None:
            raise OptionError("curriculum: needs --task, because the samples of a --data file have a fixed size")

    def positions(self, length: int) -> int:
        """Context of the model for samples of `length` tokens. Raises OptionError if they do not fit."""
        if self.context is not None and self.context < length:
            raise OptionError(f"context = {self.context}: samples have {length} tokens; use at least {length}")
        return self.context or length


@dataclass(frozen=True, kw_only=True)
class InitOptions:
    """Options for starting from a warmed model."""

    init: str | None = None
    """A warmed model: an artifact, a folder or OWNER/NAME (default: none)."""
    components: tuple[str, ...] = field(default=("attention", "mlp", "norms"), metadata={"comma": True})
    """Components to carry over: attention, mlp, norms, positions; or none."""
    embeddings: Literal["fresh", "scale", "mean", "sample", "copy"] = "scale"
    """Start of token embeddings; scale: fresh at the donor's scale."""
    layers: tuple[str, ...] | None = None
    """Carry only these layers: 0-5,8, or mlp=0-5 (repeatable)."""
    heads: tuple[str, ...] | None = field(default=None, metadata={"comma": True})
    """Carry only these attention heads: 1.2,0.3 (layer.head), random:2."""
    load_optimizer_state: bool = False
    """Also carry the optimiser's state of tensors that are carried whole."""


@dataclass(frozen=True, kw_only=True)
class PretrainOptions(MixOptions, InitOptions, TrainingOptions):
    """Train a model on a corpus, from scratch or from a warmed model."""

    corpus: str = "python"
    """A corpus by name, a file, folder or pattern, or a hub id."""
    text_field: str | None = None
    """Field that holds a record's text, such as text or meta.text."""
    validation: str | None = None
    """Separate validation corpus; its documents are kept out of training."""
    eval_split: Literal["selection", "test"] | None = None
    """Half of the validation rows to score: selection, test (default: all)."""
    skip_bad: bool | None = None
    """Skip documents that cannot be read instead of stopping."""
    tokenizer: str = "bytes"
    """bytes, or any tokenizer by path or name."""
    end_of_text: str | None = None
    """Token that ends a text (default: the tokenizer's own)."""
    context: int = cast(int, None)
    """Tokens per row (default: the model's, at most 2048; shapes: 128)."""
    budget: int | None = None
    """Use only this many tokens of the corpus."""
    cache_dir: Path | None = field(default=None, metadata=INCIDENTAL)
    """Token store folder (default: $PROCTOOL_CACHE or ~/.cache/proctool)."""
    output: Path = field(default=Path("model.safetensors"), metadata=INCIDENTAL)
    """Model file to write."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.context is None:
            object.__setattr__(self, "context", default_context(self.model))
        if self.context < 2:
            raise OptionError(f"context = {self.context}: must be at least 2")
        for name, value in checked(self, self.context).items():
            object.__setattr__(self, name, value)
