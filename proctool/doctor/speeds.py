"""What is measured: products of matrices, the disk, and a task's stream beside the model that trains on it."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from proctool.doctor.facts import Disk, Feed, Products
from proctool.doctor.found import free_bytes
from proctool.procedural.registry import parse_spec
from proctool.training.batch import Batch, by_length
from proctool.training.devices import device_peak
from proctool.training.sources import TaskSource

MODEL = "2x4x16"
"""The paper's diagnostic model: steps are so short that the stream must be fast."""
TASKS = ("haystack", "dyck:k=16,length=128")

_PRODUCTS_SECONDS = 0.5
_LAYER_SECONDS = 0.1
_DISK_SECONDS, _DISK_BYTES, _PIECE = 1.0, 128 << 20, 8 << 20
_FEED_SECONDS = 0.5
_TOKENS = 1 << 14
"""In a step, about: enough to keep a core busy, and few enough to take several steps."""


def products(on: torch.device, precision: str, size: int | None = None) -> Products:
    """Products of square matrices in fp32, bf16 or fp16: the fastest of those that half a second allows."""
    size = size or (8192 if on.type == "cuda" else 1024)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    left, right = (torch.randn(size, size, device=on).to(dtype) for _ in range(2))
    seconds = fastest(lambda: left @ right, on, _PRODUCTS_SECONDS)
    return Products(precision=precision, size=size, flops=2 * size**3 / seconds, peak=device_peak(on, precision))


def layer_flops(on: torch.device, precision: str, width: int) -> float:
    """FLOP/s of the largest product in a layer of this width: 4096 tokens by an MLP's first matrix.

    On a CPU one thread is timed and counted for all, because several wait for each other on a busy machine.
    """
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    tokens, weight = (torch.randn(*shape, device=on).to(dtype) for shape in ((4096, width), (width, 4 * width)))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = fastest(lambda: tokens @ weight, on, _LAYER_SECONDS)
    finally:
        torch.set_num_threads(threads)
    return 2 * 4096 * width * 4 * width / seconds * (threads if on.type == "cpu" else 1)


def fastest(work: Callable[[], object], on: torch.device, limit: float, least: int = 2) -> float:
    """Seconds of `work` at its fastest, repeated for about `limit` seconds; the first call warms up."""
    work()
    _wait_for(on)
    best, began, calls = float("inf"), time.perf_counter(), 0
    while calls < least or time.perf_counter() - began < limit:
        start = time.perf_counter()
        work()
        _wait_for(on)
        best = min(best, time.perf_counter() - start)
        calls += 1
    return best


def _wait_for(on: torch.device) -> None:
    if on.type != "cpu":
        torch.accelerator.synchronize(on)


def disk(folder: Path) -> Disk:
    """Write a file, fsync it and remove it: no more than a second allows."""
    free = free_bytes(folder) or 0
    piece = os.urandom(_PIECE)  # some file systems leave zeros out
    written, seconds = 0, 0.0
    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=folder) as file:
        began = time.perf_counter()
        while not written or (written < min(_DISK_BYTES, free // 2) and time.perf_counter() - began < _DISK_SECONDS):
            file.write(piece)
            file.flush()
            os.fsync(file.fileno())
            written += len(piece)
        seconds = time.perf_counter() - began
    return Disk(folder=str(folder), written=written / seconds if written and seconds else None, free=free)


def feed(spec: str, on: torch.device) -> Feed:
    """Samples a second of a task's stream, and of fp32 training steps of MODEL on them."""
    source = TaskSource(parse_spec(spec), seed=0)
    batch = max(1, _TOKENS // source.length)
    at = 0

    def make() -> None:
        nonlocal at
        source.read(at, at + 1024)  # one block of the stream
        at += 1024

    made = 1024 / fastest(make, torch.device("cpu"), _FEED_SECONDS)
    return Feed(task=spec, model=MODEL, made=made, eaten=batch / _step_seconds(source, on, batch))


def _step_seconds(source: TaskSource, on: torch.device, batch: int) -> float:
    from proctool.models.build import build_model, model_config
    from proctool.models.faster import faster
    from proctool.training.loss import TargetLoss
    from proctool.training.optimiser import make_optimiser

    config = model_config(MODEL, vocab_size=source.vocab_size, context=source.length)
    model = build_model(config, 0).to(on).train()
    samples = source.read(0, batch)
    parts = [Batch.of(part, on) for part in by_length(samples)]

    def step() -> None:
        for part in parts:
            module(part.tokens, part.positions, part.labels).backward()
        optimiser.step()
        optimiser.zero_grad()

    with faster(model):
        module = TargetLoss(model)
        optimiser = make_optimiser(module, lr=1e-3, weight_decay=0.1, beta2=0.95)
        return fastest(step, on, _FEED_SECONDS)
