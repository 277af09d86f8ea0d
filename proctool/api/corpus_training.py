"""Pretraining on a corpus from Python."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proctool import config as strict
from proctool.arguments import path_of, require_callable
from proctool.events import Event
from proctool.training.options import PretrainOptions

if TYPE_CHECKING:
    from torch import nn

    from proctool.artifact import Artifact


@dataclass(frozen=True)
class PretrainedModel:
    """A model after its pretraining, and its scores on the validation rows of the corpus."""

    model: nn.Module
    """A PreTrainedModel."""
    steps: int
    tokens: int
    """Tokens seen during training."""
    procedural_tokens: int
    """Those of them that are of procedural rows (`mix`)."""
    loss: float
    """Validation loss in nats per token."""
    accuracy: float
    """Share of tokens that the model predicts correctly."""
    artifact: Artifact | None = None
    """The written artifact; None without `output`."""


def _text(name: str, value: str | Path) -> str:
    """A name or a path as it is written; a path object drops the ./ of ./x. Raises OptionError."""
    return value if isinstance(value, str) else str(path_of(name, value))


def pretrain(
    corpus: str | Path,
    model: str | Path = "4x4x64",
    *,
    init: str | Path | None = None,
    mix: str | Sequence[str] | None = None,
    steps: int = 1000,
    output: str | Path | None = None,
    listen: Callable[[Event], None] = lambda event: None,
    **options: Any,
) -> PretrainedModel:
    """Train a model on a corpus, as `proctool pretrain` does, and score it on the validation rows.

    `corpus`, `model` and `init` are as for the command: a name, a path or a hub id; `init` is a warmed model. `mix`
    puts procedural rows among the corpus rows: `"set=0.01"`, or several such texts. With `output` the run folder is
    kept: the same call resumes an interrupted run and returns a finished one. Without it the folder is temporary.

    `options` are fields of `PretrainOptions` (batch_size, context, tokenizer, mix_schedule, ...). `listen` is called
    with each event of the run (`proctool.events`).

    Raises OptionError, ModelError, CorpusError, ArtifactError, RunError; Interrupted when a signal stops the run.
    """
    from proctool.models.saved import open_model
    from proctool.training.pretrain import pretrain_job

    require_callable("listen", listen)
    path = None if output is None else path_of("output", output)
    given = {"init": None if init is None else str(path_of("init", init)), "mix": mix}
    values = {**options, "steps": steps, "corpus": _text("corpus", corpus), "model": _text("model", model)}
    values |= {name: value for name, value in given.items() if value is not None}
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="proctool-")))
        if path is None and values.get("run_dir") is None:
            values["run_dir"] = folder / "run"
        path = path or folder / "model.safetensors"
        job = pretrain_job(strict.build(PretrainOptions, {**values, "output": path}, "pretrain"))
        job.listeners = [listen]
        end = job.run()
        saved = open_model(Path(end.artifact or path))
        return PretrainedModel(
            model=saved.model(),
            steps=end.step,
            tokens=end.tokens,
            procedural_tokens=end.procedural_tokens or 0,
            loss=end.loss,
            accuracy=end.accuracy,
            artifact=None if output is None else saved.artifact,
        )
