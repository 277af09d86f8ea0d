"""Fine-tuning jobs, and the scores of the models that they write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
from proctool.evaluation.finetune.tasks import GLUE, SHORTEST, TASKS
from proctool.evaluation.scoring import fingerprint
from proctool.events import EndEvent, to_json
from proctool.models.build import build_model, context_of, model_config, require_context, set_dropout
from proctool.models.saved import SavedModel, load_weights, open_model
from proctool.models.shapes import default_context
from proctool.paths import user_path
from proctool.procedural.samples import Samples
from proctool.training.job import Job
from proctool.training.run_place import check_files
from proctool.units import to_perplexity

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel

    from proctool.training.loss import TargetLoss

    Weights = Mapping[str, Tensor]


class SampleRows:
    """Samples in memory as a source: in a new random order each epoch, or in their own order."""

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
    """A job that scores its model on the whole validation set, and those samples."""

    job: Job
    held_out: Samples

    def scores(self, end: EndEvent) -> Mapping[str, float | None]:
        """The scores of the run that ended with `end`. Raises ArtifactError."""
        if end.scores is not None:
            return end.scores
        # Earlier versions recorded no scores.
        assert self.job.output is not None
        assert self.job.score is not None
        return self.job.score(artifact.read_torch(artifact.open_artifact(self.job.output, "model")))

    def record(self, task: str, end: EndEvent, metrics: Mapping[str, float | None]) -> dict[str, Any]:
        """What a finished fine-tuning gives as JSON."""
        parent = self.job.parents[0] if self.job.parents else None
        return {
            **to_json(end),
            **self.job.source.metadata(),
            "event": "finetune",
            "task": task,
            "init_content": parent.content if isinstance(parent, artifact.Artifact) else None,
            "seed": self.job.options.seed,
            "held_out": {
                "split": "validation",
                "samples": len(self.held_out),
                "sha256": fingerprint(self.held_out),
            },
            "versions": artifact.versions(),
            "metrics": dict(metrics),
        }


def finetuning(task: str, options: FinetuneOptions, progress: Callable[..., None] | None = None) -> Finetuning:
    """The job that fine-tunes on `task`. Raises OptionError, ArtifactError, CorpusError, ModelError."""
    if task not in TASKS:
        raise OptionError(f'unknown fine-tuning task "{task}"{config.suggestion(task, TASKS)}')
    check_files(f"eval finetune {task}", options, options.output)
    saved = None if options.init == "none" else open_model(user_path(options.init))
    end = options.end_of_text
    tokenizer = load_tokenizer(options.tokenizer, end) if options.tokenizer else saved.tokenizer(end) if saved else None
    if tokenizer is None:
        raise ModelError(f"{options.init}: has no tokenizer; give one with --tokenizer")
    made = _config(saved, tokenizer, options)
    context = options.context or context_of(made) or 1024
    require_context(made, context, "context: a sample", "lower --context")
    for name in ("skip_bad", "validation"):
        if getattr(options, name) and task != "wikitext":
            raise OptionError(f"{name}: works only with wikitext; {task} has its own files; leave the option out")
    start = _Start(task, options, saved, tokenizer, made, context)
    return _on_glue(start) if task in GLUE else _on_text(start, progress)


def _config(saved: SavedModel | None, tokenizer: Tokenizer, options: FinetuneOptions) -> PretrainedConfig:
    if saved is None:
        return model_config(
            options.model, vocab_size=tokenizer.vocab_size, family=options.family,
            context=options.context or default_context(options.model), dropout=options.dropout,
            init_std=options.init_std, tie=options.tie, eos_id=tokenizer.eos_id,
        )  # fmt: skip
    tokenizer.require_fit(saved.config.vocab_size, str(saved.path))
    set_dropout(saved.config, options.dropout)
    return saved.config


@dataclass(frozen=True)
class _Start:
    """What every task starts from."""

    task: str
    options: FinetuneOptions
    saved: SavedModel | None
    """None for fresh weights."""
    tokenizer: Tokenizer
    config: PretrainedConfig
    context: int

    def rows(self, train: Samples, held_out: Samples, data: str) -> tuple[SampleRows, SampleRows]:
        """The two splits of `data` as sources."""
        metadata = {
            "finetune": self.task, "data": data, "init": self.options.init, "tokenizer": self.tokenizer.spec,
        }  # fmt: skip
        vocab_size = self.tokenizer.vocab_size
        return (
            SampleRows(train, vocab_size, self.options.seed, metadata),
            SampleRows(held_out, vocab_size, None, metadata),
        )

    def job(self, source: SampleRows, fill: Callable[[Any, SavedModel], None], **parts: Any) -> Job:
        """The job; `fill` puts the saved weights into the fresh model."""

        def prepare(model: PreTrainedModel) -> list[Any]:
            if self.saved is not None:
                fill(model, self.saved)
            return []

        return Job(
            command=f"eval finetune {self.task}",
            options=self.options,
            output=self.options.output,
            parents=[self.saved.parent] if self.saved else [],
            prepare=prepare,
            source=source,
            epochs=self.options.steps * self.options.batch_size / source.size,
            **parts,
        )


def _on_glue(start: _Start) -> Finetuning:
    from proctool.evaluation.finetune.classifier import (
        ClassLoss,
        GradeLoss,
        build_classifier,
        classifier_config,
        outputs,
        take_body,
    )  # fmt: skip

    task, options, context = start.task, start.options, start.context
    data = options.data or glue.REPOSITORY
    if context < SHORTEST:
        raise OptionError(f"context = {context}: too short for the sentences of {task}; use at least {SHORTEST}")
    splits = {
        held_out: glue.encode(glue.read_examples(task, data, held_out), start.tokenizer, context)
        for held_out in (False, True)
    }
    labels = GLUE[task].labels
    loss = ClassLoss if labels else GradeLoss
    with_head = classifier_config(start.config, len(labels or (task,)))

    def score(weights: Weights) -> dict[str, float | None]:
        from proctool.evaluation.finetune.metrics import METRICS
        from proctool.training.devices import accelerator_of

        model = build_classifier(with_head, 0)
        load_weights(model, weights, "the fine-tuned model")
        samples = splits[True]
        found = outputs(loss(model.to(accelerator_of("fp32").device)), samples, options.batch_size)
        true = samples.tokens[samples.targets].astype(np.float64)
        if labels is None:
            true = true / glue.GRADES
        return {name: METRICS[name](found, true) for name in GLUE[task].metrics}

    source, held_out = start.rows(splits[False], splits[True], data)
    job = start.job(
        source, lambda model, saved: take_body(model, saved.model()),
        held_out=held_out, config=with_head, build=build_classifier, loss=loss, score=score,
        metadata={"stage": "finetune", "classes": list(labels or ())},
    )  # fmt: skip
    return Finetuning(job, splits[True])


def _on_text(start: _Start, progress: Callable[..., None] | None) -> Finetuning:
    options, saved, tokenizer, context = start.options, start.saved, start.tokenizer, start.context
    data = options.data or "wikitext"
    programs: Programs | None = None
    notes: tuple[str, ...] = ()
    if start.task == "py150":
        if options.data is None:
            raise OptionError("data: py150 needs CodeXGLUE's train.txt and test.txt; give their folder with --data")
        train = read_programs(user_path(data), "train", tokenizer, context).samples
        programs = read_programs(user_path(data), "held out", tokenizer, context)
        held_out = programs.samples
    else:
        train, held_out, notes = _wikitext(data, options, tokenizer, context, progress)
    source, scored = start.rows(train, held_out, data)
    named = options.tokenizer or options.end_of_text

    def score(weights: Weights) -> dict[str, float | None]:
        from proctool.training.devices import accelerator_of
        from proctool.training.evaluate import evaluate
        from proctool.training.loss import TargetLoss

        accelerator, model = accelerator_of("fp32"), build_model(start.config, 0)
        load_weights(model, weights, "the fine-tuned model")
        module: TargetLoss = TargetLoss(model.to(accelerator.device))
        found = evaluate(accelerator, module, scored, scored.size, options.batch_size)
        measures = found.measures()
        scores = {
            "loss": measures["loss"],
            "perplexity": to_perplexity(found.loss),
            "accuracy": measures["accuracy"],
        }
        return {**scores, **(token_accuracy(module, programs, options.batch_size) if programs else {})}

    job = start.job(
        source, lambda model, saved: load_weights(model, saved.weights(), str(saved.path)),
        held_out=scored, config=start.config, build=build_model, remark="; ".join(notes), score=score,
        metadata={"stage": "finetune", **(saved.tokenizer_record() if saved and not named else record(tokenizer))},
    )  # fmt: skip
    return Finetuning(job, held_out)


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
