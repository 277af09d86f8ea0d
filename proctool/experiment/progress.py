"""Show a running experiment: one live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from proctool.columns import fitting
from proctool.experiment.execute import Failure, Progress, Running
from proctool.experiment.stage import Stage
from proctool.reporting.metrics import MetricsLog
from proctool.units import format_count, format_seconds

_BAR = 20
"""Characters of a stage's progress bar."""


class LiveDisplay:
    """A live view: finished stages above, and a line per running stage. Narrow terminals show fewer columns."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._announced = _Announcer(lambda line, style: console.print(Text(line, style=style)))
        self._began = time.monotonic()
        self._live = Live(console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def update(self, progress: Progress) -> None:
        """Show the current state."""
        self._announced.update(progress, starts=False)
        self._live.update(self._view(progress))

    def _view(self, progress: Progress) -> RenderableType:
        rows = []
        for each in progress.running:
            steps = each.metrics.steps or each.stage.steps
            loss, speed = _readings(each.metrics)
            left = _time_left(progress.stage_left.get(each.stage.key))
            cells = {"stage": _name(each), "steps": f"{each.metrics.step}/{steps}", "loss": loss, "speed": speed}
            rows.append(({**cells, "left": left}, ProgressBar(total=steps, completed=each.metrics.step, width=_BAR)))
        names = ("stage", "bar", "steps", "loss", "speed", "left")
        widths = {name: max((len(cells.get(name, " " * _BAR)) for cells, _ in rows), default=0) for name in names}
        kept = fitting(widths, self._console.width, drop=("bar", "speed", "loss"))
        table = Table.grid(padding=(0, 2))
        for name in kept:
            table.add_column(justify="left" if name in ("stage", "bar") else "right", no_wrap=True)
        for cells, bar in rows:
            styles = {"stage": "bold"}
            table.add_row(*(bar if name == "bar" else Text(cells[name], styles.get(name, "")) for name in kept))
        return Group(table, Text(_summary(progress, time.monotonic() - self._began), style="dim"))


class PlainDisplay:
    """A line when a stage starts or ends, and a summary every `every` seconds."""

    def __init__(self, stream: TextIO, every: float = 15.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._every, self._clock = stream, every, clock
        self._announced = _Announcer(lambda line, _: self._write(line))
        self._began = self._last = clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, progress: Progress) -> None:
        """Show the current state."""
        self._announced.update(progress, starts=True)
        now = self._clock()
        if progress.running and now - self._last >= self._every:
            self._last = now
            for each in progress.running:
                self._write("  " + _line(each, progress))
            self._write("  " + _summary(progress, now - self._began))

    def _write(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class _Announcer:
    """Reports each event once: stages started, done, failed or skipped."""

    def __init__(self, say: Callable[[str, str], None]) -> None:
        self._say = say
        self._known: set[tuple[str, str]] = set()
        self._first = True

    def update(self, progress: Progress, starts: bool) -> None:
        if self._first:
            self._first = False
            reused = [stage for stage in progress.done if self._new("done", stage)]
            if reused:
                taken = f", {len(progress.adopted)} from another experiment" if progress.adopted else ""
                self._say(f"{len(reused)} of {len(progress.plan.stages)} stages are already done{taken}", "dim")
        for each in progress.running:
            if self._new("started", each.stage) and starts:
                resumed = f" (resumes at step {each.metrics.step})" if each.metrics.step else ""
                self._say(f"started {each.stage.name}{resumed}", "")
        for stage in progress.done:
            if self._new("done", stage):
                self._say(f"done    {stage.name}{_outcome(progress.metrics[stage.key])}", "green")
        for failure in progress.failed:
            if self._new("failed", failure.stage):
                self._say(describe_failure(failure), "bold red")
        for stage in progress.skipped:
            if self._new("skipped", stage):
                self._say(f"skipped {stage.name}: it needs a stage that failed", "yellow")
        for stage in progress.stopped:
            if self._new("stopped", stage):
                self._say(f"left out {stage.name}: its arm cannot win any more (stop_hopeless)", "yellow")
        if progress.stopping and ("stopping", "") not in self._known:
            self._known.add(("stopping", ""))
            self._say("stopping: waiting for stages to save checkpoints (Ctrl-C again stops them at once)", "yellow")

    def _new(self, what: str, stage: Stage) -> bool:
        if (what, stage.key) in self._known:
            return False
        self._known.add((what, stage.key))
        return True


def describe_failure(failure: Failure) -> str:
    """One line: the stage, its error, its log."""
    return f"failed  {failure.stage.name}: {failure.error} (log: {failure.log})"


def _outcome(metrics: MetricsLog) -> str:
    words = []
    if metrics.seconds is not None:
        words.append(f"in {format_seconds(metrics.seconds)}")
    if metrics.end is not None and math.isfinite(metrics.end.loss):
        words.append(f"loss {metrics.end.loss:.3f}")
    return " " + ", ".join(words) if words else ""


def _readings(metrics: MetricsLog) -> tuple[str, str]:
    """The last training loss and speed, if known."""
    if not metrics.train:
        return "", "starting"
    last = metrics.train[-1]
    speed = f"{format_count(last.tokens_per_second)} tokens/s" if last.tokens_per_second else ""
    return f"loss {last.loss:.3f}" if math.isfinite(last.loss) else "", speed


def _line(running: Running, progress: Progress) -> str:
    steps = running.metrics.steps or running.stage.steps
    parts = [f"{running.metrics.step}/{steps} steps", *_readings(running.metrics)]
    parts.append(_time_left(progress.stage_left.get(running.stage.key)))
    return f"{_name(running)} {', '.join(part for part in parts if part)}"


def _name(running: Running) -> str:
    """The stage, and its current donor if it may train several."""
    tries = running.metrics.tries
    return running.stage.name + (f" (donor {tries[-1].number + 1} of at most {tries[-1].most})" if tries else "")


def _time_left(seconds: float | None) -> str:
    return "" if seconds is None else f"{format_seconds(seconds)} left"


def _summary(progress: Progress, elapsed: float) -> str:
    parts = [f"{len(progress.done)} of {len(progress.plan.stages)} stages done", f"{format_seconds(elapsed)} elapsed"]
    if progress.stopping:
        parts.append("stopping")
    elif progress.seconds_left is not None:
        parts.append(f"about {format_seconds(progress.seconds_left)} left in total")
    else:
        parts.append("estimating the time left")
    return ", ".join(parts)
