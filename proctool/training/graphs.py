"""An optimiser step as one CUDA graph, for models so small that launching kernels takes longer than running them.

A graph replays the kernels of a recorded step on the same memory. Batches are therefore copied into fixed buffers, and
the learning rate and the number of targets are tensors. Each shape of batches has its own graph, which is recorded
after a few normal training steps with that shape.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from proctool.errors import first_line
from proctool.training.batch import AnyBatch
from proctool.training.engine import Engine
from proctool.training.guard import Guard
from proctool.training.late import Readout
from proctool.training.step import Step

WARMING = 3
"""Steps before a recording. In these, libraries choose their kernels and allocate their workspaces."""
_KEPT = 8
"""Graphs to keep. A length curriculum stops using the graphs of shorter samples."""


class Capture(Protocol):
    """Records what a function does on the device."""

    def warm(self, body: Callable[[], None]) -> None:
        """Run `body` under the conditions of a recording."""

    def record(self, body: Callable[[], None]) -> Callable[[], None]:
        """Record `body` without running it. Returns a function that replays it. Raises RuntimeError."""


class CudaCapture:
    """CUDA graphs. Source: PyTorch's notes on CUDA semantics, whole-network capture."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def warm(self, body: Callable[[], None]) -> None:
        """Run `body` on the stream that recordings use."""
        present = torch.cuda.current_stream()
        self._stream.wait_stream(present)
        with torch.cuda.stream(self._stream):
            body()
        present.wait_stream(self._stream)

    def record(self, body: Callable[[], None]) -> Callable[[], None]:
        """Record `body` without running it. Returns a function that replays it on the current stream."""
        graph = torch.cuda.CUDAGraph()
        # Other threads pin memory at the same time, which fails the recording in stricter modes.
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            body()
        return graph.replay


class _Recording:
    """Fixed buffers for a step's batches, and the recorded step that reads them."""

    def __init__(self, batches: Sequence[AnyBatch], device: torch.device) -> None:
        self.batches = [
            type(batch)(*(torch.empty_like(tensor, device=device) for tensor in batch)) for batch in batches
        ]
        self.targets, self.judged = torch.empty((), device=device), torch.empty(0)
        self.warmed = 0
        self.replay: Callable[[], None] | None = None

    def load(self, batches: Sequence[AnyBatch], targets: int) -> None:
        """Copy a step's batches into the buffers."""
        for mine, given in zip(self.batches, batches, strict=True):
            for held, tensor in zip(mine, given, strict=True):
                held.copy_(tensor, non_blocking=True)
        self.targets.fill_(targets)


class GraphStep(Step):
    """Replays recorded steps. If recording fails, calls `note` with the reason and takes steps without it."""

    def __init__(
        self,
        engine: Engine,
        guard: Guard,
        clip: float | None,
        lag: int,
        capture: Capture,
        note: Callable[[str], None],
    ) -> None:
        assert lag, "a recorded step cannot read the verdict before it changes the weights"
        super().__init__(engine, guard, clip, lag)
        self._capture: Capture | None = capture
        self._note = note
        self._recordings: OrderedDict[object, _Recording] = OrderedDict()
        engine.make_capturable()

    def __call__(self, batches: Sequence[AnyBatch], targets: int, rate: float, *, is_logged: bool) -> Readout:
        """As `Step.__call__`. After recording, a step costs one launch."""
        self.engine.set_learning_rate(rate)
        step = self._recording_for(batches)
        step.load(batches, targets)

        def body() -> None:
            # `is_logged` would only add a sum over processes, and there is one process.
            judged = self.take(step.batches, step.targets, is_logged=False)
            step.judged = judged

        if step.replay is None and step.warmed >= WARMING and self._capture is not None:
            try:
                step.replay = self._capture.record(body)
            except RuntimeError as error:
                self._capture = None
                self.engine.forget_gradients()
                self._note(f"CUDA graphs do not work here ({first_line(error)}); continuing without them")
        if step.replay is not None:
            step.replay()
        elif self._capture is not None:
            self._capture.warm(body)
            step.warmed += 1
        else:
            body()
        return Readout(step.judged.clone())  # the next replay writes to the same memory

    def _recording_for(self, batches: Sequence[AnyBatch]) -> _Recording:
        shapes = tuple(tensor.shape for batch in batches for tensor in batch)
        if shapes not in self._recordings:
            self._recordings[shapes] = _Recording(batches, self.accelerator.device)
            if len(self._recordings) > _KEPT:
                self._recordings.popitem(last=False)
        self._recordings.move_to_end(shapes)
        return self._recordings[shapes]


def capture_for(engine: Engine, lag: int, *, plain: bool) -> Capture | None:
    """The capture for this engine's steps, or None if they cannot be recorded.

    Recording needs a single process on CUDA, a `lag` (which excludes gradient scalers and DeepSpeed), and `plain`
    steps: not compiled, and without gradient checkpointing, which saves random states on the host.
    """
    alone = engine.accelerator.num_processes == 1 and engine.accelerator.device.type == "cuda"
    return CudaCapture(engine.accelerator.device) if alone and lag and plain else None
