"""Reads the numbers of a step some steps later, so that the host never waits for the device within a step.

The host queues work ahead of the device. Reading a number at once would drain the queue, and the device would then wait
for the host. Each step's numbers are instead copied to pinned memory after its kernels and read up to LAG steps later,
but always before an evaluation, a checkpoint or the end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from proctool.training.guard import Judged

if TYPE_CHECKING:
    from proctool.training.checkpoint import Position
    from proctool.training.engine import Engine

LAG = 8
"""Steps by which the device may lag; usually fewer than the steps between log lines."""


def lag_of(engine: Engine) -> int:
    """By how many steps to read late; 0 reads at once.

    It is 0 on CPUs, which do not queue work; with a gradient scaler, which reads numbers in each step to decide whether
    to skip it; for engines that step early; and with Muon, which does not support `hold`.
    """
    is_late = engine.accelerator.device.type == "cuda" and engine.accelerator.scaler is None
    return LAG if is_late and engine.holds and not engine.steps_early else 0


class Readout:
    """A few numbers on their way from the device to the host."""

    def __init__(self, numbers: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if numbers.is_cuda:
            host = torch.empty_like(numbers, device="cpu", pin_memory=True)
            numbers = host.copy_(numbers, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()
        self._numbers = numbers

    def read(self) -> list[float]:
        """Wait for the copy and return the numbers."""
        if self._event is not None:
            self._event.synchronize()
        return self._numbers.tolist()


@dataclass(frozen=True)
class StepTaken:
    """A step whose numbers are still to be read."""

    readout: Readout
    """What `Guard.judge` returned."""
    before: Position
    """Progress of the run before the step."""
    random: Mapping[str, Tensor]
    """The states of this process's generators before the step."""
    after: Position
    rate: float
    is_logged: bool
    targets: int = 1
    procedural: int | None = None
    """Targets of the step and of its procedural rows, as in `StepBatches`."""


class LateSteps:
    """A queue that passes each step with its numbers to `settle`, in order, after `lag` more steps or on `flush`.

    `settle` may raise to end the run; later steps are then discarded.
    """

    def __init__(self, lag: int, settle: Callable[[StepTaken, Judged], None]) -> None:
        self.lag, self._settle = lag, settle
        self._waiting: deque[StepTaken] = deque()

    def add(self, step: StepTaken) -> None:
        """Add the latest step and settle the one that is `lag` steps old."""
        self._waiting.append(step)
        self._settle_down_to(self.lag)

    def flush(self) -> None:
        """Wait for the device and settle all steps."""
        self._settle_down_to(0)

    def _settle_down_to(self, count: int) -> None:
        while len(self._waiting) > count:
            step = self._waiting.popleft()
            self._settle(step, Judged.of(step.readout.read()))
