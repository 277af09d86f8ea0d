"""What stands in a model's weights: the work of single heads, and the distance from where training began."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from proctool.evaluation.interpret.options import InterpretOptions

__all__ = ["InterpretOptions", "interpret_model"]


def interpret_model(model: Path, options: InterpretOptions) -> dict[str, Any]:
    """Head scores, weight distances from each model of `options.against`, and pictures where they are wanted.

    Raises ArtifactError, ModelError (no attention to look at, a model of another architecture), OptionError.
    """
    from proctool.artifact import versions
    from proctool.errors import OptionError
    from proctool.evaluation.interpret.distances import compare_weights, open_against
    from proctool.evaluation.interpret.heads import score_heads
    from proctool.models.saved import open_model

    if options.figures is not None and importlib.util.find_spec("matplotlib") is None:
        raise OptionError('pictures need matplotlib: pip install "proctool[report]"')
    saved = open_model(model)
    others = open_against(saved, options.against, options.seed)
    heads = score_heads(saved, options)
    distances = compare_weights(saved, others)
    result: dict[str, Any] = {
        "event": "interpret",
        "model": str(model),
        "content": saved.content,
        **saved.oddities(),
        "model_seed": saved.metadata.get("seed"),
        "against": {name: other.content for name, other in others.items()},
        "seed": options.seed,
        **heads.as_json(),
        **distances.as_json(),
        "versions": versions(),
    }
    if options.figures is not None:
        from proctool.evaluation.interpret.pictures import draw

        result["figures"] = [str(path) for path in draw(heads, distances, options.figures, options.kind)]
    return result
