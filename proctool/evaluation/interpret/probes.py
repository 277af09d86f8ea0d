"""The samples that heads are measured on: repeated random tokens, samples of a task, or documents of a corpus."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from proctool.errors import CorpusError, ModelError
from proctool.models.build import require_context
from proctool.models.probes import Probe, random_probe
from proctool.procedural.mixture import parse_tasks
from proctool.procedural.samples import Samples
from proctool.procedural.streams import Stream
from proctool.units import counted

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from proctool.evaluation.interpret.options import InterpretOptions
    from proctool.models.saved import SavedModel

_MOST_TOKENS = 512
"""At most this many tokens of a document are read, because attention patterns grow with their square."""


def make_probe(saved: SavedModel, options: InterpretOptions) -> Probe:
    """The samples given by the options.

    Raises ModelError if they do not fit the model, OptionError, CorpusError.
    """
    name = str(saved.path)
    if options.task is not None:
        return task_probe(saved.config, options, name)
    if options.corpus is not None:
        return _corpus(saved, options)
    return random_probe(
        saved.config, name, length=options.length, repeats=options.repeats, samples=options.samples, seed=options.seed
    )


def task_probe(config: PretrainedConfig, options: InterpretOptions, name: str) -> Probe:
    """Samples of the validation split of `options.task`. Raises OptionError, ModelError."""
    task = parse_tasks(options.task or "")
    if task.vocab_size > config.vocab_size:
        raise ModelError(
            f"{name}: has a vocabulary of {config.vocab_size} tokens, but {task.spec} needs {task.vocab_size}; "
            "choose a task with fewer symbols, such as the one it was trained on"
        )
    require_context(config, task.length, f"{name}: a sample of {task.spec}", "choose a shorter one")
    return Probe(Stream(task, options.seed, "validation").read(0, options.samples), task.spec)


def _corpus(saved: SavedModel, options: InterpretOptions) -> Probe:
    """The beginnings of the first documents of a corpus; all tokens except the first are targets."""
    from proctool.corpora.catalog import open_corpus
    from proctool.evaluation.eval_model import open_subject

    subject = open_subject(saved.path, None)
    longest = min(_MOST_TOKENS, subject.context or _MOST_TOKENS)
    corpus = open_corpus(str(options.corpus))
    split = "validation" if "validation" in corpus.splits else corpus.splits[0]
    documents = (document for document in corpus.documents(split) if document.size)
    contents = [document.content for document in itertools.islice(documents, options.samples)]
    if not contents:
        raise CorpusError(f"{corpus.name}: its {split} split has no documents with text; give another corpus")
    ids = [[*subject.beginning.first, *found][:longest] for found in subject.tokenizer.encode_batch(contents)]
    tokens = np.full((len(ids), max(map(len, ids))), subject.tokenizer.eos_id, np.uint32)
    targets = np.zeros(tokens.shape, bool)
    for row, found in enumerate(ids):
        tokens[row, : len(found)] = found
        targets[row, 1 : len(found)] = True
    return Probe(Samples(tokens, targets), f"{counted(len(ids), 'document', exact=True)} of {corpus.name}, {split}")
