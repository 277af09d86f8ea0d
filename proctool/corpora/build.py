"""Build the missing part of a token store: workers get parts in order until there are enough tokens."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from proctool import locks
from proctool.corpora.shards import Shard, ShardJob, build_part, existing
from proctool.errors import CorpusError
from proctool.signals import in_worker, spawning, start_tracker
from proctool.workers import another_main, end_with_parent, usable_cores

_WORTH_A_PROCESS = 24 << 20
"""Bytes of text below which tokenising in this process is faster than starting workers."""
_BYTES_PER_TOKEN = 5
"""A high estimate of bytes per token, to find how many parts a budget needs."""


@dataclass(frozen=True)
class Goal:
    """When to stop: after the first shards that have `wanted` tokens or bytes of `split`."""

    split: str
    what: str = "tokens"
    wanted: int | None = None


@dataclass(frozen=True)
class BuildProgress:
    """The progress of a build. Counts include shards from earlier builds."""

    documents: int = 0
    bytes: int = 0
    tokens: int = 0
    parts_done: int = 0
    parts: int = 0
    goal: Goal | None = None
    waiting: bool = False
    """Another process is building the same store."""


Listener = Callable[[BuildProgress], None]


def prefix(parts: Sequence[Sequence[Shard]], goal: Goal) -> list[Shard] | None:
    """The shards in order up to the goal or the end; None if a needed shard is missing."""
    taken: list[Shard] = []
    total = 0
    for shards in parts:
        for shard in shards:
            if goal.wanted is not None and total >= goal.wanted:
                return taken
            taken.append(shard)
            total += shard.count(goal.split, goal.what)
        if goal.wanted is not None and total >= goal.wanted:
            return taken
        if not (shards and shards[-1].last):
            return None
    return taken


def build(
    jobs: Sequence[ShardJob],
    goal: Goal,
    *,
    workers: int | None = None,
    skip_bad: bool = False,
    listen: Listener | None = None,
) -> list[Shard]:
    """The shards of `jobs` up to the goal; missing shards are built first.

    At most `workers` processes run (default: one per core). Raises CorpusError; finished shards are kept.
    """
    made = [existing(job.folder, job.key) for job in jobs]
    found = prefix(made, goal)
    if found is not None:
        return found
    processes = _processes(jobs, goal, workers)
    ledger = _Ledger(jobs, made, goal, listen)
    if processes == 1:
        _build_here(jobs, ledger, skip_bad)
    else:
        _build_in_processes(jobs, ledger, skip_bad, processes)
    found = prefix(ledger.made, goal)
    assert found is not None, "every part was built"
    return found


def _processes(jobs: Sequence[ShardJob], goal: Goal, workers: int | None) -> int:
    sizes = [job.part.size or job.block for job in jobs]
    scale = _BYTES_PER_TOKEN if goal.what == "tokens" else 1
    enough = sum(sizes) if goal.wanted is None else min(sum(sizes), goal.wanted * scale)
    needed = next((count for count, total in enumerate(itertools.accumulate(sizes), 1) if total >= enough), len(sizes))
    work = sum(job.part.work or job.block for job in jobs[:needed])
    if work < _WORTH_A_PROCESS and workers is None:
        return 1
    return max(1, min(workers or usable_cores(), needed))


class _Ledger:
    """The finished shards, the running parts, and the progress listener."""

    def __init__(self, jobs: Sequence[ShardJob], made: list[list[Shard]], goal: Goal, listen: Listener | None) -> None:
        self.made = made
        self.goal = goal
        self._listen = listen
        before = [shard.splits[split] for shards in made for shard in shards for split in shard.splits]
        documents, size, tokens = (sum(counts[what] for counts in before) for what in ("documents", "bytes", "tokens"))
        self._progress = BuildProgress(documents, size, tokens, parts=len(jobs), goal=goal)

    def add(self, documents: int, size: int, tokens: int) -> None:
        """Count a batch and report the progress."""
        now = self._progress
        self._progress = replace(
            now, documents=now.documents + documents, bytes=now.bytes + size, tokens=now.tokens + tokens
        )
        self.tell()

    def tell(self) -> None:
        """Report the progress."""
        if self._listen:
            done = sum(bool(shards) and shards[-1].last for shards in self.made)
            self._listen(replace(self._progress, parts_done=done))

    def finished(self) -> bool:
        """Whether the goal is reached."""
        return prefix(self.made, self.goal) is not None

    def stop_at(self, number: int) -> tuple[str, int] | None:
        """The most that part `number` can contribute, given the parts before it so far."""
        if self.goal.wanted is None:
            return None
        before = sum(shard.count(self.goal.split, self.goal.what) for part in self.made[:number] for shard in part)
        return self.goal.what, max(1, self.goal.wanted - before)


def _build_here(jobs: Sequence[ShardJob], ledger: _Ledger, skip_bad: bool) -> None:
    for number, job in enumerate(jobs):
        if ledger.finished():
            return
        ledger.made[number] = build_part(job, ledger.add, stop_at=ledger.stop_at(number), skip_bad=skip_bad)
        ledger.tell()


def _build_in_processes(jobs: Sequence[ShardJob], ledger: _Ledger, skip_bad: bool, processes: int) -> None:
    start_tracker()
    context = multiprocessing.get_context("spawn")
    counters, stop = context.Array("q", 3), context.Event()
    threads = max(1, usable_cores() // processes)
    unfinished = iter([n for n, shards in enumerate(ledger.made) if not (shards and shards[-1].last)])
    running: dict[Future[list[Shard]], int] = {}
    told = [0, 0, 0]
    with ProcessPoolExecutor(processes, context, _start_worker, (counters, stop, threads)) as pool:
        try:
            while not ledger.finished():
                # In order, at most one part per worker ahead, so that little work exceeds the budget.
                for number in itertools.islice(unfinished, processes - len(running)):
                    with another_main(), spawning():
                        future = pool.submit(_work, jobs[number], ledger.stop_at(number), skip_bad)
                    running[future] = number
                done, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in done:
                    ledger.made[running.pop(future)] = future.result()
                now = list(counters[:])
                ledger.add(*(new - old for new, old in zip(now, told, strict=True)))
                told = now
        except BrokenProcessPool:
            raise CorpusError(
                "a tokenising process was killed (out of memory?); finished shards are kept; run again, "
                "with fewer --workers if it happens again"
            ) from None
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


class _Stopped(Exception):
    """The result of this worker is no longer needed."""


_shared: dict[str, Any] = {}


def _start_worker(counters: Any, stop: Any, threads: int) -> None:
    in_worker()
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    _shared.update(counters=counters, stop=stop)
    end_with_parent()  # otherwise workers would continue and then wait forever


def _work(job: ShardJob, stop_at: tuple[str, int] | None, skip_bad: bool) -> list[Shard]:
    counters, stop = _shared["counters"], _shared["stop"]

    def report(*added: int) -> None:
        if stop.is_set():
            raise _Stopped
        with counters.get_lock():
            for place, number in enumerate(added):
                counters[place] += number

    with contextlib.suppress(_Stopped):
        return build_part(job, report, stop_at=stop_at, skip_bad=skip_bad)
    return []


@contextlib.contextmanager
def locked(folder: Path, listen: Listener | None = None) -> Iterator[None]:
    """Hold the folder's lock; the system releases it when the process ends.

    On a file system without locks, two builders only repeat each other's work, because shards appear complete and have
    names that depend on their contents.
    """

    def waiting() -> None:
        if listen:
            listen(BuildProgress(waiting=True))

    with locks.take(folder / ".lock", waiting) or contextlib.nullcontext():
        yield
