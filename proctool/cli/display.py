"""What people see while a command works: progress on standard error, results in words."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from proctool.columns import wrapped
from proctool.errors import in_utf8
from proctool.events import (
    VALIDATION,
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
from proctool.units import counted, format_bytes, format_count, format_seconds, to_perplexity

if TYPE_CHECKING:
    from proctool.procedural.statistics import Statistics

_PLAIN_SECONDS = 10.0
"""Seconds between progress lines where there is no terminal."""
_BAR = 10
"""Characters of a progress bar."""


def say(text: str, hanging: int = 2) -> None:
    """A line for people. On a terminal it may continue on lines that are indented by `hanging` spaces."""
    print(wrapped(in_utf8(text), sys.stderr, hanging), file=sys.stderr, flush=True)


def line(text: str, hanging: int = 2) -> None:
    """A line of a result in words, as `say` shows it but on standard output."""
    print(wrapped(in_utf8(text), sys.stdout, hanging))


def notes(lines: Iterable[str]) -> None:
    """Notes on a corpus or its token store, one line each."""
    for line in lines:
        say(line)


def emit(result: Mapping[str, Any]) -> None:
    """A result for machines."""
    print(json.dumps(result), flush=True)


def statistics(name: str, measured: Statistics, json: bool) -> None:
    """Statistics of data as a table, or as a line of JSON."""
    if json:
        emit({"event": "statistics", "name": name, **measured.plain()})
        return
    from proctool.cli import tables

    tables.show({"": "left", name: "right"}, measured.lines())


class Results:
    """Where a command's results go: words on standard output; with --json, JSON there and words on standard error.

    Progress and notes are not results; `say` writes them to standard error.
    """

    def __init__(self, *, json: bool) -> None:
        self._json = json

    def line(self, text: str) -> None:
        """A result in words."""
        stream = sys.stderr if self._json else sys.stdout
        print(wrapped(text, stream), file=stream, flush=True)

    def table(
        self,
        columns: Mapping[str, str],
        rows: Iterable[Sequence[Any]],
        title: str | None = None,
        drop: Sequence[str] = (),
    ) -> None:
        """Results as a table (see tables.show)."""
        from proctool.cli import tables

        tables.show(columns, rows, title, stderr=self._json, drop=drop)

    def emit(self, *results: Mapping[str, Any]) -> None:
        """The same as JSON, one line each, if --json is given."""
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
                TextColumn("{task.description}", table_column=Column(no_wrap=True, min_width=len(label))),
                BarColumn(bar_width=_BAR), TextColumn("{task.fields[words]}"),
                console=Console(stderr=True), transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task(label, total=total, words="")
            self._bar.start()

    def update(self, done: float, words: str = "", total: float | None = None) -> None:
        """`done` units are done. `words` are more parts, two spaces apart; a narrow terminal shows the first ones."""
        self._total = total or self._total
        if self._first is None:
            self._first = done
        now = time.monotonic()
        speed = (done - self._first) / max(now - self._began, 1e-9)
        left = f"{format_seconds((self._total - done) / speed)} left" if self._total and speed else ""
        of = f"{format_count(done)}/{format_count(self._total)}" if self._total else format_count(done)
        parts = [f"{of} {self._unit}", *filter(None, [left, *words.split("  ")])]
        if self._bar is not None:
            room = self._bar.console.width - len(self._label) - _BAR - 2  # a space between columns
            while len(parts) > 1 and len("  ".join(parts)) > room:
                parts.pop()
            self._bar.update(self._task, completed=done, total=self._total, words="  ".join(parts))
        elif now - self._said >= _PLAIN_SECONDS:
            self._said = now
            say(f"{self._label}: {'  '.join(parts)}")

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


@contextlib.contextmanager
def progress(label: str, total: float | None, unit: str) -> Iterator[ProgressLine]:
    """A `ProgressLine` that is removed when the block ends."""
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
        words = "waiting for another process" if state.waiting else f"{counted(state.documents, 'document')}"
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
    validation = ""
    first, shows_carried = label, True

    def listen(event: Event) -> None:
        nonlocal shown, validation, label, shows_carried
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
                say(f"{label}: {format_count(event.parameters)} parameters, {counted(event.steps, 'step', exact=True)} "
                    f"of {counted(event.tokens_per_step, 'token')}")  # fmt: skip
                if event.micro_batch is not None:
                    again = "with" if event.gradient_checkpointing else "without"
                    say(
                        f"{label}: micro-batches of {counted(event.micro_batch, 'sample')}, {again} gradient "
                        "checkpointing (chosen by free memory)"
                    )
                if shows_carried:  # of several donors the first
                    carried(event.carried or ())
                shown = ProgressLine(label, event.steps, "steps")
            case ResumeEvent():
                say(f"{label}: resuming from step {event.step}")
                shown = ProgressLine(label, None, "steps")
            case ExtendEvent():
                say(f"{label}: continuing from step {event.step} to step {event.steps}")
                shown = ProgressLine(label, event.steps, "steps")
            case EvalEvent() if event.split == VALIDATION:
                validation = f"validation {event.loss:.3f}, accuracy {event.accuracy:.0%}"
            case CurriculumEvent():
                say(f"{label}: curriculum: size {event.size} ({event.length} tokens per sample) from step {event.step}")
            case TrainEvent() if shown is not None:
                words = f"loss {event.loss:.3f}  {validation}  {format_count(event.tokens_per_second or 0)} tokens/s"
                words += f"  {event.mfu:.0%} MFU" if event.mfu is not None else ""
                shown.update(event.step, words)

    try:
        yield listen
    finally:
        if shown is not None:
            shown.close()


def _verdict(event: TryEvent) -> str:
    """`donor 2 of at most 10 (seed 1000000000)`, and after its probe whether it is accepted."""
    said = f"donor {event.number + 1} of at most {event.most} (seed {event.seed})"
    if event.accuracy is None:
        return said
    verdict = "accepted" if event.is_accepted else "rejected"
    return f"{said} {verdict}: {event.diagnostic} accuracy {event.accuracy:.1%}, {event.above:.1%} needed"


def carried(rows: Sequence[Mapping[str, Any]]) -> None:
    """What was carried over from a warmed model, what was not, and why, one line per component."""
    from proctool.transplantation.origin import read_carried

    for row in read_carried(rows):
        made = row.provenance
        size = f"{counted(row.tensors, 'tensor')}, {counted(row.parameters, 'parameter')}"
        say(f"  {made.component:<11}{made.source:<9}{size:<34}{made.words()}", hanging=13)


def plan(planned: Mapping[str, Any]) -> None:
    """A dry run in words."""
    say(f"{planned['command']}: nothing was written")
    rows = {
        "parameters": format_count(planned["parameters"]),
        "extends": f"the run folder below, from step {planned['extends_from']}" if "extends_from" in planned else None,
        "run": _run(planned["run"]),
        "steps": str(planned["steps"]),
        "tokens": _tokens(planned),
        "epochs": str(planned["epochs"]) if "epochs" in planned else None,
        "note": planned.get("remark"),
        "compute": f"{format_count(planned['flops'])} FLOPs",
        "time": _least_time(planned["seconds_at_least"]),
        "memory": f"about {format_bytes(planned['peak_bytes'])} at peak, of which "
        f"{format_bytes(planned['state_bytes'])} for weights, gradients and optimiser state",
        "warning": _too_large(planned),
        "micro-batch": _cut(planned),
        "task": planned.get("task"),
        "corpus": planned.get("corpus"),
        "mix": " + ".join(planned["mix"]) if "mix" in planned else None,
        "run folder": planned["run_dir"],
        "output": planned["output"],
    }
    for name, value in rows.items():
        if value is not None:
            say(f"  {name:<12}{value}", hanging=14)
    if planned.get("carried"):
        say("  would carry over:")
        carried(planned["carried"])


def _too_large(planned: Mapping[str, Any]) -> str | None:
    """A line for a run whose estimate exceeds the memory of the device."""
    needs, has = planned["peak_bytes"], planned["memory_bytes"]
    if needs <= has:
        return None
    return (
        f"this run needs about {format_bytes(needs)} of memory and would not fit: this machine has {format_bytes(has)} "
        "per process; use a smaller --model or --batch-size, or --micro-batch auto"
    )


def _run(found: Mapping[str, Any]) -> str | None:
    """What would be done with a run that is in the folder."""
    tries, step = found["tries"], found["step"]
    words = {
        "resume": f"resumes from step {step}" if tries is None else f"resumes after {tries} tried donors",
        "restart": "begins again, because the run in the folder has no checkpoint",
        "discard": "discards the run in the folder",
        "complete": f"is complete at step {step}; nothing would be trained",
        "refuse": f"is refused: {found['reason']}",
    }
    return words.get(found["action"])


def _least_time(seconds: float) -> str:
    """The floor of a run's duration; a day or more is worth a second thought."""
    longer = "; `proctool plan` estimates GPUs" if seconds > 3600 else ""
    return f"at least {format_seconds(seconds)} on this machine{longer}"


