"""Samples a second that reach a training step of a small model, from a thread and from processes.

    python -m benchmarks.producers [--task haystack] [--batch 1000] [--seconds 5] [--processes 0,1,2]

No model is trained: this is the most that a GPU could be given.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import time
from collections.abc import Iterator

import psutil
import torch
from accelerate import Accelerator

from proctool.procedural.mixture import parse_tasks
from proctool.training.producers import StepBatches, read_from_producers, work_for
from proctool.training.sources import TaskSource, read_ahead
from proctool.training.step import BATCHES_AHEAD, micro_batches

ENDLESS = 10**9
"""Steps; none comes so far."""


def steps(source: TaskSource, batch: int, processes: int) -> Iterator[StepBatches]:
    """A run's batches."""
    accelerator = Accelerator()
    work = work_for(source, 0, ENDLESS, size=batch, micro=batch, processes=processes)
    if work is None:
        return read_ahead(
            source, 0, ENDLESS, batch, lambda samples: micro_batches(samples, batch, accelerator, True), BATCHES_AHEAD
        )
    return read_from_producers(work, pin=accelerator.device.type == "cuda", otherwise=lambda: iter(()), say=print)


def cpu_seconds() -> list[float]:
    """Processor time of this process and of each that makes batches."""
    made = [psutil.Process(each.pid) for each in multiprocessing.active_children()]
    return [sum(process.cpu_times()[:2]) for process in [psutil.Process(), *made]]


def measure(source: TaskSource, batch: int, processes: int, seconds: float) -> str:
    """Samples a second by the clock, once all slots were filled, and for each second of processor time."""
    taken = steps(source, batch, processes)
    for _ in itertools.islice(taken, max(64, 40_000 * max(processes, 1) // batch)):
        pass
    before, began, done = cpu_seconds(), time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        done += len(next(taken)[0][0].tokens)
    wall = time.perf_counter() - began
    mine, *theirs = (after - start for after, start in zip(cpu_seconds(), before, strict=True))
    text = f"{done / wall:,.0f} samples/s; {done / mine:,.0f} for a second of the run's processor time"
    return f"{text}, {done / sum(theirs):,.0f} for one of the others'" if theirs else text


def main() -> None:
    """Print a line for each number of processes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--task", default="haystack")
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--processes", default="0,1,2")
    given = parser.parse_args()
    torch.set_num_threads(1)
    source = TaskSource(parse_tasks(given.task), seed=0)
    for processes in map(int, given.processes.split(",")):
        found = measure(source, given.batch, processes, given.seconds)
        print(f"{processes or 'a thread'}: {found}; load {os.getloadavg()[0]:.1f}", flush=True)


if __name__ == "__main__":
    main()
