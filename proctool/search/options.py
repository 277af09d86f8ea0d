"""Options of `proctool search`. Does not import torch or Optuna: help and dry runs read this class."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from proctool.errors import OptionError
from proctool.training.options import INCIDENTAL

FEWEST_SEEDS = 3
"""Fresh seeds that an interval needs."""


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Search the warm-up that helps most on your corpus and model, and say whether it is worth it.

    Small models of the target's family train in its place. The cold start is tuned first. Then tasks, amounts,
    components, embeddings and learning rates compete with it on the same rows. The winner is measured again on fresh
    seeds and fresh validation rows. The same command resumes after an interruption, and may run several times at once.
    """

    corpus: str = "python"
    """A corpus by name, a file, folder or pattern, or a hub id."""
    text_field: str | None = None
    """Field that holds a record's text, such as text or meta.text."""
    model: str = "gpt2"
    """The target: a preset, LAYERSxHEADSxWIDTH, or a configuration file."""
    family: str = "gpt2"
    """Architecture family for shapes and presets: gpt2, llama, qwen3, ..."""
    tokenizer: str = "bytes"
    """bytes, or any tokenizer by path or name."""
    end_of_text: str | None = None
    """Token that ends a text (default: the tokenizer's own)."""
    context: int = 128
    """Tokens per row."""
    batch_size: int = 32
    """Rows per optimiser step."""
    hours: float = field(default=2.0, metadata=INCIDENTAL)
    """Total time of the search, across resumes."""
    trials: int | None = field(default=None, metadata=INCIDENTAL)
    """Most candidates to try (default: as many as the hours allow)."""
    steps: int | None = None
    """Pretraining steps of a trial (default: what fits the hours)."""
    task: tuple[str, ...] = ()
    """Task to try, repeatable (default: nine tasks; see docs/search.md)."""
    widths: tuple[int, ...] = field(default=(), metadata={"comma": True})
    """Widths of the small models (default: 32,64,128 up to the target's)."""
    finalists: int = 3
    """Candidates that go on to the next width."""
    confirm: int = 3
    """Fresh seeds that the winner is measured on; at least 3."""
    seed: int = 0
    """Seed of the search."""
    tokens: int | None = field(default=None, metadata=INCIDENTAL)
    """Corpus tokens of the target's training (default: 20 per parameter)."""
    gpu: str | None = field(default=None, metadata=INCIDENTAL)
    """GPU type for the target's hours: h100, a100-80gb, rtx-4090, ..."""
    gpus: int = field(default=1, metadata=INCIDENTAL)
    """Number of GPUs for the target's hours."""
    jobs: int | None = field(default=None, metadata=INCIDENTAL)
    """Processes (default: one per core up to 4; 1 on accelerators)."""
    storage: str | None = field(default=None, metadata=INCIDENTAL)
    """URL of Optuna's storage (default: SQLite in the search's folder)."""
    cache_dir: Path | None = field(default=None, metadata=INCIDENTAL)
    """Token store folder (default: $PROCTOOL_CACHE or ~/.cache/proctool)."""
    output: Path = field(default=Path("search"), metadata=INCIDENTAL | {"folder": True})
    """Folder of the search: trials, answer, recipe."""

    def __post_init__(self) -> None:
        if not 0 < self.hours < math.inf:
            raise OptionError(f"hours = {self.hours:g}: must be above 0")
        for name in ("trials", "steps", "jobs", "tokens"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise OptionError(f"{name} = {value}: must be at least 1")
        for name, least in (("context", 2), ("batch_size", 1), ("finalists", 1), ("gpus", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise OptionError(f"{name} = {getattr(self, name)}: must be at least {least}")
        if self.confirm < FEWEST_SEEDS:
            raise OptionError(f"confirm = {self.confirm}: an interval needs at least {FEWEST_SEEDS} fresh seeds")
        if sorted(set(self.widths)) != list(self.widths):
            raise OptionError(f"widths = {','.join(map(str, self.widths))}: write each width once, the smallest first")
        if self.steps is not None and self.steps < FEWEST_STEPS:
            raise OptionError(f"steps = {self.steps}: a trial needs at least {FEWEST_STEPS}, one between two reports")


REPORTS = 8
"""Evaluations of a trial; after each of them it may be stopped."""
FEWEST_STEPS = REPORTS
