"""Options of evaluations. Each field is a flag and a key in --config files. Does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from proctool import config
from proctool.errors import OptionError
from proctool.training.accept import PROBE_SEED
from proctool.training.options import INCIDENTAL, InitOptions, TaskTrainingOptions, WarmupOptions

if TYPE_CHECKING:
    from proctool.procedural.registry import Task


@dataclass(frozen=True, kw_only=True)
class DiagnosticOptions(InitOptions, TaskTrainingOptions):
    """Train a model on a diagnostic task and report its accuracy on a fixed validation set."""

    task_options: ClassVar[tuple[str, ...]] = ()
    """Fields that are the diagnostic task's own options."""
    line: ClassVar[str] = ""
    """One line of help."""
    laptop: ClassVar[Mapping[str, Any]] = {}
    """What `--scale laptop` sets instead of the published settings."""
    model: str = "diagnostic"
    """A preset, layers x heads x width (4x4x64), config.json or OWNER/NAME."""
    components: tuple[str, ...] = field(default=("attention", "mlp", "norms", "positions"), metadata={"comma": True})
    """Components to carry over: attention, mlp, norms, positions; or none."""
    steps: int = 10_000
    """Optimiser steps."""
    batch_size: int = 1000
    """Samples per optimiser step, over micro-batches and processes."""
    ramp_steps: int = 500
    """Steps over which the learning rate rises (a tenth of runs under 500 steps)."""
    final_lr: float = 0.0
    """Final learning rate as a fraction of the peak (not for constant)."""
    beta2: float = 0.999
    """AdamW's second-moment decay."""
    weight_decay: float = 1e-3
    """AdamW's weight decay; never for norms, biases and embeddings."""
    eval_samples: int = 4000
    """Validation samples."""
    eval_every: int = 500
    """Steps between evaluations on the fixed validation set."""
    output: Path | None = field(default=None, metadata=INCIDENTAL)
    """Also write the trained model to this file."""


_SHORT = 500
"""Steps below which the ramp is a tenth of the run, unless it is given."""

