"""One step of training looked into: kernels by time, which attention ran, and where the host waits for the GPU."""

from __future__ import annotations

import contextlib
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity
from torch.profiler import profile as profiler

import proctool
from benchmarks.gpu_job import Found, make_job, wait
from proctool.events import Event, TrainEvent


def profile(model: str, context: int, batch: int, vocabulary: int, **changes: Any) -> Found:
    """Kernels of a step by time, which attention ran, and every line that makes the host wait for the GPU."""
    on_gpu = torch.cuda.is_available()
    waits: dict[str, int] = {}
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    watch, watching = profiler(activities=activities), contextlib.ExitStack()
    steps = 3

    def listen(event: Event) -> None:
        if not isinstance(event, TrainEvent):
            return
        if event.step == 6 and on_gpu:
            watching.enter_context(_waits_noted(waits))
        if event.step == 6 + steps:
            watching.close()
            watch.__enter__()
        if event.step == 6 + 2 * steps:
            wait()
            watch.__exit__(None, None, None)

    with tempfile.TemporaryDirectory() as folder:
        job = make_job(Path(folder), model, context, batch, 8 + 2 * steps, vocabulary, log_every=1, **changes)[1]
        job.listeners = [listen]
        job.run()
    spent = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    rows = [(each.key, each.count / steps, getattr(each, spent, 0) / 1000 / steps) for each in watch.key_averages()]
    rows = sorted((row for row in rows if row[2] > 0), key=lambda row: -row[2])
    named = ("flash", "fmha", "cudnn", "sdpa", "attention", "efficient", "small_heads")
    return {
        "host_waits_in_3_steps": waits if on_gpu else None,
        "kernels_per_step": sum(row[1] for row in rows),
        "milliseconds_per_step": sum(row[2] for row in rows),
        "attention": [row for row in rows if any(name in row[0].lower() for name in named)][:6],
        "longest": rows[:25],
    }


@contextlib.contextmanager
def _waits_noted(waits: dict[str, int]) -> Iterator[None]:
    """While the block lasts, count each line of proctool below which the host waits for the GPU."""
    package = str(Path(proctool.__file__).parent)

    def note(message: Any, category: Any, filename: str, line: int, *rest: Any) -> None:
        if "synchroniz" in str(message):
            ours = [each for each in traceback.extract_stack() if each.filename.startswith(package)]
            where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "elsewhere"
            key = f"{where} through {Path(filename).name}:{line}"
            waits[key] = waits.get(key, 0) + 1

    with warnings.catch_warnings():
        warnings.showwarning = note
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")
