"""What evaluations can be told. Each field is a flag and a key in --config files. No torch here."""

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
    """Train a model on a diagnostic task and report its accuracy on a fixed held-out set."""

    task_options: ClassVar[tuple[str, ...]] = ()
    """Fields that are the diagnostic task's own options."""
    line: ClassVar[str] = ""
    """One line of help."""
    laptop: ClassVar[Mapping[str, Any]] = {}
    """What `--scale laptop` sets in place of the published settings."""
    model: str = "diagnostic"
    """A preset, layers x heads x width (4x4x64), config.json or OWNER/NAME."""
    components: tuple[str, ...] = field(default=("attention", "mlp", "norms", "positions"), metadata={"comma": True})
    """What to carry over from it: attention, mlp, norms, positions; or none, for the embeddings' start alone."""
    embeddings: Literal["fresh", "scale", "mean", "sample", "copy"] = "mean"
    """Start of the token embeddings: fresh, scale (fresh at the donor's scale), mean, sample or copy."""
    steps: int = 10_000
    """Optimiser steps."""
    batch_size: int = 1000
    """Samples in one optimiser step, over all micro-batches and processes."""
    ramp_steps: int = 500
    """Steps over which the learning rate rises from 0 to its peak."""
    final_lr: float = 0.0
    """Where cosine, linear and wsd end, as a fraction of the peak."""
    beta2: float = 0.999
    """AdamW's second-moment decay."""
    weight_decay: float = 1e-3
    """AdamW's decay; norms, biases and embeddings are never decayed."""
    eval_samples: int = 4000
    """Held-out samples."""
    eval_every: int = 500
    """Steps between evaluations on the fixed held-out set."""
    output: Path | None = field(default=None, metadata=INCIDENTAL)
    """Write the trained model here too."""