_LAPTOP: Mapping[str, Any] = {
    "model": "2x4x16", "init_std": 0.02, "steps": 1500, "batch_size": 128, "lr": 3e-3, "ramp_steps": 100,
    "final_lr": 0.1, "beta2": 0.95, "eval_every": 100, "eval_samples": 1000,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class HaystackOptions(DiagnosticOptions):
    """Train on haystack from an init; report recall on validation samples."""

    task_options = ("pairs", "vocab")
    line = "Train on haystack; report recall on validation samples."
    laptop: ClassVar[Mapping[str, Any]] = {**_LAPTOP, "pairs": 8, "vocab": 64}

    pairs: int | None = None
    """Key-value pairs at most (default: 30; 8 with --scale laptop)."""
    vocab: int | None = None
    """Vocabulary size (default: 256; 64 with --scale laptop)."""


@dataclass(frozen=True, kw_only=True)
class ArithmeticOptions(DiagnosticOptions):
    """Train on sums or products from an init; report accuracy and exact match."""

    task_options = ("digits", "scoring")

    digits: int | None = None
    """Digits of each number (default: 5; 3 with --scale laptop)."""
    scoring: Literal["answer", "official"] = "answer"
    """Score answer and stop, or the published code's mask (official)."""


@dataclass(frozen=True, kw_only=True)
class AdditionOptions(ArithmeticOptions):
    """Train on addition, most significant digit first, from an init; report accuracy and exact match."""

    line = "Train on addition; report accuracy and exact match."
    laptop: ClassVar[Mapping[str, Any]] = {**_LAPTOP, "digits": 3}


@dataclass(frozen=True, kw_only=True)
class ReversedAdditionOptions(ArithmeticOptions):
    """Train on addition, least significant digit first, from an init; report accuracy and exact match."""

    line = "Train on addition with the lowest digit first."
    laptop: ClassVar[Mapping[str, Any]] = {**_LAPTOP, "digits": 3}

    digits: int | None = None
    """Digits of each number (default: 10; 3 with --scale laptop)."""


@dataclass(frozen=True, kw_only=True)
class MultiplicationOptions(ArithmeticOptions):
    """Train on multiplication from an init; report accuracy and exact match."""

    line = "Train on multiplication; report accuracy and exact match."
    laptop: ClassVar[Mapping[str, Any]] = {**_LAPTOP, "digits": 2, "model": "2x4x64", "batch_size": 64}

    digits: int | None = None
    """Digits of each number (default: 5; 2 with --scale laptop)."""
    model: str = "4x8x512"
    """A preset, layers x heads x width (4x4x64), config.json or OWNER/NAME."""
    tie: bool | None = False
    """Use the token embeddings as the output head too."""
    init_std: float | None = 0.02
    """Standard deviation of fresh weights."""
    batch_size: int = 64
    """Samples per optimiser step, over micro-batches and processes."""


@dataclass(frozen=True, kw_only=True)
class SortingOptions(DiagnosticOptions):
    """Train on sorting from an init; report accuracy and exact match."""

    task_options = ("items", "symbols")
    line = "Train on sorting; report accuracy and exact match."
    laptop: ClassVar[Mapping[str, Any]] = _LAPTOP

    items: int | None = None
    """Numbers in a list (default: 10)."""
    symbols: int | None = None
    """Numbers are below this (default: 100)."""


DIAGNOSTICS: Mapping[str, type[DiagnosticOptions]] = {
    "haystack": HaystackOptions,
    "addition": AdditionOptions,
    "reversed-addition": ReversedAdditionOptions,
    "multiplication": MultiplicationOptions,
    "sorting": SortingOptions,
}
"""The diagnostics of `proctool eval NAME` with their options; recipes use them too."""


def scale_values(name: str, scale: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a diagnostic's options: those of the scale, overridden by `given`. Raises OptionError."""
    values = {**(DIAGNOSTICS[name].laptop if scale == "laptop" else {}), **given}
    if "ramp_steps" not in given and "steps" in given and config.convert(given["steps"], int, "steps") < _SHORT:
        values.pop("ramp_steps", None)  # the default fits every short run
    return values


def diagnostic_task(name: str, options: DiagnosticOptions) -> Task:
    """The task that a diagnostic trains on. Raises OptionError."""
    from proctool.procedural.registry import build_task  # imports numpy, which help does not need

    given = {option: getattr(options, option) for option in options.task_options}
    return build_task(name, {option: value for option, value in given.items() if value is not None})


def probe_options(options: WarmupOptions) -> DiagnosticOptions:
    """The options of the diagnostic that probes a warm-up's donors. Raises OptionError."""
    gate = options.accept
    assert gate is not None
    if gate.diagnostic not in DIAGNOSTICS:
        near = config.suggestion(gate.diagnostic, DIAGNOSTICS)
        raise OptionError(f'accept: unknown diagnostic "{gate.diagnostic}"{near}')
    like = (
        "model", "family", "init_std", "precision", "compile", "gradient_checkpointing", "deterministic", "cuda_graph",
        "log_every", "checkpoint_every", "keep_checkpoints",
    )  # fmt: skip
    values = {name: value for name in like if (value := getattr(options, name)) is not None} | dict(gate.probe)
    values |= {"seed": PROBE_SEED, "eval_every": gate.steps, "keep_state": False}
    try:
        return config.build(DIAGNOSTICS[gate.diagnostic], values, "accept")
    except OptionError as error:
        raise OptionError(f"accept: {str(error).removeprefix('accept: ')}") from None


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """The inits and seeds of a diagnostic. Only for the command line, in addition to DiagnosticOptions."""

    init: tuple[str, ...] = ()
    """Warmed model, or none for fresh weights (repeatable; default: none)."""
    seeds: tuple[int, ...] = field(default=(), metadata={"comma": True})
    """Seeds to run every init with: 0,1,2 or 0-2 (default: that of --seed)."""
    scale: Literal["paper", "laptop"] = "paper"
    """Base settings: as published, or for minutes on one core (laptop)."""
    jobs: int = 1
    """Parallel runs, each in its own process."""

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise OptionError(f"jobs = {self.jobs}: must be at least 1")
        for name, given in (("init", self.init), ("seeds", self.seeds)):
            if twice := sorted({str(each) for each in given if given.count(each) > 1}):
                raise OptionError(f"{name}: {twice[0]} is given twice; give it once")
        if negative := [seed for seed in self.seeds if seed < 0]:
            raise OptionError(f"seeds: {negative[0]} is negative; seeds must be at least 0")


@dataclass(frozen=True, kw_only=True)
class PerplexityOptions:
    """Loss per token, per byte and per position of a model on a corpus."""

    corpus: str = "python"
    """A corpus by name, a file, folder or pattern, or a hub id."""
    text_field: str | None = None
    """Field that holds a record's text, such as text or meta.text."""
    validation: str | None = None
    """Separate validation corpus: its validation split, or all of it."""
    skip_bad: bool = False
    """Skip documents that cannot be read instead of stopping."""
    split: str = "validation"
    """Split to score: train, validation, or another of the corpus."""
    documents: int | None = None
    """Documents to score, from the first (default: all)."""
    rows: int | None = None
    """Score this many rows of joined documents instead, as training does."""
    tokenizer: str | None = None
    """Tokenizer, a path or a name such as bytes (default: the model's)."""
    end_of_text: str | None = None
    """Token that ends a text (default: the tokenizer's own)."""
    context: int | None = None
    """Longest window in tokens (default: the model's context)."""
    stride: int | None = None
    """Tokens between windows of long documents (default: the context)."""
    per_position: Path | None = None
    """Write the loss at each position to this CSV file, and print it."""
    apart_from: str | None = None
    """Stop if a document is in the train split of this corpus too."""
    batch_size: int = 32
    """Windows per batch."""
    cache_dir: Path | None = None
    """Hub cache folder (default: $PROCTOOL_CACHE or ~/.cache/proctool)."""

    def __post_init__(self) -> None:
        for name in ("documents", "rows", "context", "stride", "batch_size"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise OptionError(f"{name} = {value}: must be at least 1")


@dataclass(frozen=True, kw_only=True)
class MathematicsOptions:
    """Accuracy of greedy answers to DeepMind Mathematics questions; an answer counts if every character is correct."""

    corpus: str = "mathematics"
    """mathematics (generated questions), or mathematics:FOLDER (files)."""
    split: Literal["interpolate", "extrapolate", "both"] = "interpolate"
    """Questions as hard as in training, harder ones, or both."""
    questions: int | None = None
    """Questions per module (default: all in files; 20 if generated)."""
    modules: tuple[str, ...] = field(default=(), metadata={"comma": True})
    """Only modules with one of these in their name: algebra,gcd."""
    tokenizer: str | None = None
    """Tokenizer, a path or a name such as characters (default: the model's)."""
    skip_bad: bool = False
    """Skip questions that cannot be read instead of stopping."""
    end_of_text: str | None = None
    """Token that ends a text (default: the tokenizer's own)."""
    batch_size: int = 64
    """Questions per batch."""

    def __post_init__(self) -> None:
        for name in ("questions", "batch_size"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise OptionError(f"{name} = {value}: must be at least 1")
