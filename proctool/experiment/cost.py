"""What a stage costs, from its options alone: no model is built and no corpus is opened."""

from __future__ import annotations

from proctool.evaluation.options import DiagnosticOptions
from proctool.experiment.graph import Stage
from proctool.models.shapes import Shape, parse_model
from proctool.recipe.arms import diagnostic_task, warmup_task
from proctool.training.options import PretrainOptions, TrainingOptions, WarmupOptions

_VOCABULARIES = {"bytes": 257, "characters": 98}
_OTHERWISE = 50_257
"""GPT-2's, for tokenizers that would have to be read."""


def flops(stage: Stage) -> float | None:
    """Floating-point operations of its training, as `training_flops` counts those of a GPT-2.

    None where the model is a configuration file. Other families differ by some percent, other vocabularies by their
    output head.
    """
    options = stage.options
    if not isinstance(options, TrainingOptions):
        return 0.0
    shape = parse_model(options.model)
    if not isinstance(shape, Shape):
        return None
    vocabulary, context = _extents(stage)
    matrices = 12 * shape.layers * shape.width**2 + shape.width * (vocabulary + context)
    attention = 12 * shape.layers * shape.width * stage.length
    return float(stage.tokens * (6 * matrices + attention))


def _extents(stage: Stage) -> tuple[int, int]:
    """Vocabulary and positions of the model."""
    options = stage.options
    if isinstance(options, WarmupOptions):
        return warmup_task(options).vocab_size, options.context or stage.length
    if isinstance(options, DiagnosticOptions):
        return diagnostic_task(stage.command[-1], options).vocab_size, stage.length
    if isinstance(options, PretrainOptions):
        return _VOCABULARIES.get(options.tokenizer, _OTHERWISE), options.context
    return _OTHERWISE, stage.length
