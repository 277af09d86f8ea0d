"""Options of `proctool eval finetune`. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from proctool.training.options import INCIDENTAL, TrainingOptions


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(TrainingOptions):
    """Fine-tune a whole model on wikitext, a GLUE task or py150, and score it on the whole validation set."""

    init: str = "none"
    """Model with its tokenizer; none: fresh weights of --model."""
    data: str | None = None
    """Folder of official files, a corpus or a hub id (default: the hub's)."""
    validation: str | None = None
    """wikitext: separate validation corpus; all of --data is training."""
    skip_bad: bool | None = None
    """wikitext: skip documents that cannot be read."""
    tokenizer: str | None = None
    """Tokenizer, a path or name (default: the model's; --init none needs it)."""
    end_of_text: str | None = None
    """Token that ends a text (default: the tokenizer's own)."""
    context: int | None = None
    """Tokens per sample at most (default: the model's context)."""
    dropout: float = 0.1
    """Dropout rate, wherever the family has dropout."""
    lr: float = 5e-5
    """Peak learning rate."""
    weight_decay: float = 0.01
    """AdamW's weight decay; never for norms, biases and embeddings."""
    beta2: float = 0.999
    """AdamW's second-moment decay."""
    schedule: Literal["constant", "cosine", "linear", "wsd"] = "linear"
    """Learning rate after the ramp; wsd decays over the last fifth."""
    final_lr: float = 0.0
    """Final learning rate as a fraction of the peak (not for constant)."""
    cache_dir: Path | None = field(default=None, metadata=INCIDENTAL)
    """Token store folder (default: $PROCTOOL_CACHE or ~/.cache/proctool)."""
    output: Path | None = field(default=Path("finetuned.safetensors"), metadata=INCIDENTAL)
    """Model file to write; none: only the scores."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.output == Path("none"):
            object.__setattr__(self, "output", None)
