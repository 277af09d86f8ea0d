"""The metrics of a run, read while the run writes them."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path
from typing import TypeVar

from proctool.errors import RunError
from proctool.events import FILE, EndEvent, EvalEvent, ExtendEvent, StartEvent, TrainEvent, TryEvent, read_event
from proctool.training.run_state import State, is_written, run_state

Recorded = TypeVar("Recorded", TrainEvent, EvalEvent)


class MetricsLog:
    """A run's metrics so far. `update` reads what has been written since the last call.

    A resumed run starts at its checkpoint and records some steps a second time; the last record of a step counts. An
    incomplete line, left by a killed process, is skipped; an event with an impossible value (a step that is not a
    number) is a RunError.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._clear()

    def _clear(self) -> None:
        self.start: StartEvent | None = None
        self.train: list[TrainEvent] = []
        self.evals: list[EvalEvent] = []
        self.end: EndEvent | None = None
        self.tries: list[TryEvent] = []
        self._offset = 0
        self._tail = b""
        self._inode = 0

    def update(self) -> bool:
        """Read new events; returns whether there were any."""
        try:
            with self.path.open("rb") as file:
                written = os.fstat(file.fileno())
                if written.st_size < self._offset or written.st_ino != self._inode:
                    self._clear()  # rewritten: a resumed run drops the steps that it will repeat
                    self._inode = written.st_ino
                file.seek(self._offset)
                new = file.read()
        except FileNotFoundError:
            return False
        self._offset += len(new)
        *lines, self._tail = (self._tail + new).split(b"\n")
        for line in lines:
            self._take(line)
        return bool(lines)

    def _take(self, line: bytes) -> None:
        match read_event(line, self.path):
            case StartEvent() as event:
                self.start, self.end = event, None
            case ExtendEvent() as event:
                self.end = None
                if self.start is not None:
                    self.start = dataclasses.replace(self.start, steps=event.steps, flops=event.flops)
            case TrainEvent() as event:
                _put(self.train, event)
            case EvalEvent() as event:
                _put(self.evals, event)
            case TryEvent() as event:
                self.tries = [each for each in self.tries if each.number < event.number] + [event]
            case EndEvent() as event:
                self.end = event

    @property
    def step(self) -> int:
        """The last step known to be complete."""
        return max((events[-1].step for events in (self.train, self.evals) if events), default=0)

    @property
    def steps(self) -> int | None:
        """Total steps of the run."""
        return self.start.steps if self.start is not None else None

    @property
    def tokens(self) -> int:
        """Tokens trained on so far."""
        if self.end is not None:
            return self.end.tokens
        return max((events[-1].tokens or 0 for events in (self.train, self.evals) if events), default=0)

    @property
    def spent_tokens(self) -> int:
        """Tokens of all that it took: every donor and every probe, where donors had to be accepted."""
        return sum(each.tokens for each in self.tries) if self.tries else self.tokens

    @property
    def seconds(self) -> float | None:
        """Seconds of training so far, across resumes."""
        if self.end is not None and self.end.seconds is not None:
            return self.end.seconds
        return self.train[-1].seconds if self.train else None

    def state(self, output: Path | None = None, *, trains: bool = True) -> State:
        """The run's state by `run_state`; a command that does not train is done once its output exists."""
        if not trains:
            return "done" if output is not None and is_written(output) else "missing"
        return run_state(self.path.parent, began=self.start is not None, end=self.end, output=output)

    def measured(self, quantity: str, split: str = "validation") -> tuple[list[int], list[float]]:
        """Tokens seen and `quantity` ("loss", "accuracy", ...) at each evaluation on `split` that gives it."""
        points = [
            (event.tokens, getattr(event, quantity))
            for event in self.evals
            if event.split == split and event.tokens is not None and math.isfinite(getattr(event, quantity))
        ]
        return [tokens for tokens, _ in points], [value for _, value in points]


def read_metrics(folder: Path) -> MetricsLog:
    """The metrics of a run folder. Raises RunError if there are none."""
    log = MetricsLog(folder)
    if not folder.is_dir():
        raise RunError(f"{folder}: no such run folder")
    log.update()
    if log.start is None and not log.evals:
        what = "has no events of a run" if log.path.exists() else "no such file; give the folder of a run"
        raise RunError(f"{log.path}: {what}")
    return log


def _put(events: list[Recorded], event: Recorded) -> None:
    """Add an event at its step; it replaces what an interrupted attempt recorded from that step on.

    Evaluations on other splits stay. Only the end of the list is examined, so reading stays linear.
    """
    others: list[Recorded] = []
    while events and events[-1].step >= event.step:
        last = events.pop()
        if getattr(last, "split", None) != getattr(event, "split", None):
            others.append(last)
    events.append(event)
    events.extend(reversed(others))