def _tokens(planned: Mapping[str, Any]) -> str:
    if (procedural := planned.get("procedural_tokens")) is None:
        return format_count(planned["tokens"])
    corpus = planned["tokens"] - procedural
    parts = f"{format_count(corpus)} of the corpus, {format_count(procedural)} procedural"
    return f"{format_count(planned['tokens'])} ({parts})"


def _cut(planned: Mapping[str, Any]) -> str | None:
    if "micro_batch" not in planned:
        return None
    again = "with" if planned["gradient_checkpointing"] else "without"
    return f"{counted(planned['micro_batch'], 'sample')}, {again} gradient checkpointing (chosen by free memory)"


def finished(end: EndEvent, write: Callable[[str], None] = say) -> None:
    """The end of a training command in words."""
    scores = f"validation loss {end.loss:.4f} (nats per token)"
    if end.command == "pretrain" and (perplexity := to_perplexity(end.loss)) is not None:
        scores += f", perplexity {perplexity:.4g}"
    scores += f", accuracy {end.accuracy:.1%}"
    if end.exact_match > 0:
        scores += f", exact match {end.exact_match:.1%}"
    tokens = f"{format_count(end.tokens)} tokens"
    if end.procedural_tokens is not None:
        tokens += f" ({format_count(end.procedural_tokens)} procedural)"
    write(f"{end.command}: {scores}, after {tokens} in {format_seconds(end.seconds or 0)}")
    if end.artifact and end.content:
        say(f"wrote {end.artifact} (content {end.content[:12]}); metrics in {end.run_dir}")
    if end.best_artifact and end.best:
        say(f"wrote {end.best_artifact}, the best model: validation loss {end.best.loss:.4f} at step {end.best.step}")
