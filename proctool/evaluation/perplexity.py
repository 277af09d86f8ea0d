"""Loss of a saved model on a corpus, document by document: per token, per byte, per position.

For a document `The cat.`, with # for end-of-text, a model reads and predicts:

    read      # T h e _ c a t .
    predict   T h e _ c a t . #

So every token is predicted once. The first is predicted from end-of-text, as in training, where another document ends
before it. A model with its own tokenizer reads that tokenizer's start tokens instead, such as <s>. Bits per byte are
the losses of all tokens, including the final end-of-text, over the bytes of the text: a code length that does not
depend on the tokenizer. Documents longer than the context are read in windows.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from proctool import config
from proctool.artifact import name_given
from proctool.corpora.documents import Corpus, Document
from proctool.errors import CorpusError, ModelError, OptionError
from proctool.evaluation.options import PerplexityOptions
from proctool.evaluation.row_scores import require_rows_alone, row_scores, training_loss
from proctool.training.loss_sums import LossSums
from proctool.units import to_perplexity

if TYPE_CHECKING:
    from proctool.corpora.tokenizers import Ids, Tokenizer
    from proctool.evaluation.eval_model import EvalModel
    from proctool.training.loss import TargetLoss

_POOL = 32
"""Batches of windows that are sorted by length together, so that batches have little padding."""
_AT_ONCE = 256
"""Documents encoded together."""


class Window(NamedTuple):
    """A part of a document: its ids (at most context + 1), and which of them are scored here. (L,) each"""

    ids: NDArray[np.int64]
    scored: NDArray[np.bool_]


@dataclass
class Totals:
    """Sums over scored tokens."""

    losses: LossSums
    """By the number of tokens read before, and by repetition in a window."""
    right: int = 0
    windows: int = 0
    end_nats: float = 0.0


@dataclass
class Tally:
    """Counts of what was read so far."""

    documents: int = 0
    bytes: int = 0
    lossy: int = 0
    """Documents that cannot be decoded exactly from their ids."""
    not_utf8: int = 0
    """Documents among them that are not UTF-8, so that the tokenizer reads U+FFFD."""
    first_lossy: int | None = None
    digest: Any = field(default_factory=hashlib.sha256)

    def note(self, document: Document, ids: Ids, tokenizer: Tokenizer) -> None:
        """Count a document that will be scored; `ids` are those of its answer, or of all of it."""
        self.documents += 1
        text = document.content if document.answer is None else document.answer
        self.bytes += len(text)
        if not tokenizer.gives_back(text, ids):
            self.lossy += 1
            self.not_utf8 += not _is_utf8(text)
            self.first_lossy = self.first_lossy or self.documents
        for text in (document.content, document.answer or b""):
            self.digest.update(len(text).to_bytes(8, "little") + text)


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def perplexity(
    model: Path, options: PerplexityOptions, listen: Callable[[int], None] = lambda documents: None
) -> dict[str, Any]:
    """Score every document of a split (or the first few); `listen` gets the number of scored documents.

    With `rows` it scores rows of joined documents instead, as training does (row_scores.py).
    Raises ArtifactError, CorpusError, ModelError (the loss is not finite, the context exceeds the model's, ...), and
    OptionError (a stride above the context).
    """
    if options.rows is not None:
        require_rows_alone(options)
        return row_scores(model, options)
    from proctool.evaluation.eval_model import open_subject
    from proctool.models.build import require_context
    from proctool.training.loss import TargetLoss

    subject = open_subject(model, options.tokenizer, options.end_of_text)
    context = options.context or subject.context or 1024
    require_context(subject.saved.config, context, "context: a window", "lower --context")
    stride = options.stride or context
    if stride > context:
        raise OptionError(f"stride = {stride}: longer than the context of {context}; use at most {context}")
    corpus = opened(options.corpus, options, options.validation)
    if options.split not in corpus.splits:
        raise CorpusError(f'corpus {corpus.name} has no split "{options.split}"; it has {", ".join(corpus.splits)}')
    if options.apart_from is not None:
        other = opened(options.apart_from, options)
        check_apart(_documents(corpus, options), other, options)

    tokenizer, read = subject.tokenizer, Tally()
    # The row of the score is what training calls one, `context` tokens: models trained on such rows have never
    # predicted from the position of the last.
    totals = Totals(LossSums(context + 1, last=context - 1))
    module = TargetLoss(subject.model()).eval()
    windows = _windows(_documents(corpus, options), subject, context, stride, read)
    while pool := list(itertools.islice(windows, _POOL * options.batch_size)):
        pool.sort(key=lambda window: len(window.ids))
        for first in range(0, len(pool), options.batch_size):
            _score(module, pool[first : first + options.batch_size], totals, tokenizer.eos_id)
        listen(read.documents)
    if not totals.windows:
        raise CorpusError(
            f"corpus {corpus.name}: its {options.split} split has no document with text; choose another --split, or "
            "score all of a corpus with --validation"
        )
    nats_at, count_at = totals.losses.nats_at, totals.losses.count_at.astype(int)
    nats, targets = float(nats_at.sum()), int(count_at.sum())
    if not math.isfinite(nats):
        raise ModelError(f"{model}: the loss is not finite; its weights are damaged or its training diverged")
    metadata, reported = subject.saved.metadata, training_loss(subject.saved, options)
    return {
        "event": "perplexity",
        **subject.metadata(),
        "corpus": options.corpus,
        **({} if options.validation is None else {"validation": options.validation}),
        "split": options.split,
        "text_sha256": read.digest.hexdigest(),
        "trained_on": options.split == "train" and metadata.get("corpus") == name_given(options.corpus),
        "documents": read.documents,
        "bytes": read.bytes,
        "skipped": len(corpus.skipped.problems) if corpus.skipped else 0,
        "notes": [*corpus.notes, *(corpus.skipped.notes if corpus.skipped else ())],
        "context": context,
        "stride": stride,
        "windows": totals.windows,
        "targets": targets,
        "loss": nats / targets,
        "perplexity": to_perplexity(nats / targets),
        "bits_per_byte": nats / math.log(2) / read.bytes if read.bytes else None,
        "lossless": not read.lossy,
        "lossy": {"documents": read.lossy, "not_utf8": read.not_utf8, "first": read.first_lossy},
        "end_of_text": {"targets": read.documents, "loss": totals.end_nats / read.documents},
        "accuracy": totals.right / targets,
        "by_position": {
            "targets": count_at[1:].tolist(),
            "loss": [
                each / count if count else None
                for each, count in zip(nats_at[1:].tolist(), count_at[1:].tolist(), strict=True)
            ],
        },
        "loss_parts": config.plain(totals.losses.parts()),
        "training": None if reported is None else dataclasses.asdict(reported),
    }


def opened(name: str, options: PerplexityOptions, validation: str | None = None) -> Corpus:
    """The corpus `name`, read as the options say. Raises CorpusError."""
    from proctool.corpora.catalog import open_corpus

    return open_corpus(
        name,
        text_field=options.text_field,
        validation=validation,
        skip_bad=options.skip_bad,
        cache_dir=options.cache_dir,
    )


def _documents(corpus: Corpus, options: PerplexityOptions) -> Iterator[Document]:
    """The documents to score: those of the split with text, at most `options.documents`."""
    found = (document for document in corpus.documents(options.split) if document.size)
    return itertools.islice(found, options.documents)


def check_apart(documents: Iterator[Document], other: Corpus, options: PerplexityOptions) -> None:
    """Raise CorpusError if a document is also in the train split of `other`."""
    mine = {document.digest for document in documents}
    shared = {digest for document in other.documents("train") if (digest := document.digest) in mine}
    if shared:
        raise CorpusError(
            f"{options.corpus}: {len(shared)} of {len(mine)} different documents in its {options.split} split are also "
            f"in the train split of {other.name}; remove them, or leave out --apart-from"
        )


def _windows(
    documents: Iterator[Document], subject: EvalModel, context: int, stride: int, read: Tally
) -> Iterator[Window]:
    tokenizer, begin = subject.tokenizer, subject.beginning.first
    while batch := list(itertools.islice(documents, _AT_ONCE)):
        contents = tokenizer.encode_batch([document.content for document in batch])
        answers = tokenizer.encode_batch([document.answer or b"" for document in batch])
        for document, content, answer in zip(batch, contents, answers, strict=True):
            read.note(document, content if document.answer is None else answer, tokenizer)
            ids = np.concatenate([begin, content, answer, [tokenizer.eos_id]]).astype(np.int64)
            before = len(begin) + (0 if document.answer is None else len(content))
            yield from cut(ids, np.arange(len(ids)) >= before, context, stride)


def cut(ids: NDArray[np.int64], scored: NDArray[np.bool_], context: int, stride: int) -> Iterator[Window]:
    """Windows that start every `stride` ids and read `context` of them; each id is scored in the first window with it.

    ids (n,), scored (n,) -> windows of up to context + 1 ids; the last id is only predicted, not read.
    """
    done = 0
    for begin in range(0, len(ids) - 1, stride):
        end = min(begin + context, len(ids) - 1)
        fresh = scored[begin : end + 1].copy()
        fresh[: done + 1 - begin] = False
        if fresh.any():
            yield Window(ids[begin : end + 1], fresh)
        done = end
        if end == len(ids) - 1:
            return


def _score(module: TargetLoss, windows: list[Window], totals: Totals, eos_id: int) -> None:
    import torch

    from proctool.procedural.samples import Samples
    from proctool.training.batch import Batch

    # Padding follows the ids, so no prediction sees it.
    tokens = np.full((len(windows), max(len(window.ids) for window in windows)), eos_id, np.uint32)
    scored = np.zeros(tokens.shape, bool)
    ends = np.zeros(tokens.shape, bool)
    for row, window in enumerate(windows):
        tokens[row, : len(window.ids)] = window.ids
        scored[row, : len(window.ids)] = window.scored
        ends[row, len(window.ids) - 1] = window.scored[-1] and window.ids[-1] == eos_id
    batch = Batch.of(Samples(tokens, scored), module.model.device)
    with torch.no_grad():
        losses, right = module.scores(batch.tokens, batch.positions, batch.labels)
    nats = losses.double().cpu().numpy()
    totals.losses.add(tokens, scored, nats)
    totals.right += int(right.sum())
    totals.windows += len(windows)
    totals.end_nats += float(nats[ends[scored]].sum())
