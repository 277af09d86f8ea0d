"""Loss of a saved model on a corpus."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from proctool.errors import ModelError, OptionError
from proctool.evaluation.options import PerplexityOptions
from proctool.models.build import context_of
from proctool.models.saved import open_model


def perplexity(model: Path, options: PerplexityOptions, progress: Callable[..., None] | None = None) -> dict[str, Any]:
    """Score the rows of a split once each, in the store's order. Raises ArtifactError, CorpusError, ModelError.

    Rows are scored apart: no token sees more than its own row, and the first token of a row is not scored.
    """
    from accelerate import Accelerator

    from proctool.corpora.catalog import open_corpus
    from proctool.corpora.store import open_store
    from proctool.corpora.tokenizers import load_tokenizer
    from proctool.training.evaluate import evaluate
    from proctool.training.loss import TargetLoss

    saved = open_model(model)
    tokenizer = load_tokenizer(options.tokenizer or saved.about.get("tokenizer") or "bytes")
    if tokenizer.vocab_size != saved.config.vocab_size:
        raise ModelError(
            f"{model}: has a vocabulary of {saved.config.vocab_size}, the tokenizer {tokenizer.spec} one of "
            f"{tokenizer.vocab_size}; name the tokenizer it was trained with, or pretrain the model first"
        )
    context = options.context or context_of(saved.config) or 1024
    limit = context_of(saved.config)
    if limit is not None and context > limit:
        raise OptionError(f"context = {context}: the model takes at most {limit} tokens")
    corpus = open_corpus(options.corpus, text_field=options.text_field, cache_dir=options.cache_dir)
    store = open_store(corpus, tokenizer, context, cache_dir=options.cache_dir, progress=progress)
    rows = store.split(options.split)
    accelerator = Accelerator()
    module = TargetLoss(saved.model().to(accelerator.device))
    count = min(options.rows or len(rows), len(rows))
    scores = evaluate(accelerator, module, _Rows(rows, tokenizer.vocab_size), count, options.batch_size)
    return {
        "event": "perplexity",
        "model": str(model),
        "content": saved.artifact.content if saved.artifact else None,
        "corpus": options.corpus,
        "corpus_content": store.content,
        "split": options.split,
        "tokenizer": tokenizer.spec,
        "rows": count,
        "targets": scores.targets,
        "loss": scores.loss,
        "perplexity": math.exp(scores.loss),
        "accuracy": scores.accuracy,
    }


class _Rows:
    """Rows in the store's own order, as a source."""

    def __init__(self, rows: Any, vocab_size: int) -> None:
        self.rows, self.vocab_size, self.length = rows, vocab_size, int(rows.context)

    def read(self, start: int, stop: int) -> Any:
        import numpy as np

        return self.rows.read(np.arange(start, stop))

    def about(self) -> dict[str, Any]:
        return {}
