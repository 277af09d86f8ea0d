"""Fine-tuning as in the paper (section 5): WikiText perplexity, GLUE tasks, PY150 token accuracy."""

from __future__ import annotations

from proctool.evaluation.finetune.options import FinetuneOptions

__all__ = ["FinetuneOptions"]
