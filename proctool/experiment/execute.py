"""Run a graph of stages: each is a child process, `jobs` at a time, watched through its metrics.

A failed stage stops only the stages that depend on it. On a signal (see signals.py) every child gets SIGTERM and saves
a checkpoint; the same command resumes later. Each child has its own session, so that Ctrl-C in a terminal reaches it
only once, through us.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Protocol, Self

from proctool.errors import Interrupted, RunError
from proctool.experiment.adopt import adopt
from proctool.experiment.estimate import Throughput, seconds_left, urgency
from proctool.experiment.graph import Plan, descendants
from proctool.experiment.hopeless import decide
from proctool.experiment.launch import PROCTOOL, accelerated, started
from proctool.experiment.stage import Stage
from proctool.locks import Taken, take
from proctool.reporting.metrics import MetricsLog
from proctool.reporting.stopped import write_stopped
from proctool.signals import Stop, stop_signals
from proctool.workers import usable_cores

LOG_FILE = "log.txt"


@dataclass
class Running:
    """A stage whose process is running."""

    stage: Stage
    process: subprocess.Popen[bytes]
    metrics: MetricsLog
    log: Path
    log_begins: int
    """Size of the log in bytes when the process started."""
    started: float
    """Start time on the monotonic clock."""
    seconds_before: float
    """Seconds of training in earlier attempts."""


@dataclass(frozen=True)
class Failure:
    """A stage that ended without a result."""

    stage: Stage
    error: str
    """One line."""
    log: Path


@dataclass
class Progress:
    """The state of a running experiment, for a display."""

    plan: Plan
    metrics: dict[str, MetricsLog]
    """Metrics by stage key."""
    running: list[Running] = field(default_factory=list)
    done: list[Stage] = field(default_factory=list)
    adopted: list[Stage] = field(default_factory=list)
    """Stages in `done` that this run took from another experiment."""
    failed: list[Failure] = field(default_factory=list)
    skipped: list[Stage] = field(default_factory=list)
    """Stages that depend on a failed stage."""
    waiting: list[Stage] = field(default_factory=list)
    stopped: list[Stage] = field(default_factory=list)
    """Stages that `stop_hopeless` leaves out."""
    held: frozenset[str] = frozenset()
    """Keys of stages that wait until `stop_hopeless` decides on them."""
    decided: int = -1
    """Finished stages at the last decision."""
    seconds_left: float | None = None
    stage_left: dict[str, float | None] = field(default_factory=dict)
    stopping: bool = False
    overheads: list[float] = field(default_factory=list)
    """Seconds that ended stages spent outside training: starting, loading and saving."""


class Display(Protocol):
    """Shows progress; called in every iteration of the loop."""

    def __enter__(self) -> Self:
        """Start the display."""

    def __exit__(self, *_: object) -> None:
        """End."""

    def update(self, progress: Progress) -> None:
        """Show the current state."""


def cores() -> int:
    """CPU cores to use: OMP_NUM_THREADS if set, else the cores available to this process."""
    written = os.environ.get("OMP_NUM_THREADS", "")
    if written.isdigit() and int(written) > 0:
        return int(written)
    return usable_cores()


def default_jobs(processes: int = 1) -> int:
    """Jobs at a time: one if stages use an accelerator or several processes, else one per core, at most 4."""
    return 1 if accelerated() or processes > 1 else min(4, cores())


def execute(
    plan: Plan,
    *,
    jobs: int,
    display: Display,
    command: Sequence[str] = PROCTOOL,
    resume_with: str = "the same command",
    pause: Callable[[], None] = lambda: time.sleep(0.5),
) -> list[Failure]:
    """Run the missing stages of `plan` and return the failures. `pause` waits between two iterations.

    Raises Interrupted after a signal, when every child has ended; RunError if another run uses the same folder.
    """
    jobs = max(1, min(jobs, len(plan.stages)))
    progress = Progress(plan, {})
    with alone_in(plan.root) as lock, stop_signals(patient=True) as stop:
        progress.adopted = adopt(plan)
        for stage in plan.stages:
            progress.metrics[stage.key] = MetricsLog(stage.folder(plan.root))
            progress.metrics[stage.key].update()
            (progress.done if stage.is_done(plan.root) else progress.waiting).append(stage)
        try:
            while progress.running or progress.waiting:
                if not stop:
                    _start_ready(progress, jobs, command, lock)
                if not stop and not progress.running and progress.failed:  # a decision needs a stage that failed
                    progress.skipped += progress.waiting
                    progress.waiting.clear()
                _estimate(progress, jobs)
                display.update(progress)
                if not progress.running:
                    break
                pause()
                _pass_on(stop, progress)
                for each in list(progress.running):
                    each.metrics.update()
                    if each.process.poll() is not None:
                        _finish(each, progress)
        finally:
            # Children still run here only after a bug of ours: leave no orphans.
            for each in progress.running:
                _kill(each)
        display.update(progress)
        if stop:
            raise Interrupted(f"interrupted; finished stages and checkpoints are kept; resume with {resume_with}")
    return progress.failed


def _start_ready(progress: Progress, jobs: int, command: Sequence[str], lock: int | None) -> None:
    """Start the most urgent stages whose parents are done, up to the number of jobs."""
    _leave_out(progress)
    order = urgency(progress.plan.stages)
    made = {stage.key for stage in progress.done}
    waiting = [stage for stage in progress.waiting if stage.key not in progress.held]
    ready = [stage for stage in waiting if all(parent.key in made for parent in stage.parents)]
    ready.sort(key=lambda stage: -order[stage.key])
    for stage in ready[: jobs - len(progress.running)]:
        progress.waiting.remove(stage)
        launch = progress.plan.recipe.launch
        threads = max(1, cores() // jobs // (launch.processes if stage.trains else 1))
        progress.running.append(_start(stage, progress, threads, started(stage, launch, command), lock))


def _leave_out(progress: Progress) -> None:
    """Take out the stages of arms that cannot win, and hold back those that wait for such a decision."""
    if progress.decided == len(progress.done):
        return
    progress.decided = len(progress.done)
    found = decide(progress.plan, {stage.key: progress.metrics[stage.key] for stage in progress.done})
    progress.held = found.waiting
    progress.stopped += [stage for stage in progress.waiting if stage.key in found.left_out]
    progress.waiting = [stage for stage in progress.waiting if stage.key not in found.left_out]
    write_stopped(progress.plan.root, found.stopped)


def _start(stage: Stage, progress: Progress, threads: int, command: Sequence[str], lock: int | None) -> Running:
    root = progress.plan.root
    folder = stage.folder(root)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / LOG_FILE
    with log.open("ab") as output:
        begins = output.tell()
        process = subprocess.Popen(
            [*command, *stage.argv(root)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
            # Children inherit the lock, so that a child of a killed parent still keeps other runs out.
            pass_fds=() if lock is None else (lock,),
        )
    metrics = progress.metrics[stage.key]
    return Running(stage, process, metrics, log, begins, time.monotonic(), metrics.seconds or 0.0)


def _finish(ended: Running, progress: Progress) -> None:
    """Mark an ended stage as done or failed (or as waiting while stopping)."""
    progress.running.remove(ended)
    ended.metrics.update()
    code = ended.process.returncode
    if code == 0 and ended.stage.is_done(progress.plan.root):
        progress.done.append(ended.stage)
        trained = (ended.metrics.seconds or 0.0) - ended.seconds_before
        progress.overheads.append(max(0.0, time.monotonic() - ended.started - trained))
        return
    if progress.stopping:
        progress.waiting.append(ended.stage)
        return
    progress.failed.append(Failure(ended.stage, _reason(ended, code), ended.log))
    skip_after(ended.stage, progress)


def skip_after(failed: Stage, progress: Progress) -> None:
    """Skip the waiting stages that depend on `failed`."""
    for stage in descendants(failed, progress.plan.stages):
        if stage in progress.waiting:
            progress.waiting.remove(stage)
            progress.skipped.append(stage)


def _reason(ended: Running, code: int) -> str:
    """The line of an ended process's log that gives the error."""
    with ended.log.open("rb") as file:
        file.seek(ended.log_begins)
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    ours = [line.removeprefix("proctool: ") for line in lines if line.startswith("proctool: ")]
    said = (ours or lines or [""])[-1]
    if code == 0:
        return "it exited with 0 but wrote no end event or no artifact"
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    if code == -signal.SIGKILL:
        how += " (out of memory?)"
    return said if ours else f"{how}: {said}" if said else how


