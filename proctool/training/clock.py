"""Time and speed of a run."""

from __future__ import annotations

import time


class Clock:
    """Total seconds across resumes, and tokens per second since the last call of `speed`."""

    def __init__(self, seconds: float, tokens: int) -> None:
        self._began = time.monotonic() - seconds
        self._asked, self._tokens = time.monotonic(), tokens
        self._still: float | None = None

    def seconds(self) -> float:
        """Seconds since the run began, without interruptions."""
        return round(time.monotonic() - self._began, 3)

    def leave_out(self, seconds: float) -> None:
        """Exclude these seconds from the speed."""
        self._asked += seconds

    def stand_still(self, seconds: float) -> None:
        """Exclude seconds in which training waited for a checkpoint, and add them to `stood_still`."""
        self.leave_out(seconds)
        self._still = (self._still or 0.0) + seconds

    def stood_still(self) -> float | None:
        """Seconds that training waited for checkpoints since the last call; None without one."""
        still, self._still = self._still, None
        return None if still is None else round(still, 3)

    def speed(self, tokens: int) -> float:
        """Tokens per second since the last call; `tokens` is the total so far."""
        now = time.monotonic()
        speed = (tokens - self._tokens) / max(now - self._asked, 1e-9)
        self._asked, self._tokens = now, tokens
        return speed
