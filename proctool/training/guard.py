"""Looks at the gradient before each step, so that a bad one never reaches the weights."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping
from typing import Any

_WINDOW = 100
"""Steps whose median is the usual size of a gradient."""
_LEAST = 20
"""Steps before that median means anything."""


class Guard:
    """Objects to gradients that are not finite, or more than `spike` times the median of the last hundred steps'.

    Sources of the second: PaLM (Chowdhery et al., section 5.1) on loss spikes; the gradient's norm shows them first.
    """

    def __init__(self, spike: float | None) -> None:
        self.spike = spike
        self.recent: deque[float] = deque(maxlen=_WINDOW)

    def objection(self, loss: float, norm: float) -> str | None:
        """What is wrong with a step of this loss and gradient norm; None where nothing is."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(norm):
            return f"the gradient's norm is {norm}"
        if self.spike is not None:
            if len(self.recent) >= _LEAST and norm > self.spike * (usual := statistics.median(self.recent)):
                return f"the gradient's norm of {norm:.3g} is over {self.spike:g} times its median of {usual:.3g}"
            self.recent.append(norm)
        return None

    def advice(self, objection: str) -> str:
        """How to go on after an objection."""
        if "median" in objection:
            return "to go on regardless, give a larger --spike or none; or lower --lr or --clip in another --run-dir"
        return "lower --lr, or raise --ramp-steps or lower --clip"

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"recent": list(self.recent)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` gave."""
        self.recent.extend(state["recent"])
