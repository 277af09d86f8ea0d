"""One trial: the stages of an arm with one seed, in this process, with a report after each evaluation."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from proctool.errors import RunError
from proctool.events import EvalEvent, Event
from proctool.experiment.execute import LOG_FILE
from proctool.experiment.graph import Plan
from proctool.experiment.in_process import run_stage_here
from proctool.experiment.stage import Stage
from proctool.locks import take
from proctool.reporting.metrics import MetricsLog
from proctool.training.options import PretrainOptions

Heard = Callable[[int, float], None]
"""Gets the step and the validation loss of each evaluation after the first; may raise to stop the trial."""


def run_arm(plan: Plan, arm: str, seed: int, heard: Heard, cache_dir: Path | None = None) -> Stage:
    """Run what is missing of an arm and report its evaluations, those of finished runs too. Returns its last stage.

    A stage that another process is running is waited for. Raises RunError if a stage fails (a gradient that is not
    finite), Interrupted after a checkpoint, and what `heard` raises.
    """
    last = plan.arms[arm][seed].pretrain
    assert last is not None, "every arm pretrains"
    report = _Reports(MetricsLog(last.folder(plan.root)), heard)
    for stage in (*_before(last), last):
        if not stage.is_done(plan.root):
            with _alone(stage, plan.root):
                if not stage.is_done(plan.root):  # the other process may have finished it
                    _run(stage, plan.root, report, cache_dir)
    report()
    return last


@dataclass
class _Reports:
    """Reports each evaluation in a run's file once, so that a resumed run reports those before its checkpoint too."""

    log: MetricsLog
    heard: Heard
    told: set[int] = field(default_factory=set)

    def __call__(self) -> None:
        self.log.update()
        for event in list(self.log.evals):
            if event.step and event.split == "validation" and event.step not in self.told:
                self.told.add(event.step)
                self.heard(event.step, event.loss)


def _before(stage: Stage) -> list[Stage]:
    """The stages that it reads, their own inputs first."""
    found: dict[str, Stage] = {}
    for parent in stage.parents:
        found |= {each.key: each for each in (*_before(parent), parent)}
    return list(found.values())


@contextlib.contextmanager
def _alone(stage: Stage, root: Path) -> Iterator[None]:
    root.mkdir(parents=True, exist_ok=True)
    held = take(root / f".stage-{stage.short}.lock", waiting=lambda: None)
    with held or contextlib.nullcontext():
        yield


def _run(stage: Stage, root: Path, report: _Reports, cache_dir: Path | None) -> None:
    if isinstance(stage.options, PretrainOptions):
        _pretrain(stage, stage.options, root, report, cache_dir)
        return
    from proctool.cli.main import app

    failure = run_stage_here(stage, root, lambda words: app(words, standalone_mode=False))
    if failure is not None:
        raise RunError(f"{failure.stage.name}: {failure.error} (log: {failure.log})")


def _pretrain(stage: Stage, asked: PretrainOptions, root: Path, report: _Reports, cache_dir: Path | None) -> None:
    from proctool.training.pretrain import pretrain_job

    folder, output = stage.folder(root), stage.artifact(root)
    assert output is not None, "a pretraining writes its model"
    folder.mkdir(parents=True, exist_ok=True)
    donor = None if stage.donor is None else str(stage.donor.artifact(root))
    options = dataclasses.replace(
        asked, init=donor or asked.init, run_dir=folder, output=output, cache_dir=cache_dir, keep_state=False
    )

    def listen(event: Event) -> None:
        if isinstance(event, EvalEvent):
            report()

    with (
        (folder / LOG_FILE).open("a", encoding="utf-8", errors="backslashreplace") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        job = pretrain_job(options)
        job.listeners = [listen]
        job.run()
