"""Warm-up from Python: of a named model in a run folder, or of a module in memory."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proctool import config as strict
from proctool.api.tasks import load_task
from proctool.arguments import path_of, require_callable
from proctool.errors import ModelError, OptionError
from proctool.events import EndEvent, EvalEvent, Event
from proctool.training.options import WarmupOptions, incidental
from proctool.training.sources import TaskSource

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig

    from proctool.artifact import Artifact
    from proctool.procedural.mixture import Spec
    from proctool.procedural.registry import Task
    from proctool.training.evaluate import Scores

_IN_MEMORY = frozenset(
    ("steps", "batch_size", "accumulate", "lr", "schedule", "ramp_steps", "final_lr", "weight_decay", "beta2", "clip",
     "precision", "seed", "eval_samples", "log_every", "force")
)  # fmt: skip
"""Options that apply to a module in memory; other options raise OptionError."""


@dataclass(frozen=True)
class WarmedModel:
    """A model after its warm-up, and its scores on the validation split."""

    model: nn.Module
    """A PreTrainedModel, or the module that was given; trained in place."""
    task: str
    """The full specification of the task."""
    steps: int
    tokens: int
    """Tokens seen during training."""
    loss: float
    """Validation loss in nats per target token."""
    accuracy: float
    """Share of target tokens that the model predicts correctly."""
    exact_match: float
    """Share of samples in which every target token is correct."""
    artifact: Artifact | None = None
    """The written artifact; None without `output`."""


def warm_up(
    spec: Spec | Task,
    model: str | Path | nn.Module | PretrainedConfig = "2x4x16",
    *,
    steps: int = 600,
    output: str | Path | None = None,
    listen: Callable[[Event], None] = lambda event: None,
    **options: Any,
) -> WarmedModel:
    """Train a model on a task and score it on the validation split.

    `model` is one of

    - text or a path, as for `proctool warmup --model`: a shape (2x4x16), a preset (gpt2), a configuration file or
      folder. A fresh model with the task's vocabulary is trained in a run folder, as the command does. With `output`
      the run folder is kept: the same call resumes an interrupted run and returns a finished one. Without `output` the
      run folder is temporary.
    - a transformers configuration: a fresh model with exactly this configuration is trained in memory.
    - a module: it is trained in memory, in place, on its own device. Its forward takes token ids (B, L) and returns
      logits (B, L, V) or an object with `.logits`, as every causal language model of transformers does.

    In memory, training is a plain loop in this process with AdamW, the learning-rate schedules, clipping and
    accumulation of `proctool warmup`, on the same samples. It has no checkpoints, resume, curriculum, early stopping,
    compilation or other processes; precision is fp32 or bf16. With `output`, a transformers model is written as a
    model artifact at the end.

    `options` are fields of `WarmupOptions` (batch_size, lr, schedule, seed, ...); in memory, only some of them apply.
    `listen` is called with each event of the run (`proctool.events`): TrainEvent every `log_every` steps, EvalEvent.

    Raises OptionError, ModelError, ArtifactError, RunError; Interrupted when a signal stops a run in a folder.
    """
    task = load_task(spec)
    require_callable("listen", listen)
    written = None if output is None else path_of("output", output)
    for name in ("task", "data", "output", "model"):
        if name in options:
            raise OptionError(f"warm_up: {name} cannot be an option; use the arguments, or `proctool warmup --data`")
    values = {**options, "steps": steps, "task": ["unused"], "model": "pico"}
    if isinstance(model, str | Path):
        return _in_folder(task, str(model), written, values, listen)
    made = strict.build(WarmupOptions, values, "warm_up")
    if refused := sorted(options.keys() - _IN_MEMORY):
        raise OptionError(
            f"{refused[0]}: does not apply to a model in memory; choose from {', '.join(sorted(_IN_MEMORY))}"
        )
    return _in_memory(task, _module(model, made.seed), made, written, listen)


def _in_folder(
    task: Task, model: str, output: Path | None, values: dict[str, Any], listen: Callable[[Event], None]
) -> WarmedModel:
    from proctool.evaluation.acceptance import donor_job
    from proctool.models.saved import open_model

    with ExitStack() as held:
        if output is None and values.get("run_dir") is None:
            folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="proctool-")))
            values = {**values, "run_dir": folder / "run"}
        path = output or Path(held.enter_context(tempfile.TemporaryDirectory(prefix="proctool-"))) / "warm.safetensors"
        values |= {"model": model, "output": path, "task": [task.spec]}
        job = donor_job(strict.build(WarmupOptions, values, "warm_up"))
        job.listeners = [listen]
        end: EndEvent = job.run()
        saved = open_model(Path(end.artifact or path))
        return WarmedModel(
            model=saved.model(),
            task=task.spec,
            steps=end.step,
            tokens=end.tokens,
            loss=end.loss,
            accuracy=end.accuracy,
            exact_match=end.exact_match,
            artifact=None if output is None else saved.artifact,
        )


def _module(model: nn.Module | PretrainedConfig, seed: int) -> nn.Module:
    from torch import nn
    from transformers import PretrainedConfig

    from proctool.models.build import build_model

    if isinstance(model, PretrainedConfig):
        built: nn.Module = build_model(model, seed)
        return built
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"model: a {type(model).__name__} is not a shape, a path, a transformers configuration or a torch module"
        )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ModelError(f"{type(model).__name__}: has no parameters to train; set requires_grad on some")
    return model


def _in_memory(
    task: Task, model: nn.Module, options: WarmupOptions, output: Path | None, listen: Callable[[Event], None]
) -> WarmedModel:
    from transformers import PreTrainedModel

    from proctool import artifact
    from proctool.outputs import Output, require_own_model, require_safe
    from proctool.training import in_memory

    if options.precision not in ("fp32", "bf16"):
        raise OptionError(f"precision = {options.precision}: a model in memory supports fp32 and bf16")
    _require_fit(task, model)
    if output is not None:
        if not isinstance(model, PreTrainedModel):
            raise OptionError(
                f"output: a {type(model).__name__} is not a transformers model, so proctool cannot write it; leave "
                "output out and save its state_dict"
            )
        require_safe([Output(output, "output", "model")])
    source = TaskSource(task, options.seed)
    described = _described(source, options)
    if output is not None:
        mine = json.loads(json.dumps(described))
        require_own_model(
            output,
            "output",
            lambda found: mine == {name: found.metadata.get(name) for name in mine},
            force=options.force,
        )
    with ExitStack() as held:
        if output is not None:
            held.enter_context(artifact.output(output))
        in_memory.train(model, source, options, listen)
        scores = in_memory.score(
            model, TaskSource(task, options.seed, "validation"), options.eval_samples, options.batch_size
        )
        tokens = options.steps * options.batch_size * task.length
        listen(
            EvalEvent(
                step=options.steps,
                tokens=tokens,
                loss=scores.loss,
                accuracy=scores.accuracy,
                exact_match=scores.exact_match,
            )
        )
        written = None if output is None else _write(output, model, described, scores, tokens)
    return WarmedModel(
        model=model,
        task=task.spec,
        steps=options.steps,
        tokens=tokens,
        loss=scores.loss,
        accuracy=scores.accuracy,
        exact_match=scores.exact_match,
        artifact=written,
    )


def _require_fit(task: Task, model: nn.Module) -> None:
    """Raise ModelError if a transformers model has too few positions or tokens for the task."""
    from proctool.models.build import require_context

    config: Any = getattr(model, "config", None)
    if config is None:
        return
    require_context(config, task.length, "a sample")
    rows = getattr(config, "vocab_size", None)
    if isinstance(rows, int) and task.vocab_size > rows:
        raise ModelError(f"the task has {task.vocab_size} tokens but the model has {rows}; use a larger vocabulary")


def _described(source: TaskSource, options: WarmupOptions) -> dict[str, Any]:
    """The part of the artifact's metadata that is known before the training."""
    plain = strict.plain(dataclasses.replace(options, task=(source.stream.task.spec,)))
    return {
        "command": "warmup",
        "stage": "warmup",
        "steps": options.steps,
        "seed": options.seed,
        "training": {name: plain[name] for name in sorted(_IN_MEMORY - incidental(options))},
        **source.metadata(),
    }


def _write(output: Path, model: Any, described: Mapping[str, Any], scores: Scores, tokens: int) -> Artifact:
    from proctool.models.saved import save_model

    metrics = {"loss": scores.measures()["loss"], "accuracy": scores.accuracy}
    return save_model(output, model, {"tokens": tokens, "metrics": metrics, **described})
