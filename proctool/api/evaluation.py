"""Evaluations from Python: what `proctool eval` runs, on a file or on a model in memory, with a typed result."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proctool import config as strict
from proctool.arguments import require_callable
from proctool.errors import ModelError, OptionError, ProctoolError
from proctool.evaluation.options import DIAGNOSTICS, DiagnosticOptions, diagnostic_task, scale_values
from proctool.events import Event

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

Record = Mapping[str, Any]


@dataclass(frozen=True)
class EvaluationResult:
    """The result of an evaluation."""

    evaluation: str
    """Name of the evaluation: haystack, perplexity, ..."""
    scores: Mapping[str, float | None]
    """The scores by name, such as accuracy or perplexity; None for a score that is not finite."""
    records: tuple[Record, ...]
    """The output of `proctool eval --json`: settings, hashes, versions, detailed scores."""


Options = Mapping[str, Any]
Measured = tuple[Mapping[str, float | None], list[Record]]


def _perplexity(path: Path, options: Options) -> Measured:
    from proctool.evaluation.options import PerplexityOptions
    from proctool.evaluation.perplexity import perplexity

    found = perplexity(path, strict.build(PerplexityOptions, options, "perplexity"))
    names = ("loss", "perplexity", "bits_per_byte", "accuracy")
    return {name: found[name] for name in names if name in found}, [found]


def _blimp(path: Path, options: Options) -> Measured:
    from proctool.evaluation.blimp import BlimpOptions, blimp

    found = blimp(path, strict.build(BlimpOptions, options, "blimp"))
    return {"accuracy": found["accuracy"]}, [found]


def _mathematics(path: Path, options: Options) -> Measured:
    from proctool.evaluation.mathematics import mathematics
    from proctool.evaluation.options import MathematicsOptions

    found = mathematics(path, strict.build(MathematicsOptions, options, "mathematics"))
    return {each["split"]: each["accuracy"] for each in found if each["event"] == "mathematics"}, [*found]


def _harness(path: Path, options: Options) -> Measured:
    from proctool.evaluation.harness import HarnessOptions, harness

    found = harness(path, strict.build(HarnessOptions, options, "harness"))
    results = found["results"].items()
    return {f"{task}/{metric}": value for task, values in results for metric, value in values.items()}, [found]


def _interpret(path: Path, options: Options) -> Measured:
    from proctool.evaluation.interpret import InterpretOptions, interpret_model

    found = interpret_model(path, strict.build(InterpretOptions, options, "interpret"))
    scores: dict[str, float | None] = {}
    for measure in ("induction", "previous_token", "copying"):
        scores[measure] = max((head[measure] for head in found["heads"] if head[measure] is not None), default=None)
    return {**scores, "loss_first": found["loss_first"], "loss_repeated": found["loss_repeated"]}, [found]


_MEASUREMENTS: Mapping[str, Callable[[Path, Options], Measured]] = {
    "perplexity": _perplexity,
    "blimp": _blimp,
    "mathematics": _mathematics,
    "harness": _harness,
    "interpret": _interpret,
}

_FINETUNE = "finetune"
EVALUATIONS = (*DIAGNOSTICS, *_MEASUREMENTS, _FINETUNE)
"""The names that `evaluate` takes."""


def evaluate(
    model: str | Path | PreTrainedModel | None,
    evaluation: str,
    /,
    *,
    listen: Callable[[Event], None] = lambda event: None,
    **options: Any,
) -> EvaluationResult:
    """Evaluate a model: train it on a diagnostic and score it, or score it without training.

    `model` is a model artifact, a Hugging Face folder, or a transformers model in memory (which is written to a
    temporary file); None means fresh weights, for diagnostics. `evaluation` is one of

    - haystack, addition, reversed-addition, multiplication, sorting: train from the model's weights, then score the
      validation split: loss, accuracy, exact_match. `scale="laptop"` takes a few minutes. `listen` gets the events of
      the run. The trained model has the shape of the given model (`model="2x4x16"` for fresh weights). Without
      `run_dir` the run folder is temporary, so an interrupted run starts again from the beginning.
    - perplexity, blimp, mathematics, harness: loss and answers on text. A model in memory needs `tokenizer`.
    - finetune: train the whole model on `task` ("wikitext", "cola", "py150", ...), then score it as that task does.
      `listen` gets the events of the run. Without `run_dir` and `output` both are temporary.
    - interpret: the highest induction, previous-token and copying scores of its attention heads.

    `options` are those of `proctool eval EVALUATION`. Raises OptionError for an unknown name or option, ArtifactError,
    ModelError, CorpusError.
    """
    require_callable("listen", listen)
    if evaluation not in EVALUATIONS:
        raise OptionError(f'unknown evaluation "{evaluation}"{strict.suggestion(evaluation, EVALUATIONS)}')
    with _on_disk(model) as path:
        if evaluation in DIAGNOSTICS:
            return _diagnose(path, evaluation, options, listen)
        if evaluation == _FINETUNE:
            return _finetune(path, options, listen)
        if path is None:
            raise ModelError(f"{evaluation}: give a model; only diagnostics accept fresh weights (None)")
        scores, records = _MEASUREMENTS[evaluation](path, options)
        return EvaluationResult(evaluation, scores, tuple(records))


@contextmanager
def _on_disk(model: Any) -> Iterator[Path | None]:
    """The model's file or folder; a temporary file for a model in memory."""
    if model is None or isinstance(model, str | Path):
        yield None if model is None else Path(model)
        return
    from transformers import PreTrainedModel

    from proctool.models.saved import save_model

    if not isinstance(model, PreTrainedModel):
        raise ModelError(f"a {type(model).__name__} cannot be evaluated; give a path or a transformers model")
    with tempfile.TemporaryDirectory(prefix="proctool-") as folder:
        path = Path(folder) / "model.safetensors"
        save_model(path, model, {})
        try:
            yield path
        except ProctoolError as error:  # the caller knows no such file
            raise type(error)(str(error).replace(str(path), "the model in memory")) from error


