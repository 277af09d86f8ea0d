"""Stopping when asked to: SIGTERM (a cluster's preemption), Ctrl-C, SIGHUP (a terminal that is gone)."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accelerate import Accelerator


_CAUGHT = (signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))


class Stop:
    """True once a stop signal has come; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.came = False

    def __bool__(self) -> bool:
        return self.came

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """The handler of the signals."""
        if self.came and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.came = True

    def agreed(self, accelerator: Accelerator, may_meet: bool) -> bool:
        """Whether to stop now. Signals reach processes at different steps, so several agree when they meet to log."""
        if accelerator.num_processes == 1:
            return self.came
        if not may_meet:
            return False
        import torch

        return bool(accelerator.reduce(torch.tensor(float(self.came), device=accelerator.device)) > 0)


class stop_signals:
    """SIGTERM, SIGINT and SIGHUP set a flag instead of killing the process, while the block lasts.

    SIGHUP is what a dropped ssh session sends; where it is ignored (nohup) it stays so.
    """

    def __enter__(self) -> Stop:
        stop = Stop()
        self._before: Mapping[int, Any] = {}
        with contextlib.suppress(ValueError):  # not the main thread: signals go elsewhere
            caught = [number for number in _CAUGHT if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, stop) for number in caught}
        return stop

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def command_again() -> str:
    """How to start this command once more."""
    command = "proctool " + shlex.join(sys.argv[1:])
    launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return f"{command} (launched as before)" if launched else command
