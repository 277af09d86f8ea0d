"""Options of `proctool eval interpret`. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from proctool.errors import OptionError

PICTURES = ("heads", "attention", "distances", "ablation", "course", "beside")
"""The names of the files that --figures may write."""


@dataclass(frozen=True, kw_only=True)
class InterpretOptions:
    """Show what each attention head does, and how far weights are from those of other models."""

    against: tuple[str, ...] = ()
    """Model to measure weight distances from, or fresh (repeatable)."""
    length: int = 25
    """Random tokens in the sequence that is repeated."""
    repeats: int | None = None
    """Repeats per sample, at least 2 (default: 4, if the context allows)."""
    task: str | None = None
    """Measure on validation samples of this task instead: dyck:k=16."""
    corpus: str | None = None
    """Measure on documents of this corpus or text file instead."""
    samples: int = 32
    """Samples to average head scores over."""
    ablate: Literal["zero", "mean"] | None = None
    """Remove each head: set its output to zero, or to its mean."""
    orders: int = 3
    """Random orders of removal for --ablate, as the control."""
    beside: str | None = None
    """Second model to draw next to this one (--figures and --task)."""
    beside_task: str | None = None
    """Task for the model of --beside (default: that of --task)."""
    seed: int = 0
    """Seed for samples and orders, and for fresh weights without a seed."""
    figures: Path | None = None
    """Folder to write figures to; it is created if needed."""
    kind: tuple[Literal["png", "svg", "pdf"], ...] = field(default=("png",), metadata={"comma": True})
    """Figure formats."""

    def __post_init__(self) -> None:
        for name, least in (("length", 2), ("repeats", 2), ("samples", 1), ("orders", 0), ("seed", 0)):
            if (value := getattr(self, name)) is not None and value < least:
                raise OptionError(f"{name} = {value}: must be at least {least}")
        if self.beside is not None and (self.figures is None or self.task is None):
            raise OptionError(
                "beside: needs --figures FOLDER and --task SPEC, whose samples both models read; add them"
            )
        if self.beside_task is not None and self.beside is None:
            raise OptionError("beside_task: needs --beside MODEL; add it, or leave --beside-task out")
        if self.task is not None and self.corpus is not None:
            raise OptionError("task and corpus: heads are measured on one of them; give only one")
