"""Batches of one shape from processes, for steps that take samples faster than one core can draw them.

Results are those of `read_ahead`, bit for bit: a step's samples follow from its number.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
from collections.abc import Callable, Generator, Iterator
from multiprocessing.context import SpawnContext
from typing import Any

import torch
from torch import Tensor

from proctool.errors import RunError
from proctool.signals import spawning
from proctool.training.batch import Batch, StepBatches
from proctool.training.ring import Failed, Work, identity, produce, remaking, slots_of
from proctool.training.sources import Source
from proctool.workers import another_main, usable_cores

MOST_PRODUCERS = 8


def producers_for(asked: int | None, device: str) -> int:
    """How many processes make batches of one shape: those asked for, else on CUDA one for each other core, up to 8."""
    if multiprocessing.current_process().daemon:  # it may have no children
        return 0
    if asked is not None:
        return asked
    return min(usable_cores() - 1, MOST_PRODUCERS) if device == "cuda" else 0


def work_for(source: Source, first: int, last: int, *, size: int, micro: int, processes: int) -> Work | None:
    """What processes are to make of a source; None where a thread is to make it.

    Raises OptionError where a task of another package cannot make samples.
    """
    make = remaking(source)
    if make is None or not processes or first >= last:
        return None
    work = Work(make, identity(source), first, last, size, micro, source.length, processes)
    stretches = (last - 1) // work.stretch - first // work.stretch + 1
    return dataclasses.replace(work, processes=min(processes, stretches))


def read_from_producers(
    work: Work, *, pin: bool, otherwise: Callable[[], Iterator[StepBatches]], say: Callable[[str], None]
) -> Generator[StepBatches, None, None]:
    """The steps of `work` in order, made by processes that end with this generator; `pin`: in pinned memory.

    Where they cannot start, `say` hears why and the steps are those of `otherwise`. Raises RunError when one fails.
    """
    with contextlib.ExitStack() as held:
        producers, reason = _started(work, held)
        if not reason:
            for step in range(work.first, work.last):
                yield producers[work.maker(step)].take(pin)
            return
    say(f"batches are made in a thread, since processes cannot make them: {reason}")
    yield from otherwise()


class _Producer:
    """One process, its slots and the pipe to it."""

    def __init__(self, work: Work, number: int, context: SpawnContext) -> None:
        ring = context.RawArray("i", work.slots * work.numbers)
        self._work, self._slots, self._taken = work, slots_of(ring, work), 0
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=produce, args=(work, number, ring, theirs), daemon=True)
        try:
            with another_main(), spawning():
                self._process.start()
        except OSError:
            self._pipe.close()
            raise
        finally:
            theirs.close()

    def reason_not_to_start(self) -> str | None:
        """Wait until the process has its source; why it does not."""
        try:
            failed: Failed | None = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            return "one ended before it had begun"
        return failed.reason if failed else None

    def take(self, pin: bool) -> StepBatches:
        """The process's next step, in tensors of its own."""
        try:
            said: Any = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            raise RunError(
                "a process that makes batches was killed (out of memory?); give the command again to go on from the "
                "last checkpoint, with --producers 0 if it happens again"
            ) from None
        if isinstance(said, Failed):
            raise RunError(
                said.reason
                if said.explains
                else f"a process that makes batches failed ({said.reason}); --producers 0 shows where"
            )
        slot = self._slots[self._taken % self._work.slots]
        batches = [Batch(*(_copy(view, pin) for view in views)) for views in self._work.views(slot, said.room)]
        self._taken += 1
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has made its last step, or says why next
            self._pipe.send(None)
        return StepBatches(batches, said.targets)

    def close(self) -> None:
        """End the process: nothing that it holds can be lost."""
        self._process.kill()
        self._process.join()
        self._process.close()
        self._pipe.close()


def _started(work: Work, held: contextlib.ExitStack) -> tuple[list[_Producer], str | None]:
    """The processes, each with its source; or why there are none."""
    context = multiprocessing.get_context("spawn")
    producers = []
    try:
        for number in range(work.processes):
            producers.append(_Producer(work, number, context))
            held.callback(producers[-1].close)
    except OSError as error:
        return [], str(error)
    return producers, next(filter(None, [each.reason_not_to_start() for each in producers]), None)


def _copy(view: Any, pin: bool) -> Tensor:
    # torch gives pinned memory again only once the copies from it to the device are done.
    return torch.empty(view.shape, dtype=torch.int64, pin_memory=pin).copy_(torch.from_numpy(view))
