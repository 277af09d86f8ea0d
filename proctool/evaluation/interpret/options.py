"""What `proctool eval interpret` can be told. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from proctool.errors import OptionError

PICTURES = ("heads", "attention", "distances", "ablation", "course", "beside")
"""The names of the files that --figures may write."""


@dataclass(frozen=True, kw_only=True)
class InterpretOptions:
    """Look into a model: what each attention head does, and how far its weights are from those it came from."""

    against: tuple[str, ...] = ()
    """A model to measure weight distances from, or fresh (the model as drawn from its own seed); may be repeated."""
    length: int = 25
    """Random tokens in the sequence that is repeated."""
    repeats: int | None = None
    """Times it stands in a sample (default: 4, or as often as the context holds, at least twice)."""
    task: str | None = None
    """Measure on this task's validation samples instead: haystack:pairs=30, dyck:k=16."""
    corpus: str | None = None
    """Measure on documents of this corpus or text file instead."""
    samples: int = 32
    """Samples to average the heads' scores over."""
    ablate: Literal["zero", "mean"] | None = None
    """Loss without each head: its output set to zero, or to its mean."""
    orders: int = 3
    """Random orders of removal that --ablate compares with entropy's."""
    beside: str | None = None
    """With --figures and --task: draw this model's attention beside it."""
    beside_task: str | None = None
    """The task whose sample the model of --beside reads (default: --task)."""
    seed: int = 0
    """Draws samples and orders; fresh weights, where no seed is recorded."""
    figures: Path | None = None
    """Write pictures into this folder; it is made where it does not exist."""
    kind: tuple[Literal["png", "svg", "pdf"], ...] = field(default=("png",), metadata={"comma": True})
    """Formats of the pictures."""

    def __post_init__(self) -> None:
        for name, least in (("length", 2), ("repeats", 2), ("samples", 1), ("orders", 0), ("seed", 0)):
            if (value := getattr(self, name)) is not None and value < least:
                raise OptionError(f"{name} = {value}: must be at least {least}")
        if self.beside is not None and (self.figures is None or self.task is None):
            raise OptionError("beside: two models are drawn on samples of tasks; give --figures FOLDER and --task SPEC")
        if self.beside_task is not None and self.beside is None:
            raise OptionError("beside_task: give the model that reads it with --beside")
        if self.task is not None and self.corpus is not None:
            raise OptionError("task and corpus: heads are measured on one of them; leave the other out")
