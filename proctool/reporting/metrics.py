"""Reading `metrics.jsonl`: one JSON object per line, written by every training command, read as it grows.

    {"event": "start", "command": "pretrain", "steps": 1000, "tokens_per_step": 4096, "parameters": 250000, ...}
    {"event": "train", "step": 10, "tokens": 40960, "loss": 3.2, "tokens_per_second": 9000, "seconds": 4.5, ...}
    {"event": "eval", "step": 100, "tokens": 409600, "split": "validation", "loss": 2.9, "accuracy": 0.31, ...}
    {"event": "end", "step": 1000, "tokens": 4096000, "seconds": 450.0, "artifact": "...", "content": "<hash>"}

Losses are in nats per token; `seconds` counts from the run's beginning, interruptions left out.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, TypeGuard

from proctool.errors import RunError

FILE = "metrics.jsonl"

Event = dict[str, Any]


class MetricsLog:
    """A run's metrics so far. `update` reads what has been written since the last call.

    An interrupted run goes on from its checkpoint and writes some steps a second time: of each step the last
    writing counts. A torn line, left by a process that was killed, is skipped; an event that holds what cannot be
    (a step that is no number) is a RunError.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._clear()

    def _clear(self) -> None:
        self.start: Event | None = None
        self.train: list[Event] = []
        self.evals: list[Event] = []
        self.end: Event | None = None
        self._offset = 0
        self._tail = b""
        self._inode = 0

    def update(self) -> bool:
        """Read what is new; whether there was anything."""
        try:
            with self.path.open("rb") as file:
                written = os.fstat(file.fileno())
                if written.st_size < self._offset or written.st_ino != self._inode:
                    self._clear()  # written anew: a run that goes on drops what it will do again
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
        try:
            event = json.loads(line)
            kind = event["event"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return
        if kind in ("start", "train", "eval", "extend", "end") and (wrong := _wrong(event)):
            raise RunError(f"{self.path}: a {kind} event with {wrong}; no run writes that, so the file is damaged")
        if kind == "start":
            self.start, self.end = event, None
        elif kind == "extend":  # the run goes on, to more steps than it began with
            self.start, self.end = {**(self.start or {}), **_taken(event, "steps", "flops")}, None
        elif kind == "train":
            _put(self.train, event)
        elif kind == "eval":
            _put(self.evals, event)
        elif kind == "end":
            self.end = event

    @property
    def step(self) -> int:
        """The last step known to be done."""
        return max((int(events[-1]["step"]) for events in (self.train, self.evals) if events), default=0)

    @property
    def steps(self) -> int | None:
        """Steps the run is to take."""
        return _whole(self.start, "steps")

    @property
    def tokens(self) -> int:
        """Tokens trained on so far."""
        if self.end is not None and "tokens" in self.end:
            return int(self.end["tokens"])
        return max((int(events[-1].get("tokens", 0)) for events in (self.train, self.evals) if events), default=0)

    @property
    def seconds(self) -> float | None:
        """Seconds of work so far."""
        if self.end is not None and "seconds" in self.end:
            return float(self.end["seconds"])
        return float(self.train[-1]["seconds"]) if self.train and "seconds" in self.train[-1] else None

    def measured(self, quantity: str, split: str = "validation") -> tuple[list[int], list[float]]:
        """Tokens seen and `quantity` ("loss", "accuracy", ...) at each evaluation on `split` that gives it."""
        points = [
            (int(event["tokens"]), float(event[quantity]))
            for event in self.evals
            if event.get("split", "validation") == split and _finite(event.get(quantity)) and "tokens" in event
        ]
        return [tokens for tokens, _ in points], [value for _, value in points]


def read_metrics(folder: Path) -> MetricsLog:
    """The metrics of a run folder. Raises RunError where there are none."""
    log = MetricsLog(folder)
    if not folder.is_dir():
        raise RunError(f"{folder}: no such run folder")
    log.update()
    if log.start is None and not log.evals:
        what = "holds no run's events" if log.path.exists() else "missing; is this the folder of a run?"
        raise RunError(f"{log.path}: {what}")
    return log


def _put(events: list[Event], event: Event) -> None:
    """Add an event where its step belongs, in place of what an interrupted attempt had written from there on.

    Evaluations on other splits stay. Looks at the end alone, so a record of any length is read in one pass.
    """
    others = []
    while events and events[-1]["step"] >= event["step"]:
        last = events.pop()
        if last.get("split") != event.get("split"):
            others.append(last)
    events += [event, *reversed(others)]


_COUNTS = ("step", "steps", "tokens", "seconds", "flops", "parameters", "seed")
_MOST = 1e30


def _wrong(event: Event) -> str | None:
    """What no training command writes, or None."""
    for key in _COUNTS:
        value = event.get(key, 0)
        if not (_finite(value) and not isinstance(value, bool) and 0 <= value <= _MOST):
            return f"{key} = {value!r:.40}"
    if event["event"] in ("train", "eval") and "step" not in event:
        return "no step"
    if not isinstance(event.get("content", ""), str):
        return f"content = {event['content']!r:.40}"
    carried = event.get("carried") or []
    if not (
        isinstance(carried, list)
        and all(isinstance(row, dict) and {"component", "source"} <= row.keys() for row in carried)
    ):
        return f"carried = {carried!r:.40}"
    return None


def _taken(event: Event, *keys: str) -> Event:
    return {key: event[key] for key in keys if key in event}


def _whole(event: Event | None, key: str) -> int | None:
    value = (event or {}).get(key)
    return int(value) if _finite(value) else None


def _finite(value: Any) -> TypeGuard[int | float]:
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False
