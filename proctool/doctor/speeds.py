"""What is measured: products of matrices, the disk, and a task's stream beside the model that trains on it."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from pathlib import Path

import torch

from proctool.doctor.facts import Disk, Feed, Products
from proctool.doctor.found import free_bytes
from proctool.procedural.registry import parse_spec
from proctool.training.devices import device_peak
from proctool.training.sources import TaskSource
from proctool.training.speed import fastest, step_seconds

MODEL = "2x4x16"
"""The paper's diagnostic model: steps are so short that the stream must be fast."""
TASKS = ("haystack", "dyck:k=16,length=128")

_PRODUCTS_SECONDS = 0.5
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
    eaten = step_seconds(MODEL, source.read(0, batch), source.vocab_size, on, _FEED_SECONDS)
    return Feed(task=spec, model=MODEL, made=made, eaten=batch / eaten)