def _shape(path: Path | None, is_named: bool) -> dict[str, str]:
    """The options that build the given model's architecture. Raises OptionError if no shape describes it."""
    from proctool.models.build import context_of, model_config
    from proctool.models.saved import open_model

    if path is None or is_named:
        return {}
    config = open_model(path).config
    sizes = [getattr(config, name, 0) for name in ("num_hidden_layers", "num_attention_heads", "hidden_size")]
    found = {"model": "x".join(map(str, sizes)), "family": str(config.model_type)}
    try:
        made = model_config(
            found["model"], family=found["family"], vocab_size=config.vocab_size,
            context=context_of(config) or 1, padded=False,
        )  # fmt: skip
    except ModelError:
        made = None
    if made is None or _architecture(made) != _architecture(config):
        raise OptionError(
            "model: no shape describes the given model's architecture; give a configuration file of the same "
            "architecture with model="
        )
    return found


def _architecture(config: PretrainedConfig) -> dict[str, Any]:
    """The part of a configuration that describes the body, without initialisation, head and training settings."""
    from proctool.models.saved import config_values

    left_out = ("_token_id", "drop", "use_cache", "initializer", "tie_")
    return {name: value for name, value in config_values(config).items() if not any(part in name for part in left_out)}


def _finetune(path: Path | None, options: Options, listen: Callable[[Event], None]) -> EvaluationResult:
    from proctool.evaluation.finetune import FinetuneOptions
    from proctool.evaluation.finetune.job import finetuning

    values = dict(options)
    task = values.pop("task", None)
    if not isinstance(task, str):
        raise OptionError('task: give the task to fine-tune on, such as task="cola"')
    if "init" in values:
        raise OptionError("init: pass the model as the first argument of evaluate instead")
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="proctool-")))
        places = {"run_dir": folder / "run", "output": "none", "init": str(path or "none")}
        made = strict.build(FinetuneOptions, {**places, **values}, _FINETUNE)
        found = finetuning(task, made)
        found.job.listeners = [listen]
        end = found.job.run()
        metrics = found.scores(end)
        return EvaluationResult(_FINETUNE, metrics, (found.record(task, end, metrics),))


def _diagnose(
    path: Path | None, evaluation: str, options: Options, listen: Callable[[Event], None]
) -> EvaluationResult:
    from proctool import artifact
    from proctool.evaluation.diagnostic import diagnostic_job
    from proctool.evaluation.scoring import scores_of
    from proctool.training.run_place import artifact_path

    if "init" in options:
        raise OptionError("init: pass the model as the first argument of evaluate instead")
    values = dict(options)
    scale = values.pop("scale", "paper")
    if scale not in ("paper", "laptop"):
        raise OptionError(f'scale = "{scale}": choose paper or laptop')
    kind = DIAGNOSTICS[evaluation]
    values = scale_values(evaluation, scale, {**_shape(path, "model" in values), **values})
    given: DiagnosticOptions = strict.build(kind, {**values, "init": str(path) if path else None}, evaluation)
    with ExitStack() as held:
        folder = given.run_dir
        if folder is None:
            folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="proctool-"))) / "run"
        made = dataclasses.replace(given, run_dir=folder)
        job = diagnostic_job(evaluation, made)
        job.output = made.output or artifact_path(folder)
        job.listeners = [listen]
        end = job.run()
        task = diagnostic_task(evaluation, made)
        scored = scores_of(job.output, task, made.eval_samples, min(made.batch_size, made.eval_samples))
        parent = job.parents[0] if job.parents else None
    scores = strict.plain(scored)
    record = {
        "event": "diagnostic",
        "diagnostic": evaluation,
        "task": task.spec,
        "init_content": parent.content if isinstance(parent, artifact.Artifact) else None,
        "seed": made.seed,
        "steps": end.step,
        "tokens": end.tokens,
        "scores": scores,
        "versions": artifact.versions(),
    }
    kept = {name: scores["answer"][name] for name in ("loss", "accuracy", "exact_match")}
    return EvaluationResult(evaluation, kept, (record,))
