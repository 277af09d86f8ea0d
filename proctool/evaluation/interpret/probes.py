"""What heads are measured on: random tokens that are repeated, samples of a task, or documents of a corpus."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from proctool.errors import CorpusError, ModelError
from proctool.models.build import context_of, require_context
from proctool.procedural.mixture import parse_tasks
from proctool.procedural.samples import Samples
from proctool.procedural.streams import Stream

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from proctool.evaluation.interpret.options import InterpretOptions
    from proctool.models.saved import SavedModel

_USUAL_REPEATS = 4  # Olsson et al.
_MOST_TOKENS = 512
"""Tokens of a document that are read: patterns grow with their square."""


@dataclass(frozen=True)
class Probe:
    """Samples on which heads are measured; a loss and an accuracy on their targets can be too."""

    samples: Samples
    label: str
    length: int | None = None
    """Random tokens in the sequence that is repeated; None for other samples."""
    repeats: int | None = None

    def rows(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.bool_]]]:
        """Tokens and targets of each sample, what follows its last target cut off. (L,), (L,)"""
        for tokens, targets in zip(self.samples.tokens, self.samples.targets, strict=True):
            stop = int(targets.nonzero()[0].max(initial=0)) + 1
            yield tokens[:stop].astype(np.int64), targets[:stop]


def make_probe(saved: SavedModel, options: InterpretOptions) -> Probe:
    """The samples that the options ask for.

    Raises ModelError where they do not fit the model, OptionError, CorpusError.
    """
    if options.task is not None:
        return task_probe(saved.config, options, str(saved.path))
    return (
        _corpus(saved, options) if options.corpus is not None else random_probe(saved.config, options, str(saved.path))
    )


def random_probe(config: PretrainedConfig, options: InterpretOptions, name: str) -> Probe:
    """Random tokens, repeated; targets from the second time on. Raises ModelError where they exceed the context."""
    limit, length = context_of(config), options.length
    usual = _USUAL_REPEATS if limit is None else max(2, min(_USUAL_REPEATS, limit // length))
    repeats = options.repeats or usual
    require_context(
        config, length * repeats, f"{name}: a sample ({repeats} times {length})", "lower --length or --repeats"
    )
    tokens = repeated(config.vocab_size, length, repeats, options.samples, options.seed)
    targets = np.broadcast_to(np.arange(length * repeats) >= length, tokens.shape)
    return Probe(
        Samples(tokens.astype(np.uint32), targets), f"{length} random tokens, {repeats} times", length, repeats
    )


def repeated(vocab_size: int, length: int, repeats: int, samples: int, seed: int) -> NDArray[np.int64]:
    """Random tokens, repeated: (samples, length * repeats). Within one sample all differ, where there are enough."""
    draw = np.random.default_rng(seed)
    once = [draw.choice(vocab_size, length, replace=length > vocab_size) for _ in range(samples)]
    return np.tile(np.array(once, np.int64), (1, repeats))


def task_probe(config: PretrainedConfig, options: InterpretOptions, name: str) -> Probe:
    """Samples of the validation split of `options.task`. Raises OptionError, ModelError."""
    task = parse_tasks(options.task or "")
    if task.vocab_size > config.vocab_size:
        raise ModelError(
            f"{name}: has a vocabulary of {config.vocab_size} tokens, {task.spec} has {task.vocab_size}; "
            "choose a task that the model was trained on"
        )
    require_context(config, task.length, f"{name}: a sample of {task.spec}", "choose a shorter one")
    return Probe(Stream(task, options.seed, "validation").read(0, options.samples), task.spec)


def _corpus(saved: SavedModel, options: InterpretOptions) -> Probe:
    """The beginnings of the first documents of a corpus, each token but the first a target."""
    from proctool.corpora.catalog import open_corpus
    from proctool.evaluation.eval_model import open_subject

    subject = open_subject(saved.path, None)
    longest = min(_MOST_TOKENS, subject.context or _MOST_TOKENS)
    corpus = open_corpus(str(options.corpus))
    split = "validation" if "validation" in corpus.splits else corpus.splits[0]
    documents = (document for document in corpus.documents(split) if document.size)
    contents = [document.content for document in itertools.islice(documents, options.samples)]
    if not contents:
        raise CorpusError(f"{corpus.name}: its split {split} holds no documents")
    ids = [[*subject.beginning.first, *found][:longest] for found in subject.tokenizer.encode_batch(contents)]
    tokens = np.full((len(ids), max(map(len, ids))), subject.tokenizer.eos_id, np.uint32)
    targets = np.zeros(tokens.shape, bool)
    for row, found in enumerate(ids):
        tokens[row, : len(found)] = found
        targets[row, 1 : len(found)] = True
    return Probe(Samples(tokens, targets), f"{len(ids)} documents of {corpus.name}, {split}")
