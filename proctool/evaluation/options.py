"""What evaluations can be told. Each field is a flag and a key in --config files. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from proctool.errors import OptionError
from proctool.training.options import InitOptions, TrainingOptions


@dataclass(frozen=True, kw_only=True)
class DiagnosticOptions(InitOptions, TrainingOptions):
    """Train a model on a diagnostic task and report its accuracy on a fixed held-out set."""

    task_options: ClassVar[tuple[str, ...]] = ()
    """Fields that are the diagnostic task's own options."""
    model: str = "2x4x16"
    """A preset (gpt2, ...), layers x heads x width (4x4x64), or a transformers configuration file or folder."""
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
    weight_decay: float = 1e-3
    """AdamW's decay; norms, biases and embeddings are never decayed."""
    eval_samples: int = 4000
    """Held-out samples."""
    eval_every: int = 500
    """Steps between evaluations on the fixed held-out set."""
    output: Path | None = None
    """Write the trained model here too."""


@dataclass(frozen=True, kw_only=True)
class HaystackOptions(DiagnosticOptions):
    """Train on haystack from an init; report recall on held-out samples."""

    task_options = ("pairs", "vocab")

    pairs: int | None = None
    """Most key-value pairs in a sample (default: the published 30)."""
    vocab: int | None = None
    """Vocabulary size (default: the published 256)."""


@dataclass(frozen=True, kw_only=True)
class PerplexityOptions:
    """Loss, perplexity and bits per byte of a model on a corpus."""

    corpus: str = "python"
    """A corpus by name (python, ...), or a file or folder of text."""
    text_field: str | None = None
    """The field of JSON or Parquet records that holds the text (default: text, or what the named corpus uses)."""
    split: str = "validation"
    """train or validation."""
    tokenizer: str | None = None
    """bytes, or any tokenizer by path or name (default: the model's own)."""
    context: int | None = None
    """Tokens in one row (default: the model's)."""
    rows: int | None = None
    """Score only this many rows (default: all of the split)."""
    batch_size: int = 32
    """Rows scored at a time."""
    cache_dir: Path | None = None
    """Where token stores are kept (default: $PROCTOOL_CACHE or ~/.cache/proctool)."""

    def __post_init__(self) -> None:
        for name in ("rows", "batch_size"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise OptionError(f"{name} = {value}: must be at least 1")
