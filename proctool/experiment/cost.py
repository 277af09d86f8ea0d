"""The cost of a stage from its options: the model is built without weights, and no corpus is opened."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from proctool.evaluation.finetune import FinetuneOptions
from proctool.experiment.stage import Stage
from proctool.models.shapes import written_sizes
from proctool.paths import user_path
from proctool.training.options import PretrainOptions, TrainingOptions

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_VOCABULARIES = {"bytes": 257, "characters": 98, "gpt2": 50_257, "codeparrot/codeparrot": 32_768}
_OTHERWISE = 50_257
"""The size of GPT-2's vocabulary, assumed for tokenizers that are not on this machine."""


def flops(stage: Stage) -> int:
    """Floating-point operations of its training, by `training_flops`. Raises ModelError.

    A tokenizer that is not on this machine counts as GPT-2's.
    """
    options = stage.options
    if not isinstance(options, TrainingOptions):
        return 0
    probe = 0 if stage.probe is None else flops(stage.probe)
    return stage.trained_tokens * _token_flops(outlined(stage), stage.length) + probe


@functools.lru_cache(maxsize=64)
def _token_flops(model: PreTrainedModel, length: int) -> int:
    from proctool.models.flops import token_flops

    return token_flops(model, length)


def least_seconds(stage: Stage, processes: int = 1) -> float:
    """What its training takes on this machine at least; 0 if it trains nothing. Measures the machine once.

    Raises ModelError, OptionError.
    """
    options = stage.options
    if not isinstance(options, TrainingOptions):
        return 0.0
    from proctool.training.speed import seconds_at_least

    probe = stage.probe
    config = outlined(stage).config.get_text_config()
    own = seconds_at_least(
        flops(stage) - (0 if probe is None else flops(probe)), stage.steps, layers=config.num_hidden_layers,
        width=config.hidden_size, precision=options.precision, processes=processes,
        parts=options.batch_size // (processes * options.samples_at_once(processes)),
    )  # fmt: skip
    return own + (0.0 if probe is None else least_seconds(probe))


def outlined(stage: Stage) -> PreTrainedModel:
    """The model that a stage trains, without allocated weights. Raises ModelError."""
    options = stage.options
    assert isinstance(options, TrainingOptions), "a transplant trains nothing"
    if isinstance(options, FinetuneOptions) and stage.donor is not None:
        return outlined(stage.donor)  # its class head is smaller than the head of the pretrained model
    is_padded = isinstance(options, PretrainOptions)
    return _outlined(options.model, options.family, *_extents(stage), is_padded, options.tie)


@functools.lru_cache(maxsize=64)
def _outlined(
    model: str, family: str, vocabulary: int, context: int, padded: bool, tie: bool | None
) -> PreTrainedModel:
    from proctool.models.build import model_config, outline

    config: PretrainedConfig = model_config(
        model, vocab_size=vocabulary, context=context, family=family, padded=padded, tie=tie
    )
    return outline(config)


def _extents(stage: Stage) -> tuple[int, int]:
    """The vocabulary size and the number of positions of the model."""
    options = stage.options
    if stage.task is not None:
        return stage.task.vocab_size, getattr(options, "context", None) or stage.length
    if isinstance(options, PretrainOptions):
        added = 0 if options.mixed is None else options.mixed.added_ids
        # The tokenizer of the model's own folder or repository: its configuration says how many tokens it has.
        own = written_sizes(options.model).vocab_size if options.tokenizer == options.model else None
        return (own or vocabulary_of(options.tokenizer, options.end_of_text)) + added, options.context
    return _OTHERWISE, stage.length


def vocabulary_of(tokenizer: str, end_of_text: str | None = None) -> int:
    """The vocabulary size of a tokenizer, without network access. Raises CorpusError if a file is not a tokenizer."""
    if tokenizer not in _VOCABULARIES and user_path(tokenizer).exists():
        from proctool.corpora.subwords import load_tokenizer

        return load_tokenizer(tokenizer, end_of_text).vocab_size
    return _VOCABULARIES.get(tokenizer, _OTHERWISE)
