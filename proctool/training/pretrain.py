"""Pretraining on a corpus, from fresh weights or from a warmed model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from proctool.models.build import model_config
from proctool.models.shapes import Shape, parse_model
from proctool.training.init_from import open_init, rows_for, transplant_from
from proctool.training.job import Job, check_files
from proctool.training.options import PretrainOptions
from proctool.training.sources import CorpusSource

if TYPE_CHECKING:
    from proctool.corpora.tokenizers import Tokenizer
    from proctool.models.saved import SavedModel


def pretrain_job(options: PretrainOptions, progress: Callable[..., None] | None = None) -> Job:
    """The job that trains `options.model` on the rows of a corpus. Raises CorpusError, ArtifactError, ModelError.

    Arms with the same corpus, context and seed see the same rows in the same order.
    """
    from proctool.corpora.carried import record
    from proctool.corpora.catalog import open_corpus
    from proctool.corpora.halves import evaluation_rows
    from proctool.corpora.hub import repositories
    from proctool.corpora.store import open_store
    from proctool.corpora.subwords import load_tokenizer

    check_files("pretrain", options, options.output)
    donor = open_init(options)
    tokenizer = load_tokenizer(options.tokenizer, options.end_of_text)
    is_shape = isinstance(parse_model(options.model), Shape)
    rows_needed = rows_for(donor, options, tokenizer)
    config = model_config(
        options.model,
        # A configuration file has rows of its own, to which the donor's must fit.
        vocab_size=rows_needed if is_shape else tokenizer.vocab_size,
        context=options.context,
        family=options.family,
        dropout=options.dropout,
        init_std=options.init_std,
        tie=options.tie,
        eos_id=tokenizer.eos_id,
    )
    corpus = open_corpus(
        options.corpus,
        text_field=options.text_field,
        validation=options.validation,
        skip_bad=options.skip_bad,
        cache_dir=options.cache_dir,
    )
    store = open_store(
        corpus,
        tokenizer,
        options.context,
        budget=options.budget,
        cache_dir=options.cache_dir,
        progress=progress,
    )
    metadata: dict[str, Any] = {
        "corpus": options.corpus,
        "corpus_content": store.content,
        "tokenizer": tokenizer.spec,
        "context": options.context,
    }
    if store.skipped:
        metadata["corpus_skipped"] = store.skipped
    if options.eval_split is not None:
        metadata["eval_split"] = options.eval_split
    sources = {}
    for split in ("train", "validation"):
        rows = store.split(split) if split == "train" else evaluation_rows(store, options.eval_split)
        # The held-out rows are the same ones whatever the run's seed.
        sources[split] = CorpusSource(rows, tokenizer.vocab_size, options.seed if split == "train" else 0, metadata)
    repetition = sources["train"].order.repetition(options.steps * options.batch_size)
    return Job(
        command="pretrain",
        options=options,
        config=config,
        source=sources["train"],
        held_out=sources["validation"],
        output=options.output,
        metadata={
            "stage": "pretrain",
            **record(tokenizer),
            **_beginning(donor, tokenizer, options),
            **({"datasets": list(datasets)} if (datasets := repositories(corpus)) else {}),
        },
        parents=[donor.parent] if donor else [],
        prepare=transplant_from(donor, options, options.seed),
        rows=len(sources["train"].rows),
        remark="; ".join(filter(None, [*store.notes, repetition])),
    )


def _beginning(donor: SavedModel | None, tokenizer: Tokenizer, options: PretrainOptions) -> dict[str, str]:
    """A model that goes on with a foreign model's embeddings and tokenizer begins texts as that did."""
    from proctool.corpora.carried import AS_ITS_TOKENIZER, BEGIN

    if donor is None or not donor.begins_as_tokenizer or options.embeddings != "copy":
        return {}
    own = donor.tokenizer(options.end_of_text)
    return {BEGIN: AS_ITS_TOKENIZER} if own is not None and own.fingerprint == tokenizer.fingerprint else {}