def _estimate(progress: Progress, jobs: int) -> None:
    """Estimate the remaining seconds of each stage and of the experiment."""
    throughput = Throughput((stage, progress.metrics[stage.key]) for stage in progress.plan.stages)
    overhead = median(progress.overheads) if progress.overheads else 0.0
    waited = {each.stage.key: time.monotonic() - each.started for each in progress.running}
    progress.stage_left = {}
    for stage in (*(each.stage for each in progress.running), *progress.waiting):
        metrics = progress.metrics[stage.key]
        seconds = throughput.seconds(stage, metrics)
        if seconds is not None and not (stage.key in waited and metrics.train):
            seconds += max(0.0, overhead - waited.get(stage.key, 0.0))
        progress.stage_left[stage.key] = seconds
    progress.seconds_left = seconds_left(progress.plan.stages, progress.stage_left, set(waited), jobs)


def _pass_on(stop: Stop, progress: Progress) -> None:
    """On the first signal ask children to save a checkpoint and stop; on a second Ctrl-C kill them."""
    if stop and not progress.stopping:
        progress.stopping = True
        for each in progress.running:
            if each.process.poll() is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(each.process.pid, signal.SIGTERM)
    if stop.insists:
        for each in progress.running:
            _kill(each)


def _kill(each: Running) -> None:
    family = _family(each.process.pid) if each.process.poll() is None else []
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(each.process.pid, signal.SIGKILL)
    for member in family:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(member, signal.SIGKILL)
    each.process.wait()


def _family(process: int) -> list[int]:
    """A process and its descendants, since torchrun's workers have their own groups; without /proc, only itself."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text(errors="replace")
        except OSError:
            continue  # the process has ended
        parent = int(text.rpartition(")")[2].split()[1])
        children.setdefault(parent, []).append(int(stat.parent.name))
    found = [process]
    for each in found:  # the loop extends the list
        found += children.get(each, [])
    return found


@contextlib.contextmanager
def alone_in(root: Path) -> Iterator[int | None]:
    """Lock an experiment's folder and return the file descriptor. Raises RunError if another run holds the lock."""
    root.mkdir(parents=True, exist_ok=True)
    try:
        file = take(root / ".lock")
    except Taken as holder:
        raise RunError(f"{root}: another run or one of its stages uses this folder: {holder}; wait for it") from None
    with file or contextlib.nullcontext():
        yield file.fileno() if file else None
