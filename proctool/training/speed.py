"""How fast this machine is at the parts of a training step, measured; and the kernels that a step starts."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from proctool.procedural.samples import Samples
from proctool.training.batch import Batch, by_length

_LAYER_SECONDS = 0.1
_PRODUCT_FLOPS = 4 * 10**9
"""Of one product on a CPU, about."""
_STEP_SECONDS = 0.3
_TINY, _TINY_LAYERS = "2x2x16", 2
"""A model whose step takes hardly any arithmetic."""

GPU_KERNEL_SECONDS = 3.4e-6
"""A GPU's time for one short kernel in a recorded sequence of many: an assumption, not a measurement. Without a
recording, starting a kernel from Python takes several times longer."""

_KERNELS_OF_A_STEP = 57
"""Of the embeddings, the head, the loss, clipping and AdamW."""
_KERNELS_OF_A_LAYER = {"fp32": 31, "tf32": 31}
_KERNELS_OF_A_CAST_LAYER = 52


def step_kernels(layers: int, precision: str, parts: int = 1) -> int:
    """Kernels of a step of `parts` micro-batches, as `benchmarks/counts.py` counts them for GPT-2.

    Other families have more: a Llama has three times as many. So this is a lower bound.
    """
    return _KERNELS_OF_A_STEP + parts * layers * _KERNELS_OF_A_LAYER.get(precision, _KERNELS_OF_A_CAST_LAYER)


@functools.cache
def kernel_seconds(device_type: str) -> float:
    """Seconds that a step takes for each of its kernels, if they have nothing to compute.

    On a CPU this is measured with one thread: a step of a tiny model, for each of its `step_kernels`.
    """
    if device_type != "cpu":
        return GPU_KERNEL_SECONDS
    samples = Samples(np.zeros((1, 16), np.uint32), np.ones((1, 16), bool))
    with _one_thread():
        seconds = step_seconds(_TINY, samples, 257, torch.device("cpu"), _STEP_SECONDS)
    return seconds / step_kernels(_TINY_LAYERS, "fp32")


@functools.cache
def layer_flops(on: torch.device, precision: str, width: int) -> float:
    """FLOP/s of the largest product in a layer of this width: up to 4096 tokens by an MLP's first matrix.

    On a CPU one thread is timed and counted for all. A wide layer takes fewer tokens there, so that a product takes a
    fraction of a second.
    """
    rows = 4096 if on.type != "cpu" else min(4096, max(128, _PRODUCT_FLOPS // (8 * width**2)))
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    tokens, weight = (torch.randn(*shape, device=on).to(dtype) for shape in ((rows, width), (width, 4 * width)))
    with _one_thread():
        seconds = fastest(lambda: tokens @ weight, on, _LAYER_SECONDS)
    return 8 * rows * width**2 / seconds * (torch.get_num_threads() if on.type == "cpu" else 1)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Several threads wait for each other on a busy machine: a tiny step then takes up to a second."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def seconds_at_least(
    flops: float, steps: int, *, layers: int, width: int, precision: str, parts: int = 1, processes: int = 1
) -> float:
    """What a training takes on this machine at least: its FLOPs if every product is as fast as a layer's largest one,
    or its steps if their kernels compute nothing."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    device = device or torch.device("cpu")
    started = steps * step_kernels(layers, precision, parts) * kernel_seconds(device.type)
    return max(flops / layer_flops(device, precision, width) / processes, started)


def step_seconds(model: str, samples: Samples, vocab_size: int, on: torch.device, limit: float) -> float:
    """Seconds of an fp32 training step of `model` on `samples` at its fastest, repeated for `limit` seconds."""
    from proctool.models.build import build_model, model_config
    from proctool.models.faster import faster
    from proctool.training.loss import TargetLoss
    from proctool.training.optimiser import make_optimiser

    config = model_config(model, vocab_size=vocab_size, context=samples.tokens.shape[1])
    built = build_model(config, 0).to(on).train()
    parts = [Batch.of(part, on) for part in by_length(samples)]

    def step() -> None:
        for part in parts:
            module(part.tokens, part.positions, part.labels).backward()
        optimiser.step()
        optimiser.zero_grad()

    with faster(built):
        module = TargetLoss(built)
        optimiser = make_optimiser(module, lr=1e-3, weight_decay=0.1, beta2=0.95)
        return fastest(step, on, limit)


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
