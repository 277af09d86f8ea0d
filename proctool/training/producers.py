"""Worker processes that make batches of one shape, for steps that consume samples faster than one core draws them.

The batches have the same bits as those of `read_ahead`, because the step number determines a step's samples.
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
    """The number of worker processes: `asked`, or by default one per other core on CUDA (up to 8) and 0 elsewhere."""
    if multiprocessing.current_process().daemon:  # daemons may not have child processes
        return 0
    if asked is not None:
        return asked
    return min(usable_cores() - 1, MOST_PRODUCERS) if device == "cuda" else 0


def work_for(source: Source, first: int, last: int, *, size: int, micro: int, processes: int) -> Work | None:
    """Describe the work of the worker processes; None if a thread must make the batches instead.

    Raises OptionError if a task from another package cannot make samples.
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
    """Yield the steps of `work` in order, from processes that end with this generator. `pin` uses pinned memory.

    If the processes cannot start, calls `say` with the reason and yields the steps of `otherwise`. Raises RunError if a
    process fails later.
    """
    with contextlib.ExitStack() as held:
        producers, reason = _started(work, held)
        if not reason:
            for step in range(work.first, work.last):
                yield producers[work.maker(step)].take(pin)
            return
    say(f"batches are made in a thread, because worker processes cannot start: {reason}")
    yield from otherwise()


class _Producer:
    """One worker process, its slots in shared memory and the pipe to it."""

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
        """Wait until the process has made its source. Returns the reason if it cannot, otherwise None."""
        try:
            failed: Failed | None = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            return "a process ended while it was starting"
        return failed.reason if failed else None

    def take(self, pin: bool) -> StepBatches:
        """The process's next step, copied out of shared memory. Raises RunError if the process died or failed."""
        try:
            said: Any = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            raise RunError(
                "a process that makes batches was killed (out of memory?); run the command again to resume from the "
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
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has finished, or will say why it failed
            self._pipe.send(None)
        return StepBatches(batches, said.targets)

    def close(self) -> None:
        """Kill the process; it holds nothing that must be saved."""
        self._process.kill()
        self._process.join()
        self._process.close()
        self._pipe.close()


def _started(work: Work, held: contextlib.ExitStack) -> tuple[list[_Producer], str | None]:
    """Start the processes. Returns them, and the reason if one cannot start or make its source."""
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
    # torch reuses pinned memory only after copies from it to the device are complete.
    return torch.empty(view.shape, dtype=torch.int64, pin_memory=pin).copy_(torch.from_numpy(view))
