"""Loss of a saved model on rows of joined documents, exactly as training measures it at its end.

Training scores rows of `context` tokens in which documents follow each other, in a fixed order, in its own precision.
The store's budget and the half of the validation rows are those that the model's file records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proctool import config
from proctool.artifact import name_given
from proctool.corpora.documents import VALIDATION
from proctool.errors import ModelError, OptionError
from proctool.evaluation.options import PerplexityOptions
from proctool.units import to_perplexity

if TYPE_CHECKING:
    from proctool.models.saved import SavedModel

_ROWS_AT_ONCE = 32
"""Of a model whose training is unknown."""


@dataclass(frozen=True)
class TrainingLoss:
    """The validation loss that a model's file records, and how its training measured it."""

    loss: float
    rows: int
    context: int
    precision: str

    def words(self) -> str:
        """A line that says why the loss of documents differs."""
        return (
            f"its training reported a validation loss of {self.loss:.4f}, on the first {self.rows} rows of "
            f"{self.context} tokens of joined documents ({self.precision}); --rows {self.rows} scores the same"
        )


def training_loss(saved: SavedModel, options: PerplexityOptions) -> TrainingLoss | None:
    """What the training of a model reported on the split that is asked for; None if that was another text."""
    metadata = saved.metadata
    training, metrics = _mapping(metadata.get("training")), _mapping(metadata.get("metrics"))
    names = [metadata.get("corpus"), training.get("validation")]
    asked = [None if name is None else name_given(name) for name in (options.corpus, options.validation)]
    found = metrics.get("loss"), training.get("eval_samples"), metadata.get("context"), training.get("precision")
    if options.split != VALIDATION or names != asked or metadata.get("stage") != "pretrain":
        return None
    loss, rows, context, precision = found
    if isinstance(loss, float) and isinstance(rows, int) and isinstance(context, int) and isinstance(precision, str):
        return TrainingLoss(loss, rows, context, precision)
    return None


def row_scores(model: Path, options: PerplexityOptions) -> dict[str, Any]:
    """Score the first `options.rows` rows of a split. Raises ArtifactError, CorpusError, ModelError, OptionError."""
    from proctool.corpora.halves import evaluation_rows
    from proctool.corpora.store import open_store
    from proctool.evaluation.eval_model import open_subject
    from proctool.evaluation.perplexity import opened
    from proctool.models.build import require_context
    from proctool.models.faster import faster
    from proctool.training.devices import accelerator_of
    from proctool.training.evaluate import evaluate, evaluate_parts
    from proctool.training.loss import TargetLoss
    from proctool.training.sources import CorpusSource, held_out_samples

    subject = open_subject(model, options.tokenizer, options.end_of_text)
    metadata = subject.saved.metadata
    training = _mapping(metadata.get("training"))
    context = options.context or _whole(metadata.get("context")) or subject.context or 1024
    require_context(subject.saved.config, context, "context: a row", "lower --context")
    corpus = opened(options.corpus, options, options.validation)
    store = open_store(
        corpus, subject.tokenizer, context, budget=_whole(training.get("budget")), cache_dir=options.cache_dir,
        needs_row=False,
    )  # fmt: skip
    half = training.get("eval_split")
    rows = evaluation_rows(store, half) if options.split == VALIDATION else store.split(options.split)
    source = CorpusSource(rows, subject.tokenizer.vocab_size, 0, {})
    precision = str(training.get("precision") or "fp32")
    accelerator = accelerator_of(precision)
    built = subject.model()
    samples, batch = held_out_samples(source, options.rows or 0), _rows_at_once(training)
    with faster(built):
        module = TargetLoss(built)
        scores = evaluate(accelerator, module, source, samples, batch)
        parts = evaluate_parts(accelerator, module, source, samples, batch)
    if scores.measures()["loss"] is None:
        raise ModelError(f"{model}: the loss is not finite; its weights are damaged or its training diverged")
    return {
        "event": "perplexity",
        **subject.metadata(),
        "corpus": options.corpus,
        **({} if options.validation is None else {"validation": options.validation}),
        "split": options.split,
        "corpus_content": store.content,
        "as_in_training": metadata.get("corpus_content") == store.content,
        "rows": samples,
        "context": context,
        "precision": precision,
        "notes": list(store.notes),
        "targets": scores.targets,
        "loss": scores.loss,
        "perplexity": to_perplexity(scores.loss),
        "accuracy": scores.accuracy,
        "loss_parts": config.plain(parts),
    }


def _rows_at_once(training: Mapping[str, Any]) -> int:
    """As many as in training, because their number can change the last bits of a loss."""
    batch, parts = _whole(training.get("batch_size")), _whole(training.get("accumulate"))
    return _whole(training.get("micro_batch")) or (_ROWS_AT_ONCE if batch is None else max(1, batch // (parts or 1)))


def require_rows_alone(options: PerplexityOptions) -> None:
    """Raise OptionError for an option of documents and windows beside --rows."""
    for name in ("documents", "stride", "per_position", "apart_from"):
        if getattr(options, name) is not None:
            flag = "--" + name.replace("_", "-")
            raise OptionError(f"{flag} is for documents; leave out {flag} or --rows")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _whole(value: Any) -> int | None:
    return value if type(value) is int and value > 0 else None
