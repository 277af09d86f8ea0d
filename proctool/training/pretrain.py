"""Pretraining on a corpus, from fresh weights or from a warmed model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from proctool.corpora.noise import RandomRows, TokenNoise
from proctool.errors import OptionError
from proctool.models.build import build_grown, model_config, with_rows
from proctool.models.shapes import Shape, parse_model
from proctool.training.carried_state import open_state
from proctool.training.init_from import open_init, rows_for, transplant_from
from proctool.training.job import Job
from proctool.training.mix import Mix, even_placement
from proctool.training.mixed import SPLIT, Interleaved, MixedSource
from proctool.training.options import PretrainOptions
from proctool.training.run_place import check_files, run_path
from proctool.training.run_state import covered_steps
from proctool.training.sources import CorpusSource, Source

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from proctool.corpora.tokenizers import Tokenizer
    from proctool.models.saved import SavedModel


def pretrain_job(options: PretrainOptions, progress: Callable[..., None] | None = None) -> Job:
    """Make the job that trains `options.model` on a corpus. Raises CorpusError, ArtifactError, ModelError.

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
    mix = options.mixed
    config = model_config(
        options.model,
        # A configuration file sets the number of rows, which the donor's rows must match.
        vocab_size=rows_needed if is_shape else tokenizer.vocab_size,
        context=options.context,
        family=options.family,
        dropout=options.dropout,
        init_std=options.init_std,
        tie=options.tie,
        eos_id=tokenizer.eos_id,
    )
    rows_before = int(config.get_text_config().vocab_size)
    config = _with_symbols(config, mix, tokenizer, options)
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
    metadata |= {name: share for name in ("noise_tokens", "noise_rows") if (share := getattr(options, name))}
    noise = TokenNoise(options.noise_tokens, tokenizer.vocab_size, options.seed) if options.noise_tokens else None
    train = CorpusSource(store.split("train"), tokenizer.vocab_size, options.seed, metadata, noise)
    # Validation rows do not depend on the run's seed and have no noise.
    held_out = CorpusSource(evaluation_rows(store, options.eval_split), tokenizer.vocab_size, 0, metadata)
    source: Source = train
    seen = corpus_rows = options.steps * options.batch_size
    others: dict[str, Source] = {}
    remarks = list(store.notes)
    if options.noise_rows:
        random = RandomRows(tokenizer.vocab_size, options.context, options.seed)
        noisy = Interleaved(train, random, even_placement(options.noise_rows, options.seed))
        source = noisy
    if mix is not None:
        folder = run_path("pretrain", options, options.output)
        extend = options.extend and options.resume != "never"
        covered = covered_steps(folder, options.steps, extend=extend) * options.batch_size
        source = mixed = MixedSource.of(source, train, mix, covered, options.seed, tokenizer.eos_id)
        others[SPLIT] = mixed.held_out
        remarks.append(mixed.remark(seen))
        corpus_rows = mixed.main_rows(seen)
    if options.noise_rows:
        remarks.append(f"{noisy.placement.before(corpus_rows)} of {seen} rows are random tokens")
        corpus_rows = noisy.main_rows(corpus_rows)
    remarks.append(train.order.repetition(corpus_rows))
    return Job(
        command="pretrain",
        options=options,
        config=config,
        source=source,
        held_out=held_out,
        others=others,
        build=functools.partial(build_grown, rows=rows_before),
        output=options.output,
        metadata={
            "stage": "pretrain",
            **record(tokenizer),
            **_beginning(donor, tokenizer, options),
            **({"datasets": list(datasets)} if (datasets := repositories(corpus)) else {}),
        },
        parents=[donor.parent] if donor else [],
        prepare=transplant_from(donor, options, options.seed),
        state=open_state(options, donor),
        epochs=corpus_rows / len(train.rows),
        remark="; ".join(filter(None, remarks)),
        by_part=True,
    )


def _with_symbols(
    config: PretrainedConfig, mix: Mix | None, tokenizer: Tokenizer, options: PretrainOptions
) -> PretrainedConfig:
    """Add embedding rows to the configuration for the ids of a mix's symbols. Raises OptionError."""
    rows = config.get_text_config().vocab_size
    needed = tokenizer.vocab_size + (mix.added_ids if mix is not None else 0)
    if needed <= rows:
        return config
    if options.init not in (None, "none") and options.embeddings == "copy":
        raise OptionError(
            f"mix_symbols = reserved: the symbols need {needed} ids, but copied embeddings have {rows} rows; use "
            "--mix-symbols frequency, or another --embeddings"
        )
    return with_rows(config, needed)


def _beginning(donor: SavedModel | None, tokenizer: Tokenizer, options: PretrainOptions) -> dict[str, str]:
    """How texts begin: as for the donor, if the model continues with its embeddings and tokenizer."""
    from proctool.corpora.carried import AS_ITS_TOKENIZER, BEGIN

    if donor is None or not donor.begins_as_tokenizer or options.embeddings != "copy":
        return {}
    own = donor.tokenizer(options.end_of_text)
    return {BEGIN: AS_ITS_TOKENIZER} if own is not None and own.fingerprint == tokenizer.fingerprint else {}
