"""What `proctool eval finetune` can be told. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from proctool.training.options import INCIDENTAL, TrainingOptions


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(TrainingOptions):
    """Fine-tune a whole model on wikitext, a GLUE task or py150, and score it on all of the held-out set."""

    init: str = "none"
    """A model with its tokenizer: an artifact or a Hugging Face folder; none: fresh weights of --model."""
    data: str | None = None
    """A folder with the official files, a corpus for wikitext, or a repository on the hub (default: the task's)."""
    validation: str | None = None
    """wikitext: corpus for validation; all of --data is then training."""
    skip_bad: bool | None = None
    """wikitext: leave out documents that cannot be read."""
    tokenizer: str | None = None
    """bytes, or any tokenizer by path or name (default: the model's own; needed with --init none)."""
    end_of_text: str | None = None
    """The token that ends a text (default: the one the tokenizer names)."""
    context: int | None = None
    """Tokens in a sample at most (default: the model's context)."""
    dropout: float = 0.1
    """Dropout everywhere the family has it."""
    lr: float = 5e-5
    """Peak learning rate."""
    weight_decay: float = 0.01
    """AdamW's decay; norms, biases and embeddings are never decayed."""
    beta2: float = 0.999
    """AdamW's second-moment decay."""
    schedule: Literal["constant", "cosine", "linear", "wsd"] = "linear"
    """Learning rate after the ramp; wsd holds it, then falls linearly over the last fifth."""
    final_lr: float = 0.0
    """Where cosine, linear and wsd end, as a fraction of the peak."""
    cache_dir: Path | None = field(default=None, metadata=INCIDENTAL)
    """Where token stores are kept (default: $PROCTOOL_CACHE or ~/.cache/proctool)."""
    output: Path = field(default=Path("finetuned.safetensors"), metadata=INCIDENTAL)
    """The fine-tuned model to write."""
