"""What runs in the processes that make batches of one shape, and the shared memory that carries the batches.

Each process makes whole steps, `stretch` of them in a row, in slots that are reused. This file does not import torch,
so that a process starts in a fraction of the time.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proctool.errors import OptionError, ProctoolError, first_line
from proctool.procedural.mixture import parse_tasks
from proctool.procedural.samples import Samples
from proctool.procedural.streams import BLOCK
from proctool.signals import in_worker
from proctool.training.arrays import Arrays, count_targets, padded, padded_length, room_for
from proctool.training.sources import FileSource, Source, TaskSource

_STRETCH = 8 * BLOCK
"""Samples that a process makes in a row. Streams draw whole blocks; the blocks at both ends may be drawn twice."""
_MOST_SLOTS = 256
"""With more slots, both pipes could fill up and each side would wait for the other."""
_RING_BYTES = 64 << 20
_NUMBER = np.dtype("int32")
"""Type of the numbers in a slot. A step has far fewer tokens than int32 can count."""


@dataclass(frozen=True)
class Work:
    """Steps `first`..`last` - 1 of `size` samples of `length` tokens each, in micro-batches of `micro`."""

    make: Callable[[], Source]
    """Makes the source in another process."""
    identity: dict[str, Any]
    """`identity` that the source made there must have."""
    first: int
    last: int
    size: int
    micro: int
    length: int
    processes: int

    @property
    def numbers(self) -> int:
        """Numbers in a slot: tokens, positions and labels, with space for the most targets possible."""
        return 3 * self.size * padded_length(self.length)

    @property
    def stretch(self) -> int:
        """Steps that one process makes in a row: whole blocks of a stream, if they fit."""
        fitting = _RING_BYTES // (2 * self.numbers * _NUMBER.itemsize)
        most = max(1, min(-(-_STRETCH // self.size), _MOST_SLOTS // 2, fitting))
        aligned = math.lcm(self.size, BLOCK) // self.size
        return most // aligned * aligned or most

    @property
    def slots(self) -> int:
        """Slots of one process: one stretch is read while the next is made."""
        return 2 * self.stretch

    def maker(self, step: int) -> int:
        """The process that makes a step."""
        return step // self.stretch % self.processes

    def steps_of(self, process: int) -> Iterator[int]:
        """The steps that a process makes, in order."""
        return (step for step in range(self.first, self.last) if self.maker(step) == process)

    def views(self, slot: NDArray[np.int32], room: int) -> list[Arrays]:
        """A step's micro-batches in a slot, as views: (micro, padded length), (room,), (room,)."""
        tokens = self.micro * padded_length(self.length)
        each = slot[: self.size // self.micro * (tokens + 2 * room)].reshape(-1, tokens + 2 * room)
        return [
            (part[:tokens].reshape(self.micro, -1), part[tokens : tokens + room], part[tokens + room :])
            for part in each
        ]


@dataclass(frozen=True)
class Filled:
    """A slot holds a step."""

    room: int
    targets: int


@dataclass(frozen=True)
class Failed:
    """A process ends because it cannot make its next step."""

    reason: str
    explains: bool
    """Whether the reason is a line for users."""


def identity(source: Source) -> dict[str, Any]:
    """Metadata that identifies a source, equal in all processes."""
    content = {"content": source.file.artifact.content} if isinstance(source, FileSource) else {}
    return {**source.metadata(), **content}


def remaking(source: Source) -> Callable[[], Source] | None:
    """A function that makes the source in another process; None for sources that support only one, such as a corpus."""
    if type(source) is TaskSource:
        return functools.partial(_task_source, source.stream.task.spec, source.stream.seed, source.stream.split)
    if type(source) is FileSource:
        return functools.partial(FileSource, Path(source.file.artifact.path).absolute())
    return None


def _task_source(spec: str, seed: int, split: str) -> Source:
    return TaskSource(parse_tasks(spec), seed, split)


def slots_of(ring: Any, work: Work) -> NDArray[np.int32]:
    """The slots in a process's memory. (slots, numbers)"""
    return np.frombuffer(ring, _NUMBER).reshape(work.slots, work.numbers)


def produce(work: Work, process: int, ring: Any, pipe: Connection) -> None:
    """Run the worker process: send None when the source is made, then `Filled` for each step, or `Failed`."""
    in_worker()
    try:
        pipe.send(_produce(work, process, ring, pipe))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent has closed the pipe or was killed


def _produce(work: Work, process: int, ring: Any, pipe: Connection) -> Failed | None:
    try:
        source = work.make()
        if identity(source) != work.identity:
            raise OptionError("the worker process found other code or another file")
    except Exception as error:  # code of other packages may raise anything
        return _failed(error)
    pipe.send(None)
    slots = slots_of(ring, work)
    for number, step in enumerate(work.steps_of(process)):
        if number >= work.slots:
            pipe.recv()  # a slot is free
        try:
            filled = _fill(work, slots[number % work.slots], source.read(step * work.size, (step + 1) * work.size))
        except Exception as error:
            return _failed(error)
        pipe.send(filled)
    return None


def _failed(error: Exception) -> Failed:
    if isinstance(error, ProctoolError):
        return Failed(str(error), explains=True)
    return Failed(f"{type(error).__name__}: {first_line(error)}", explains=False)


def _fill(work: Work, slot: NDArray[np.int32], samples: Samples) -> Filled:
    starts = range(0, work.size, work.micro)
    parts = [Samples(samples.tokens[at : at + work.micro], samples.targets[at : at + work.micro]) for at in starts]
    room = room_for(parts)
    for part, views in zip(parts, work.views(slot, room), strict=True):
        for view, made in zip(views, padded(part, room), strict=True):
            view[...] = made
    return Filled(room, count_targets(samples))
