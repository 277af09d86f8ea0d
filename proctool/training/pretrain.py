"""Pretraining on a corpus, from fresh weights or from a warmed model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from proctool.errors import CorpusError
from proctool.models.build import model_config
from proctool.training.job import Job, check_files
from proctool.training.options import PretrainOptions
from proctool.training.sources import CorpusSource
from proctool.training.start import open_init, transplant_from


def pretrain_job(options: PretrainOptions, progress: Callable[..., None] | None = None) -> Job:
    """The job that trains `options.model` on the rows of a corpus. Raises CorpusError, ArtifactError, ModelError.

    Arms with the same corpus, context and seed see the same rows in the same order.
    """
    from proctool.corpora.carried import record
    from proctool.corpora.catalog import open_corpus
    from proctool.corpora.store import open_store
    from proctool.corpora.tokenizers import load_tokenizer

    check_files("pretrain", options, options.output)
    donor = open_init(options)
    tokenizer = load_tokenizer(options.tokenizer)
    store = open_store(
        open_corpus(options.corpus, text_field=options.text_field, cache_dir=options.cache_dir),
        tokenizer,
        options.context,
        budget=options.budget,
        cache_dir=options.cache_dir,
        progress=progress,
    )
    about: dict[str, Any] = {
        "corpus": options.corpus,
        "corpus_content": store.content,
        "tokenizer": tokenizer.spec,
        "context": options.context,
    }
    sources = {}
    for split in ("train", "validation"):
        rows = store.split(split)
        if not len(rows):
            raise CorpusError(
                f"{options.corpus}: its {split} split has no row of {options.context} tokens; shorten --context"
            )
        # The held-out rows are the same ones whatever the run's seed.
        sources[split] = CorpusSource(rows, tokenizer.vocab_size, options.seed if split == "train" else 0, about)
    config = model_config(
        options.model,
        vocab_size=tokenizer.vocab_size,
        context=options.context,
        family=options.family,
        dropout=options.dropout,
        eos_id=tokenizer.eos_id,
    )
    return Job(
        command="pretrain",
        options=options,
        config=config,
        source=sources["train"],
        held_out=sources["validation"],
        output=options.output,
        about={"stage": "pretrain", **record(tokenizer)},
        parents=[donor.parent] if donor else [],
        prepare=transplant_from(donor, options, options.seed),
        rows=len(sources["train"].rows),
        remark=sources["train"].order.repetition(options.steps * options.batch_size),
    )
