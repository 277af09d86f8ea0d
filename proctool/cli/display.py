"""What people see while a command works: progress on standard error, results in words."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from proctool.errors import in_utf8
from proctool.events import (
    CurriculumEvent,
    EndEvent,
    EvalEvent,
    Event,
    ExtendEvent,
    NoteEvent,
    ResumeEvent,
    StartEvent,
    TrainEvent,
    TryEvent,
)
from proctool.units import format_bytes, format_count, format_seconds

if TYPE_CHECKING:
    from proctool.procedural.statistics import Statistics

_PLAIN_SECONDS = 10.0
"""Seconds between progress lines where there is no terminal."""


def say(text: str) -> None:
    """A line for people."""
    print(in_utf8(text), file=sys.stderr, flush=True)


def notes(lines: Iterable[str]) -> None:
    """What there is to say of a corpus or its token store: a line each."""
    for line in lines:
        say(line)


def emit(result: Mapping[str, Any]) -> None:
    """A result for machines."""
    print(json.dumps(result), flush=True)


def statistics(name: str, measured: Statistics, json: bool) -> None:
    """What data demand: a table, or a line of JSON."""
    if json:
        emit({"event": "statistics", "name": name, **measured.plain()})
        return
    from proctool.cli import tables

    tables.show({"": "left", name: "right"}, measured.lines())


class Results:
    """Where a command's results go: in words on standard output; with --json, JSON lines there and words beside them.

    Progress and notes are no results; `say` puts them on standard error.
    """

    def __init__(self, *, json: bool) -> None:
        self._json = json

    def line(self, text: str) -> None:
        """A result in words."""
        print(text, file=sys.stderr if self._json else sys.stdout, flush=True)

    def table(self, columns: Mapping[str, str], rows: Iterable[Sequence[Any]], title: str | None = None) -> None:
        """Results as a table (see tables.show)."""
        from proctool.cli import tables

        tables.show(columns, rows, title, stderr=self._json)

    def emit(self, *results: Mapping[str, Any]) -> None:
        """The same for machines, one JSON line each, where they are asked for."""
        for result in results if self._json else ():
            emit(result)


class ProgressLine:
    """Follows one piece of work: `unit`s done out of `total`, with speed and time left."""

    def __init__(self, label: str, total: float | None, unit: str) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._began = self._said = time.monotonic()
        self._first: float | None = None
        self._bar: Any = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bar
            from rich.table import Column

            self._bar = Bar(
                # The label keeps its width; what does not fit a narrow terminal is cut at the end.
                TextColumn("{task.description}", table_column=Column(no_wrap=True, min_width=len(label))),
                BarColumn(bar_width=10), TextColumn("{task.fields[words]}"),
                console=Console(stderr=True), transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task(label, total=total, words="")
            self._bar.start()

    def update(self, done: float, words: str = "", total: float | None = None) -> None:
        """`done` units are done; `words` are shown beside them."""
        self._total = total or self._total
        if self._first is None:
            self._first = done
        now = time.monotonic()
        speed = (done - self._first) / max(now - self._began, 1e-9)
        left = f"{format_seconds((self._total - done) / speed)} left" if self._total and speed else ""
        of = f"{format_count(done)}/{format_count(self._total)}" if self._total else format_count(done)
        text = "  ".join(filter(None, [f"{of} {self._unit}", left, words]))
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=self._total, words=text)
        elif now - self._said >= _PLAIN_SECONDS:
            self._said = now
            say(f"{self._label}: {text}")

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


@contextlib.contextmanager
def progress(label: str, total: float | None, unit: str) -> Iterator[ProgressLine]:
    """A `ProgressLine` that is gone when the block ends."""
    shown = ProgressLine(label, total, unit)
    try:
        yield shown
    finally:
        shown.close()


@contextlib.contextmanager
def store_progress() -> Iterator[Callable[[Any], None]]:
    """A listener for the building of a token store (see corpora.build); silent where there is nothing to build."""
    shown: ProgressLine | None = None

    def listen(state: Any) -> None:
        nonlocal shown
        if shown is None:
            shown = ProgressLine("token store", None, "tokens")
        wanted = state.goal.wanted if state.goal is not None and state.goal.what == "tokens" else None
        words = "waiting for another process" if state.waiting else f"{format_count(state.documents)} documents"
        shown.update(state.tokens, words, total=wanted)

    try:
        yield listen
    finally:
        if shown is not None:
            shown.close()


@contextlib.contextmanager
def training_progress(label: str) -> Iterator[Callable[[Event], None]]:
    """A listener for training events: a bar on a terminal, plain lines elsewhere."""
    shown: ProgressLine | None = None
    held_out = ""
    first, shows_carried = label, True

    def listen(event: Event) -> None:
        nonlocal shown, held_out, label, shows_carried
        match event:
            case NoteEvent():
                say(f"{label}: {event.note}")
            case TryEvent():
                if shown is not None:
                    shown.close()
                say(f"{first}: {_verdict(event)}")
                label, shows_carried = f"{first}, donor {event.number + 1}", event.number == 0
            case StartEvent():
                if shown is not None:
                    shown.close()
                say(f"{label}: {format_count(event.parameters)} parameters, {event.steps} steps of "
                    f"{format_count(event.tokens_per_step)} tokens")  # fmt: skip
                if event.micro_batch is not None:
                    again = "with" if event.gradient_checkpointing else "without"
                    say(
                        f"{label}: {event.micro_batch} samples at once, {again} gradient checkpointing (by free memory)"
                    )
                if shows_carried:  # of several donors the first
                    carried(event.carried or ())
                shown = ProgressLine(label, event.steps, "steps")
            case ResumeEvent():
                say(f"{label}: going on from step {event.step}")
                shown = ProgressLine(label, None, "steps")
            case ExtendEvent():
                say(f"{label}: continuing from step {event.step} to step {event.steps}")
                shown = ProgressLine(label, event.steps, "steps")
            case EvalEvent():
                held_out = f"held-out {event.loss:.3f}, {event.accuracy:.0%} right"
            case CurriculumEvent():
                say(f"{label}: samples of size {event.size} ({event.length} tokens) from step {event.step} on")
            case TrainEvent() if shown is not None:
                words = f"loss {event.loss:.3f}  {held_out}  {format_count(event.tokens_per_second or 0)} tokens/s"
                words += f"  {event.mfu:.0%} MFU" if event.mfu is not None else ""
                shown.update(event.step, words)

    try:
        yield listen
    finally:
        if shown is not None:
            shown.close()


def _verdict(event: TryEvent) -> str:
    """`donor 2 of at most 10 (seed 1000000000)`, and once it is probed whether it was accepted."""
    said = f"donor {event.number + 1} of at most {event.most} (seed {event.seed})"
    if event.accuracy is None:
        return said
    verdict = "accepted" if event.is_accepted else "rejected"
    return f"{said} {verdict}: {event.accuracy:.1%} of {event.diagnostic} right, {event.above:.1%} needed"


def carried(rows: Sequence[Mapping[str, Any]]) -> None:
    """What was carried over from a warmed model, what was not, and why."""
    from proctool.transplantation.origin import read_carried

    for row in read_carried(rows):
        made = row.provenance
        size = f"{row.tensors} tensors, {format_count(row.parameters)} parameters"
        say(f"  {made.component:<11}{made.source:<9}{size:<34}{made.words()}")


def plan(planned: Mapping[str, Any]) -> None:
    """A dry run in words."""
    say(f"{planned['command']}: nothing was written")
    rows = {
        "parameters": format_count(planned["parameters"]),
        "extends": f"the run below, from step {planned['extends_from']}" if "extends_from" in planned else None,
        "steps": str(planned["steps"]),
        "tokens": format_count(planned["tokens"]),
        "epochs": str(planned["epochs"]) if "epochs" in planned else None,
        "remark": planned.get("remark"),
        "compute": f"{format_count(planned['flops'])} floating-point operations",
        "memory": f"about {format_bytes(planned['peak_bytes'])} at the peak, of which "
        f"{format_bytes(planned['state_bytes'])} are weights, gradients and optimiser",
        "at once": _cut(planned),
        "task": planned.get("task"),
        "corpus": planned.get("corpus"),
        "run folder": planned["run_dir"],
        "output": planned["output"],
    }
    for name, value in rows.items():
        if value is not None:
            say(f"  {name:<11}{value}")
    if planned.get("carried"):
        say("  would carry over:")
        carried(planned["carried"])


def _cut(planned: Mapping[str, Any]) -> str | None:
    if "micro_batch" not in planned:
        return None
    again = "with" if planned["gradient_checkpointing"] else "without"
    return f"{planned['micro_batch']} samples, {again} gradient checkpointing, by the memory that is free now"


def finished(end: EndEvent, write: Callable[[str], None] = say) -> None:
    """The end of a training command in words."""
    scores = f"held-out loss {end.loss:.4f} nats per token, {end.accuracy:.1%} of tokens right"
    if end.exact_match > 0:
        scores += f", {end.exact_match:.1%} of samples whole"
    write(f"{end.command}: {scores}, after {format_count(end.tokens)} tokens in {format_seconds(end.seconds or 0)}")
    if end.artifact and end.content:
        say(f"wrote {end.artifact} (content {end.content[:12]}); metrics in {end.run_dir}")
    if end.best_artifact and end.best:
        say(f"wrote {end.best_artifact}, the best: held-out loss {end.best.loss:.4f} at step {end.best.step}")
