"""Numbers of a step, read some steps later, so that the host never waits for the device within a step.

A device runs behind the host by what was queued. To read a number at once empties that queue, and then the device
waits for the host. So each step's numbers travel to pinned memory behind its work and are read up to LAG steps later,
at the latest before an evaluation, a checkpoint or the end.
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
"""Steps that a device may be behind; fewer than a log line usually has."""


def lag_of(engine: Engine) -> int:
    """Steps to read late by; 0 reads at once.

    CPUs compute at once. A gradient scaler has a rule of its own for steps to leave out, and reads it each step. An
    engine that steps early has nothing to hold back, and Muon cannot be held back by the device.
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
        """The numbers, once they are there."""
        if self._event is not None:
            self._event.synchronize()
        return self._numbers.tolist()


@dataclass(frozen=True)
class StepTaken:
    """A step whose numbers are still to be read."""

    readout: Readout
    """What `Guard.judge` gave."""
    before: Position
    """How far the run was."""
    random: Mapping[str, Tensor]
    """The states of this process's generators before the step."""
    after: Position
    rate: float
    is_logged: bool
    targets: int = 1
    procedural: int | None = None
    """Targets of the step, and those of its procedural rows, as `StepBatches` has them."""


class LateSteps:
    """Steps in their order, each handed to `settle` with its numbers once `lag` more are taken, or on `flush`.

    `settle` raises to end the run; what came after that step is forgotten.
    """

    def __init__(self, lag: int, settle: Callable[[StepTaken, Judged], None]) -> None:
        self.lag, self._settle = lag, settle
        self._waiting: deque[StepTaken] = deque()

    def add(self, step: StepTaken) -> None:
        """Take in the latest step, and settle what is `lag` steps old."""
        self._waiting.append(step)
        self._settle_down_to(self.lag)

    def flush(self) -> None:
        """Settle every step: wait for the device."""
        self._settle_down_to(0)

    def _settle_down_to(self, count: int) -> None:
        while len(self._waiting) > count:
            step = self._waiting.popleft()
            self._settle(step, Judged.of(step.readout.read()))
