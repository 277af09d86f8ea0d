"""The jobs that fine-tune, and the scores of what they wrote."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from proctool import artifact, config
from proctool.corpora.carried import record
from proctool.corpora.subwords import load_tokenizer
from proctool.corpora.tokenizers import Tokenizer
from proctool.errors import ModelError, OptionError
from proctool.evaluation.finetune import glue
from proctool.evaluation.finetune.code import Programs, read_programs, token_accuracy
from proctool.evaluation.finetune.options import FinetuneOptions
from proctool.models.build import _DROPOUTS, build_model, context_of, model_config
from proctool.models.saved import SavedModel, load_weights, open_model
from proctool.models.shapes import default_context
from proctool.paths import user_path
from proctool.procedural.samples import Samples
from proctool.training.job import Job, check_files
from proctool.units import to_perplexity

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from proctool.training.loss import TargetLoss

TASKS = ("wikitext", *glue.TASKS, "py150")


class SampleRows:
    """Samples in memory as a source: in an order that is drawn anew each epoch, or as they are."""

    def __init__(self, samples: Samples, vocab_size: int, seed: int | None, metadata: dict[str, Any]) -> None:
        from proctool.corpora.order import RowOrder

        self.samples, self.vocab_size, self.length = samples, vocab_size, int(samples.tokens.shape[1])
        self.size = len(samples)
        self.order = None if seed is None else RowOrder(len(samples), seed)
        self._metadata = metadata

    def read(self, start: int, stop: int) -> Samples:
        """Samples at positions start..stop - 1."""
        rows = self.order.indices(start, stop) if self.order else np.arange(start, stop)
        return Samples(self.samples.tokens[rows], self.samples.targets[rows])

    def metadata(self) -> dict[str, Any]:
        """The task, its data and the tokenizer."""
        return self._metadata


@dataclass(frozen=True)
class Finetuning:
    """A job, and how the model that it writes is scored on the whole held-out set."""

    job: Job
    held_out: Samples
    score: Callable[[Path], dict[str, float | None]]


def finetuning(task: str, options: FinetuneOptions, progress: Callable[..., None] | None = None) -> Finetuning:
    """What fine-tunes on `task`. Raises OptionError, ArtifactError, CorpusError, ModelError."""
    if task not in TASKS:
        raise OptionError(f'"{task}" is not a task to fine-tune on{config.suggestion(task, TASKS)}')
    check_files(f"eval finetune {task}", options, options.output)
    saved = None if options.init == "none" else open_model(user_path(options.init))
    end = options.end_of_text
    tokenizer = load_tokenizer(options.tokenizer, end) if options.tokenizer else saved.tokenizer(end) if saved else None
    if tokenizer is None:
        raise ModelError(f"{options.init}: has no tokenizer; name the one to use by --tokenizer")
    made = _config(saved, tokenizer, options)
    limit = context_of(made)
    context = options.context or limit or 1024
    if limit is not None and context > limit:
        raise OptionError(f"context = {context}: the model takes at most {limit} tokens")
    for name in ("skip_bad", "validation"):
        if getattr(options, name) and task != "wikitext":
            raise OptionError(f"{name}: is for wikitext; {task} has files of its own, leave the option out")
    if task in glue.TASKS:
        return _on_glue(task, options, saved, tokenizer, made, context)
    return _on_text(task, options, saved, tokenizer, made, context, progress)


def _config(saved: SavedModel | None, tokenizer: Tokenizer, options: FinetuneOptions) -> PretrainedConfig:
    if saved is None:
        return model_config(
            options.model, vocab_size=tokenizer.vocab_size, family=options.family,
            context=options.context or default_context(options.model), dropout=options.dropout,
            eos_id=tokenizer.eos_id,
        )  # fmt: skip
    tokenizer.require_fit(saved.config.vocab_size, str(saved.path))
    for name in _DROPOUTS:
        if hasattr(saved.config, name):
            setattr(saved.config, name, options.dropout)
    return saved.config


def _metadata(task: str, data: str, tokenizer: Tokenizer, options: FinetuneOptions) -> dict[str, Any]:
    return {"finetune": task, "data": data, "init": options.init, "tokenizer": tokenizer.spec}


def _job(task: str, options: FinetuneOptions, saved: SavedModel | None, **parts: Any) -> Job:
    return Job(
        command=f"eval finetune {task}",
        options=options,
        output=options.output,
        parents=[saved.parent] if saved else [],
        **parts,
    )


def _on_glue(
    task: str,
    options: FinetuneOptions,
    saved: SavedModel | None,
    tokenizer: Tokenizer,
    made: PretrainedConfig,
    context: int,
) -> Finetuning:
    from proctool.evaluation.finetune.classifier import (
        ClassLoss,
        GradeLoss,
        build_classifier,
        classifier_config,
        outputs,
        take_body,
    )  # fmt: skip

    data = options.data or glue.REPOSITORY
    if context < 8:
        raise OptionError(f"context = {context}: too short for the sentences of {task}")
    splits = {
        held_out: glue.encode(glue.read_examples(task, data, held_out), tokenizer, context)
        for held_out in (False, True)
    }
    labels = glue.TASKS[task].labels
    loss = ClassLoss if labels else GradeLoss
    metadata = _metadata(task, data, tokenizer, options)
    with_head = classifier_config(made, len(labels or (task,)))

    def prepare(model: PreTrainedModel) -> list[Any]:
        if saved is not None:
            take_body(model, saved.model())
        return []

    def score(path: Path) -> dict[str, float | None]:
        from proctool.evaluation.finetune.metrics import METRICS

        model = build_classifier(with_head, 0)
        load_weights(model, artifact.read_torch(artifact.open_artifact(path, "model")), str(path))
        samples = splits[True]
        found = outputs(loss(model), samples, options.batch_size)
        true = samples.tokens[samples.targets].astype(np.float64)
        if labels is None:
            true = true / glue.GRADES
        return {name: METRICS[name](found, true) for name in glue.TASKS[task].metrics}

    job = _job(
        task, options, saved, config=with_head, prepare=prepare, build=build_classifier, loss=loss,
        source=SampleRows(splits[False], tokenizer.vocab_size, options.seed, metadata),
        held_out=SampleRows(splits[True], tokenizer.vocab_size, None, metadata),
        metadata={"stage": "finetune", "classes": list(labels or ())}, rows=len(splits[False]),
    )  # fmt: skip
    return Finetuning(job, splits[True], score)


def _on_text(
    task: str,
    options: FinetuneOptions,
    saved: SavedModel | None,
    tokenizer: Tokenizer,
    made: PretrainedConfig,
    context: int,
    progress: Callable[..., None] | None,
) -> Finetuning:
    data = options.data or "wikitext"
    programs: Programs | None = None
    notes: tuple[str, ...] = ()
    if task == "py150":
        if options.data is None:
            raise OptionError("data: py150 needs the folder of CodeXGLUE's train.txt and test.txt: --data FOLDER")
        train = read_programs(user_path(data), "train", tokenizer, context).samples
        programs = read_programs(user_path(data), "held out", tokenizer, context)
        held_out = programs.samples
    else:
        train, held_out, notes = _wikitext(data, options, tokenizer, context, progress)
    metadata = _metadata(task, data, tokenizer, options)
    named = options.tokenizer or options.end_of_text

    def prepare(model: PreTrainedModel) -> list[Any]:
        if saved is not None:
            load_weights(model, saved.weights(), str(saved.path))
        return []

    def score(path: Path) -> dict[str, float | None]:
        from proctool.training.devices import accelerator_of
        from proctool.training.evaluate import evaluate
        from proctool.training.loss import TargetLoss

        accelerator = accelerator_of("fp32")
        module: TargetLoss = TargetLoss(open_model(path).model().to(accelerator.device))
        rows = SampleRows(held_out, tokenizer.vocab_size, None, metadata)
        found = evaluate(accelerator, module, rows, len(held_out), options.batch_size)
        measures = found.measures()
        scores = {
            "loss": measures["loss"],
            "perplexity": to_perplexity(found.loss),
            "accuracy": measures["accuracy"],
        }
        return {**scores, **(token_accuracy(module, programs, options.batch_size) if programs else {})}

    job = _job(
        task, options, saved, config=made, prepare=prepare, build=build_model,
        source=SampleRows(train, tokenizer.vocab_size, options.seed, metadata),
        held_out=SampleRows(held_out, tokenizer.vocab_size, None, metadata),
        metadata={"stage": "finetune", **(saved.tokenizer_record() if saved and not named else record(tokenizer))},
        rows=len(train), remark="; ".join(notes),
    )  # fmt: skip
    return Finetuning(job, held_out, score)


def _wikitext(
    data: str, options: FinetuneOptions, tokenizer: Tokenizer, context: int, progress: Callable[..., None] | None
) -> tuple[Samples, Samples, tuple[str, ...]]:
    from proctool.corpora.catalog import open_corpus
    from proctool.corpora.store import open_store

    corpus = open_corpus(data, validation=options.validation, skip_bad=options.skip_bad, cache_dir=options.cache_dir)
    store = open_store(corpus, tokenizer, context, cache_dir=options.cache_dir, progress=progress)
    found = []
    for split in ("train", "validation"):
        rows = store.split(split)
        found.append(rows.read(np.arange(len(rows))))
    return found[0], found[1], store.notes
