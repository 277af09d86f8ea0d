"""A diagnostic from one init with one seed: train, score, and write `results.jsonl` into the run folder."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from proctool import artifact
from proctool.evaluation.diagnostic import HELD_OUT_SEED, diagnostic_job, held_out
from proctool.evaluation.options import DiagnosticOptions, diagnostic_task
from proctool.evaluation.scoring import fingerprint, scores_of
from proctool.events import EndEvent, EvalEvent, Event, read_events
from proctool.launched import launch
from proctool.outputs import Output, reads_of, require_safe
from proctool.paths import user_path
from proctool.results import RESULTS, CurvePoint, DiagnosticRun, ValidationSet, write_results
from proctool.training.job import Job
from proctool.training.run_place import artifact_path


def init_labels(inits: Sequence[str]) -> list[str]:
    """A short name for each init: its file name, preceded by its folder if two files have the same name.

    `none` always means fresh weights.
    """
    paths = [user_path(init) for init in inits]
    names = [path.name if path.is_dir() else path.stem for path in paths]
    labels: list[str] = []
    for init, name, path in zip(inits, names, paths, strict=True):
        clash = init != "none" and (name == "none" or names.count(name) > 1)
        label = re.sub(r"[^\w.-]+", "-", f"{path.absolute().parent.name}-{name}" if clash else name)
        while label in labels:
            label += "+"
        labels.append(label)
    return labels


def run_diagnostic(
    name: str, options: DiagnosticOptions, listen: Callable[[Event], None] | None = None
) -> tuple[EndEvent, DiagnosticRun]:
    """Train or resume the run unless it is complete, then score the model. Raises ProctoolError."""
    job = job_with_model(name, options)
    folder, result = job.run_path, job.output
    assert result is not None
    option = "--run-dir" if options.output is None else "--output"
    outputs = [
        Output(result, option, "model", makes_folder=True),
        Output(folder / RESULTS, "--run-dir", "results", makes_folder=True),
    ]
    require_safe(outputs, reads_of(job.options), run_folder=folder)
    folder.mkdir(parents=True, exist_ok=True)
    job.listeners = [listen] if listen else []
    end = job.run()
    scored = _scored(name, options, job, end)
    if launch().speaks:
        write_results(folder / RESULTS, [scored])
    return end, scored


def job_with_model(name: str, options: DiagnosticOptions) -> Job:
    """The job of a diagnostic, which writes its model to its run folder unless the options name a file."""
    job = diagnostic_job(name, options)
    if options.output is None:
        folder = job.run_path
        job.options, job.output = dataclasses.replace(options, run_dir=folder), artifact_path(folder)
    return job


def _scored(name: str, options: DiagnosticOptions, job: Job, end: EndEvent) -> DiagnosticRun:
    assert job.output is not None
    task = diagnostic_task(name, options)
    parent = job.parents[0] if job.parents else None
    return DiagnosticRun(
        diagnostic=name,
        task=task.spec,
        init=init_labels([options.init or "none"])[0],
        init_file=None if parent is None else str(options.init),
        init_content=parent.content if isinstance(parent, artifact.Artifact) else None,
        seed=options.seed,
        steps=end.step,
        tokens=end.tokens,
        scores=scores_of(job.output, task, options.eval_samples, min(options.batch_size, options.eval_samples)),
        curve=_curve(job.run_path, job.curriculum.stages[-1].size if job.curriculum else None),
        held_out=ValidationSet(
            split="validation",
            seed=HELD_OUT_SEED,
            samples=options.eval_samples,
            sha256=fingerprint(held_out(task).read(0, options.eval_samples)),
        ),
        artifact=end.artifact,
        content=end.content,
        run_dir=str(job.run_path),
        seconds=end.seconds,
        versions=artifact.versions(),
    )


def _curve(folder: Path, full_size: int | None) -> tuple[CurvePoint, ...]:
    """The evaluations at full size only: the small samples of a curriculum are easier."""
    return tuple(
        CurvePoint(
            step=event.step,
            tokens=event.tokens,
            loss=event.loss if math.isfinite(event.loss) else None,
            accuracy=event.accuracy,
            exact_match=event.exact_match,
        )
        for event in read_events(folder)
        if isinstance(event, EvalEvent) and event.size == full_size
    )
