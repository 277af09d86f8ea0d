"""Whether the corpus of a ladder has enough text for its widest model."""

from __future__ import annotations

from proctool.errors import CorpusError, OptionError
from proctool.experiment.graph import Plan
from proctool.experiment.stage import Stage
from proctool.paths import is_path
from proctool.training.options import PretrainOptions

MOST_EPOCHS = 4
"""Passes over a corpus up to which repeated text is nearly as good as new (Muennighoff et al. 2023, section 4)."""


def require_text(plan: Plan, yes: bool) -> None:
    """Raise OptionError if a rung of a ladder repeats its corpus more than `MOST_EPOCHS` times, unless `yes`.

    A corpus whose size is not known before it is tokenised is not checked.
    """
    if not plan.rungs or yes:
        return
    for width, rung in sorted(plan.rungs.items(), reverse=True):
        for by_seed in rung.arms.values():
            stage = next(iter(by_seed.values())).pretrain
            if stage is None or stage.is_done(plan.root) or (tokens := _tokens(stage)) is None:
                continue
            if (epochs := stage.tokens / tokens) > MOST_EPOCHS:
                raise OptionError(
                    f"ladder: width {width} takes {epochs:.1f} passes over the corpus, above {MOST_EPOCHS} of which "
                    "repeated text is worth less; give a larger corpus, smaller widths or fewer steps, or add --yes"
                )


def _tokens(stage: Stage) -> int | None:
    """The training tokens of a stage's corpus; None if they are not known yet."""
    from proctool.corpora import open_corpus
    from proctool.corpora.catalog import is_local
    from proctool.corpora.store import is_built, open_store
    from proctool.corpora.subwords import load_tokenizer
    from proctool.corpora.tokenizers import BUILT_IN

    options = stage.options
    assert isinstance(options, PretrainOptions)
    tokenizer = options.tokenizer
    if is_local(options.corpus) and (tokenizer in BUILT_IN or is_path(tokenizer)):
        try:
            corpus = open_corpus(
                options.corpus, text_field=options.text_field, validation=options.validation,
                skip_bad=options.skip_bad, cache_dir=options.cache_dir,
            )  # fmt: skip
            loaded = load_tokenizer(tokenizer, options.end_of_text)
            if is_built(corpus, loaded, options.budget, options.cache_dir):
                store = open_store(corpus, loaded, options.context, budget=options.budget, cache_dir=options.cache_dir)
                return len(store.split()) * options.context
            if tokenizer == "bytes" and corpus.stored_bytes is not None:
                return min(corpus.stored_bytes, options.budget or corpus.stored_bytes)
        except CorpusError:
            return options.budget  # check_inputs says what is wrong
    return options.budget
