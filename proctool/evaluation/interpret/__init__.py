"""What single attention heads do, what the model loses without them, and how far weights moved in training."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proctool.evaluation.interpret.course import as_json, is_run, read_course
from proctool.evaluation.interpret.options import InterpretOptions
from proctool.paths import user_path

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from proctool.models.probes import Probe
    from proctool.models.saved import SavedModel

__all__ = ["InterpretOptions", "interpret_model", "interpret_run", "is_run"]


def interpret_run(folder: Path, options: InterpretOptions) -> dict[str, Any]:
    """Head scores over the training of a run, recorded by `--track-heads`, and a figure of them if asked for.

    Raises RunError, OptionError.
    """
    _require_matplotlib(options)
    points = read_course(folder)
    result = as_json(folder, points)
    if options.figures is not None:
        from proctool.evaluation.interpret.pictures import draw_course

        result["figures"] = [str(path) for path in draw_course(points, options.figures, options.kind)]
    return result


def _require_matplotlib(options: InterpretOptions) -> None:
    from proctool.errors import OptionError

    if options.figures is not None and importlib.util.find_spec("matplotlib") is None:
        raise OptionError('figures: matplotlib is not installed; run pip install "proctool[report]"')


def interpret_model(model: Path, options: InterpretOptions) -> dict[str, Any]:
    """Head scores, weight distances from each model of `options.against`, and figures if asked for.

    Raises ArtifactError, ModelError (no attention, a model of another architecture, samples that do not fit the
    model), CorpusError, OptionError.
    """
    from proctool.artifact import versions
    from proctool.evaluation.interpret.ablation import ablate
    from proctool.evaluation.interpret.distances import compare_weights, open_against
    from proctool.evaluation.interpret.probes import make_probe
    from proctool.models.head_scores import score_model
    from proctool.models.saved import open_model
    from proctool.training.devices import start_process

    _require_matplotlib(options)
    saved = open_model(model)
    others = open_against(saved, options.against, options.seed)
    probe = make_probe(saved, options)  # checks options before the weights are read
    loaded = saved.model().to(start_process().device)
    heads = score_model(loaded, probe, str(model))
    ablation = ablate(loaded, probe, heads, options) if options.ablate is not None else None
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
        **({"ablation": ablation.as_json()} if ablation else {}),
        **distances.as_json(),
        "versions": versions(),
    }
    if options.figures is not None:
        from proctool.evaluation.interpret.pictures import draw

        drawn = [*draw(heads, distances, ablation, options.figures, options.kind)]
        if options.beside is not None:
            drawn += _beside(saved, loaded, probe, options)
        result["figures"] = [str(path) for path in drawn]
    return result


def _beside(saved: SavedModel, loaded: PreTrainedModel, probe: Probe, options: InterpretOptions) -> list[Path]:
    """The figure of two models, each on a sample of its own task."""
    from proctool.evaluation.interpret.beside import panel
    from proctool.evaluation.interpret.pictures import draw_beside
    from proctool.evaluation.interpret.probes import task_probe
    from proctool.models.saved import open_model
    from proctool.procedural.mixture import parse_tasks
    from proctool.training.devices import start_process

    other = open_model(user_path(str(options.beside)))
    asked = dataclasses.replace(options, task=options.beside_task or options.task)
    reads = task_probe(other.config, asked, str(other.path))
    panels = [
        panel(loaded, probe, parse_tasks(options.task or ""), saved.name),
        panel(other.model().to(start_process().device), reads, parse_tasks(asked.task or ""), other.name),
    ]
    return draw_beside(panels, Path(str(options.figures)), options.kind)
