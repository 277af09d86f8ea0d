"""A diagnostic run from several inits with several seeds: a folder for each run, means with intervals over all.

ROOT/INIT-sSEED/       a run folder with its trained model in model.safetensors
ROOT/results.jsonl     a line for each run, then one for each init

A single run is its own root: no folder below, one line.

Runs share one process, one after another, or a few: building a model takes a hundredth of the time that importing
torch does. They are not vectorised over seeds.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proctool import artifact
from proctool.errors import Interrupted, OptionError, RunError
from proctool.evaluation.diagnostic import HELD_OUT_SEED, artifact_path, diagnostic_job, held_out
from proctool.evaluation.options import DiagnosticOptions, StudyOptions, diagnostic_task
from proctool.evaluation.scoring import fingerprint, scores_of
from proctool.events import EndEvent, EvalEvent, Event, ExtendEvent, read_events, to_json
from proctool.outputs import Output, holds_nothing, reads_of, require_safe
from proctool.paths import user_path
from proctool.reporting.interval import Estimate, estimate
from proctool.signals import Stopped, command_again, in_worker, spawning, start_tracker, stop_signals
from proctool.training.run_form import read_form, require_run_folder
from proctool.workers import end_with_parent, usable_cores

RESULTS = "results.jsonl"
"""Beside the run folders of a study, or in that of a single run."""

Line = dict[str, Any]
"""A line of results."""
Listen = Callable[[Event], None]
MEASURES = ("accuracy", "exact_match")


@dataclass(frozen=True)
class Trial:
    """One init with one seed."""

    diagnostic: str
    label: str
    """How tables name the init."""
    options: DiagnosticOptions

    @property
    def name(self) -> str:
        """Init and seed."""
        return f"{self.label}-s{self.options.seed}"

    @property
    def folder(self) -> Path:
        """Its run folder."""
        assert self.options.run_dir is not None
        return self.options.run_dir

    @property
    def state(self) -> str:
        """ "done", "started" or "missing"."""
        events = read_events(self.folder)
        turns = [event for event in events if isinstance(event, ExtendEvent | EndEvent)]
        return "done" if turns and isinstance(turns[-1], EndEvent) else "started" if events else "missing"

    @property
    def end(self) -> EndEvent:
        """How its training ended, once it has."""
        return next(event for event in reversed(read_events(self.folder)) if isinstance(event, EndEvent))

    def run(self, listen: Listen | None = None) -> Line:
        """Train, or go on, or find it done; then score. Returns the line of results. Raises ProctoolError."""
        task = diagnostic_task(self.diagnostic, self.options)
        self.folder.mkdir(parents=True, exist_ok=True)
        job = diagnostic_job(self.diagnostic, self.options)
        job.output = self.options.output or artifact_path(self.folder)
        job.listeners = [listen] if listen else []
        end = job.run()
        options = self.options
        scores = scores_of(job.output, task, options.eval_samples, min(options.batch_size, options.eval_samples))
        parent = job.parents[0] if job.parents else None
        full_size = job.course.lessons[-1].size if job.course else None
        return {
            "event": "diagnostic",
            "diagnostic": self.diagnostic,
            "task": task.spec,
            "init": self.label,
            "init_file": None if parent is None else str(options.init),
            "init_content": parent.content if isinstance(parent, artifact.Artifact) else None,
            "seed": options.seed,
            "steps": end.step,
            "tokens": end.tokens,
            "scores": scores,
            "curve": [  # of the full task: a curriculum's small samples are easier
                {key: to_json(event)[key] for key in ("step", "tokens", "loss", *MEASURES)}
                for event in read_events(self.folder)
                if isinstance(event, EvalEvent) and event.size == full_size
            ],
            "held_out": {
                "split": "validation",
                "seed": HELD_OUT_SEED,
                "samples": options.eval_samples,
                "sha256": fingerprint(held_out(task).read(0, options.eval_samples)),
            },
            "artifact": end.artifact,
            "content": end.content,
            "run_dir": str(self.folder),
            "seconds": end.seconds,
            "versions": artifact.versions(),
        }


def trials(diagnostic: str, options: DiagnosticOptions, study: StudyOptions) -> list[Trial]:
    """Every init with every seed. Raises OptionError, ArtifactError, ModelError for what would fail later."""
    if options.output is not None:
        raise OptionError("output: several models do not fit one file; each is in its own folder under --run-dir")
    root = options.run_dir or Path("runs") / f"eval-{diagnostic}"
    inits = study.init or (options.init or "none",)
    planned = []
    for init, label in zip(inits, _labels(inits), strict=True):
        for seed in study.seeds or (options.seed,):
            run_dir = root / f"{label}-s{seed}"
            planned.append(
                Trial(diagnostic, label, dataclasses.replace(options, init=init, seed=seed, run_dir=run_dir))
            )
    _require_study_folder(root)
    for trial in planned:
        _check_files(trial, root)
    return planned


def _require_study_folder(root: Path) -> None:
    """Raise RunError unless `root` is missing, empty, or the folder of a study."""
    if root.exists() and not root.is_dir():
        raise RunError(f"{root}: is a file; --run-dir takes a folder")
    if holds_nothing(root) or (root / RESULTS).is_file():  # whose results these are is checked with each trial
        return
    if not any(read_form(folder) is not None for folder in root.iterdir() if folder.is_dir()):
        raise RunError(
            f"{root}: exists, is not empty and is not the folder of a study; "
            "choose another --run-dir, or an empty folder"
        )


def _check_files(trial: Trial, root: Path) -> None:
    """Refuse a run that would overwrite what proctool did not write. Raises RunError, ArtifactError, OptionError."""
    output = trial.options.output or artifact_path(trial.folder)
    outputs = [
        Output(output, "--run-dir" if trial.options.output is None else "--output", "model", makes_folder=True),
        Output(root / RESULTS, "--run-dir", "results", makes_folder=True),
    ]
    require_run_folder(trial.folder)
    require_safe(outputs, reads_of(trial.options), run_folder=trial.folder)


def single(diagnostic: str, options: DiagnosticOptions) -> Trial:
    """One init with one seed, in the folder that a training command of these options would take."""
    (label,) = _labels([options.init or "none"])
    run_dir = diagnostic_job(diagnostic, options).run_path
    trial = Trial(diagnostic, label, dataclasses.replace(options, run_dir=run_dir))
    _check_files(trial, run_dir)
    return trial


def _labels(inits: Sequence[str]) -> list[str]:
    """A short name for each init: its file's, with the folder's before it where two files are named alike."""
    paths = [user_path(init) for init in inits]
    names = [path.name if path.is_dir() else path.stem for path in paths]
    labels = []
    for name, path in zip(names, paths, strict=True):
        clash = names.count(name) > 1
        label = re.sub(r"[^\w.-]+", "-", f"{path.absolute().parent.name}-{name}" if clash else name)
        while label in labels:
            label += "+"
        labels.append(label)
    return labels


def run_all(
    planned: Sequence[Trial], jobs: int, watch: Callable[[Trial], AbstractContextManager[Listen | None]] | None = None
) -> Iterator[Line]:
    """The results of all trials, as they come. Raises Interrupted when stopped by a signal, after checkpoints."""
    if jobs == 1 or len(planned) == 1:
        for trial in planned:
            with (watch or (lambda _: nullcontext(None)))(trial) as listen:
                result = trial.run(listen)
            yield result
        return
    yield from _in_processes(planned, min(jobs, len(planned)))


def _in_processes(planned: Sequence[Trial], jobs: int) -> Iterator[Line]:
    start_tracker()
    context = multiprocessing.get_context("spawn")
    threads = max(1, usable_cores() // jobs)
    with stop_signals() as stop, ProcessPoolExecutor(jobs, context, _start_worker, (threads,)) as pool:
        with spawning():
            waiting: set[Future[Line]] = {pool.submit(_work, trial) for trial in planned}
        told = False
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    if not stop:
                        yield future.result()
                if stop and not told:
                    told = True
                    for future in waiting:
                        future.cancel()
                    for process in multiprocessing.active_children():
                        process.terminate()  # a run that trains leaves a checkpoint
        except BrokenProcessPool:
            if not stop:
                raise RunError(
                    "a process that was training was killed (out of memory?); run again to go on, with fewer --jobs"
                ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        if stop:
            raise Interrupted(f"interrupted; `{command_again()}` goes on")


def _start_worker(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    end_with_parent()


_stopped = False
"""In a worker: it was asked to stop, and what still waits for it is not begun."""


def _work(trial: Trial) -> Line:
    global _stopped
    if _stopped:
        raise Interrupted("stopped before it was begun")
    try:
        in_worker(signal.SIGTERM)  # not before: the pool would print what is raised between its tasks
        return trial.run()
    except (Interrupted, Stopped):
        _stopped = True
        raise


def summarise(results: Sequence[Line]) -> list[Line]:
    """For each init, in order: its measures over the seeds, at the end and over the steps.

    A run that stopped early (`--until`) counts with its last measure from there on. Under a curriculum, the curve
    begins where the last of the runs has come to the full size.
    """
    by_init: dict[str, list[Line]] = {}
    for result in results:
        by_init.setdefault(result["init"], []).append(result)
    return [_summary(init, found) for init, found in by_init.items()]


def _summary(init: str, found: Sequence[Line]) -> Line:
    first = max(result["curve"][0]["step"] for result in found)
    steps = sorted({point["step"] for result in found for point in result["curve"] if point["step"] >= first})
    return {
        "event": "summary",
        "diagnostic": found[0]["diagnostic"],
        "task": found[0]["task"],
        "init": init,
        "init_content": found[0]["init_content"],
        "seeds": [result["seed"] for result in found],
        "scores": {
            scoring: {measure: _over([result["scores"][scoring][measure] for result in found]) for measure in MEASURES}
            for scoring in found[0]["scores"]
        },
        "curve": [
            {"step": step} | {measure: _over([_at(result, step, measure) for result in found]) for measure in MEASURES}
            for step in steps
        ],
        "held_out": found[0]["held_out"],
        "versions": found[0]["versions"],
    }


def _at(result: Line, step: int, measure: str) -> float:
    return float([point[measure] for point in result["curve"] if point["step"] <= step][-1])


def _over(values: Sequence[float]) -> dict[str, Any]:
    found: Estimate = estimate(values, shares=True)
    return {"mean": found.value, "low": found.low, "high": found.high, "n": found.n, "method": found.method}


def write_results(path: Path, lines: Sequence[Line]) -> None:
    """JSON lines, complete or not at all."""
    with artifact.replacing(path) as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines).encode())