_LAPTOP: Mapping[str, Any] = {
    "model": "2x4x16", "init_std": 0.02, "steps": 1500, "batch_size": 128, "lr": 3e-3, "ramp_steps": 100,
    "final_lr": 0.1, "beta2": 0.95, "eval_every": 100, "eval_samples": 1000,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class HaystackOptions(DiagnosticOptions):
    """Train on haystack from an init; report recall on held-out samples."""

    task_options = ("pairs", "vocab")
    line = "Train on haystack from an init; report recall on held-out samples."
    laptop: ClassVar[Mapping[str, Any]] = {**_LAPTOP, "pairs": 8, "vocab": 64}

    pairs: int | None = None
    """Most key-value pairs in a sample (default: the published 30; 8 with --scale laptop)."""
    vocab: int | None = None
    """Vocabulary size (default: the published 256; 64 with --scale laptop)."""


@dataclass(frozen=True, kw_only=True)
class ArithmeticOptions(DiagnosticOptions):
    """Train on sums or products from an init; report the digits and the answers that are right."""

    task_options = ("digits", "scoring")

    digits: int | None = None
    """Digits of each number (default: the published 5; 3 with --scale laptop)."""
    scoring: Literal["answer", "official"] = "answer"
    """What is trained and scored: the answer and its stop; or, official, what the published code does by mistake: all
    of the answer but its first digit, the stop, and the padding after it."""


@dataclass(frozen=True, kw_only=True)
class AdditionOptions(ArithmeticOptions):
    """Train on addition, most significant digit first, from an init; report the digits and answers that are right."""

    line = "Train on addition from an init; report digits and whole answers right."
    laptop: ClassVar[Mapping[str, Any]] = {**_LAPTOP, "digits": 3}


@dataclass(frozen=True, kw_only=True)
class ReversedAdditionOptions(ArithmeticOptions):
    """Train on addition, least significant digit first, from an init; report the digits and answers that are right."""

    line = "Train on addition, least significant digit first, from an init; report digits and whole answers right."
    laptop: ClassVar[Mapping[str, Any]] = {**_LAPTOP, "digits": 3}

    digits: int | None = None
    """Digits of each number (default: the published 10; 3 with --scale laptop)."""


@dataclass(frozen=True, kw_only=True)
class MultiplicationOptions(ArithmeticOptions):
    """Train on multiplication from an init; report the digits and answers that are right."""

    line = "Train on multiplication from an init; report digits and whole answers right."
    laptop: ClassVar[Mapping[str, Any]] = {**_LAPTOP, "digits": 2, "model": "2x4x64", "batch_size": 64}

    digits: int | None = None
    """Digits of each number (default: the published 5; 2 with --scale laptop)."""
    model: str = "4x8x512"
    """A preset, layers x heads x width (4x4x64), config.json or OWNER/NAME."""
    tie: bool | None = False
    """Use the token embeddings as the output head too."""
    init_std: float | None = 0.02
    """Standard deviation of fresh weights."""
    batch_size: int = 64
    """Samples in one optimiser step, over all micro-batches and processes."""


@dataclass(frozen=True, kw_only=True)
class SortingOptions(DiagnosticOptions):
    """Train on sorting from an init; report the numbers and lists that are right."""

    task_options = ("items", "symbols")
    line = "Train on sorting from an init; report numbers and whole lists right."
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
"""What `proctool eval NAME` trains on, with the options of each; recipes read it too."""


def diagnostic_task(name: str, options: DiagnosticOptions) -> Task:
    """The task that a diagnostic trains on. Raises OptionError."""
    from proctool.procedural.registry import build_task  # numpy, which help does without

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
    """Which inits and seeds a diagnostic is run with. Beside DiagnosticOptions, on the command line alone."""

    init: tuple[str, ...] = ()
    """A warmed model (an artifact or a Hugging Face folder), or none for fresh weights; may be repeated (default:
    none)."""
    seeds: tuple[int, ...] = field(default=(), metadata={"comma": True})
    """Run every init with each of these seeds, such as 0,1,2 (default: the one of --seed)."""
    scale: Literal["paper", "laptop"] = "paper"
    """Settings to start from: the published ones, or 1500 steps of smaller batches, mostly on smaller samples, which
    one core does in minutes; other options win over them."""
    jobs: int = 1
    """Runs at a time, each in a process of its own with its share of the cores."""

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise OptionError(f"jobs = {self.jobs}: must be at least 1")
        for name, given in (("init", self.init), ("seeds", self.seeds)):
            if twice := sorted({str(each) for each in given if given.count(each) > 1}):
                raise OptionError(f"{name}: {twice[0]} is named twice")
        if negative := [seed for seed in self.seeds if seed < 0]:
            raise OptionError(f"seeds: {negative[0]}: must be at least 0")


@dataclass(frozen=True, kw_only=True)
class PerplexityOptions:
    """Loss per token, per byte and per position of a model on a corpus."""

    corpus: str = "python"
    """A corpus by name (python, ...), or a file or folder of text."""
    text_field: str | None = None
    """Field of a record with its text, such as text or meta.text."""
    validation: str | None = None
    """Corpus for validation; its validation split, or all of it."""
    skip_bad: bool = False
    """Leave out documents that cannot be read instead of stopping."""
    split: str = "validation"
    """train, validation, or another that the corpus has."""
    documents: int | None = None
    """Score only so many of the split's documents, the first ones (default: all)."""
    tokenizer: str | None = None
    """bytes, or any tokenizer by path or name (default: the model's own)."""
    end_of_text: str | None = None
    """The token that ends a text (default: the one the tokenizer names)."""
    context: int | None = None
    """Most tokens read at once (default: as many as the model takes)."""
    stride: int | None = None
    """Tokens between the beginnings of two windows of a longer document: smaller gives each token more context at
    more cost; none is scored twice (default: the context)."""
    per_position: Path | None = None
    """Write the loss at every position of a window to this CSV file, and show it by ranges."""
    apart_from: str | None = None
    """Refuse to score when a document stands in the train split of this corpus too, such as what the model was
    trained on."""
    batch_size: int = 32
    """Windows scored at a time."""
    cache_dir: Path | None = None
    """Where what is known of hub datasets is kept (default: $PROCTOOL_CACHE or ~/.cache/proctool)."""

    def __post_init__(self) -> None:
        for name in ("documents", "context", "stride", "batch_size"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise OptionError(f"{name} = {value}: must be at least 1")


@dataclass(frozen=True, kw_only=True)
class MathematicsOptions:
    """Answers to DeepMind Mathematics questions, decoded greedily: the share that is right in every character."""

    corpus: str = "mathematics"
    """mathematics for questions made on the spot, or mathematics:FOLDER for the official tree of files."""
    split: Literal["interpolate", "extrapolate", "both"] = "interpolate"
    """Questions as hard as those of training, or with larger numbers, more terms, ...; or both."""
    questions: int | None = None
    """Questions of each module, the first ones (default: all of a tree; 20 where they are made)."""
    modules: tuple[str, ...] = field(default=(), metadata={"comma": True})
    """Only modules whose name contains one of these: algebra, numbers__gcd, ... (default: all)."""
    tokenizer: str | None = None
    """characters, bytes, or any tokenizer by path or name (default: the model's own)."""
    skip_bad: bool = False
    """Leave out questions that cannot be read instead of stopping."""
    end_of_text: str | None = None
    """The token that ends a text (default: the one the tokenizer names)."""
    batch_size: int = 64
    """Questions answered at a time."""

    def __post_init__(self) -> None:
        for name in ("questions", "batch_size"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise OptionError(f"{name} = {value}: must be at least 1")
