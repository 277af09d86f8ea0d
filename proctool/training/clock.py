"""How long a run takes, and how fast it is."""

from __future__ import annotations

import time


class Clock:
    """Seconds of all sittings, and tokens a second since the last time of asking."""

    def __init__(self, seconds: float, tokens: int) -> None:
        self._began = time.monotonic() - seconds
        self._asked, self._tokens = time.monotonic(), tokens
        self._still: float | None = None

    def seconds(self) -> float:
        """Since the run began, interruptions left out."""
        return round(time.monotonic() - self._began, 3)

    def leave_out(self, seconds: float) -> None:
        """Do not count these against the speed."""
        self._asked += seconds

    def stand_still(self, seconds: float) -> None:
        """Training waited for a checkpoint: leave that out, and remember it."""
        self.leave_out(seconds)
        self._still = (self._still or 0.0) + seconds

    def stood_still(self) -> float | None:
        """Seconds that training waited for checkpoints since the last call; None without one."""
        still, self._still = self._still, None
        return None if still is None else round(still, 3)

    def speed(self, tokens: int) -> float:
        """Tokens a second since the last call, at so many in all."""
        now = time.monotonic()
        speed = (tokens - self._tokens) / max(now - self._asked, 1e-9)
        self._asked, self._tokens = now, tokens
        return speed
