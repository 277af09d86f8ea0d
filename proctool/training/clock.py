"""How long a run takes, and how fast it is."""

from __future__ import annotations

import time


class Clock:
    """Seconds of all sittings, and tokens a second since the last time of asking."""

    def __init__(self, seconds: float, tokens: int) -> None:
        self._began = time.monotonic() - seconds
        self._asked, self._tokens = time.monotonic(), tokens

    def seconds(self) -> float:
        """Since the run began, interruptions left out."""
        return round(time.monotonic() - self._began, 3)

    def leave_out(self, seconds: float) -> None:
        """Do not count these against the speed."""
        self._asked += seconds

    def speed(self, tokens: int) -> float:
        """Tokens a second since the last call, at so many in all."""
        now = time.monotonic()
        speed = (tokens - self._tokens) / max(now - self._asked, 1e-9)
        self._asked, self._tokens = now, tokens
        return speed
