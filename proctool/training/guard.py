"""Looks at the gradient before each step, so that a bad one never reaches the weights."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

_WINDOW = 100
"""Steps whose median is the usual size of a gradient."""
_LEAST = 20
"""Steps before that median means anything."""


@dataclass(frozen=True)
class Objection:
    """Why a step is not taken: the loss or the gradient's norm is not finite, or the norm is a spike."""

    quantity: Literal["loss", "norm"]
    value: float
    limit: float | None = None
    """How many times the usual norm it may be; None where the value is not finite."""
    usual: float | None = None
    """Median norm of the last hundred steps."""

    def words(self) -> str:
        """What is wrong."""
        what = "the loss" if self.quantity == "loss" else "the gradient's norm"
        if self.limit is None:
            return f"{what} is {self.value}"
        return f"{what} of {self.value:.3g} is over {self.limit:g} times its median of {self.usual:.3g}"

    def advice(self) -> str:
        """How to go on."""
        if self.limit is not None:
            return "to go on regardless, give a larger --spike or none; or lower --lr or --clip in another --run-dir"
        return "lower --lr, or raise --ramp-steps or lower --clip"


class Guard:
    """Objects to gradients that are not finite, or more than `spike` times the median of the last hundred steps'.

    Sources of the second: PaLM (Chowdhery et al., section 5.1) on loss spikes; the gradient's norm shows them first.
    """

    def __init__(self, spike: float | None) -> None:
        self.spike = spike
        self.recent: deque[float] = deque(maxlen=_WINDOW)

    def objection(self, loss: float, norm: float) -> Objection | None:
        """What is wrong with a step of this loss and gradient norm; None where nothing is."""
        if not math.isfinite(loss):
            return Objection("loss", loss)
        if not math.isfinite(norm):
            return Objection("norm", norm)
        if self.spike is not None:
            if len(self.recent) >= _LEAST and norm > self.spike * (usual := statistics.median(self.recent)):
                return Objection("norm", norm, self.spike, usual)
            self.recent.append(norm)
        return None

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"recent": list(self.recent)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` gave."""
        self.recent.extend(state["recent"])
