"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

_DECAY_SHARE = 0.2
"""The last part of a WSD run, over which its rate falls (https://arxiv.org/abs/2405.18392)."""


def learning_rate(step: int, *, steps: int, peak: float, schedule: str, ramp_steps: int, final: float) -> float:
    """The rate for optimiser step `step` (0-based) of `steps`; `final` is a fraction of `peak`."""
    if step < ramp_steps:
        return peak * (step + 1) / ramp_steps
    done = min(1.0, (step - ramp_steps) / max(1, steps - ramp_steps))  # an extended run keeps the final rate
    if schedule == "constant":
        share = 1.0
    elif schedule == "linear":
        share = 1 - done
    elif schedule == "cosine":
        share = (1 + math.cos(math.pi * done)) / 2
    elif schedule == "wsd":
        share = min(1.0, (1 - done) / _DECAY_SHARE)
    else:
        raise ValueError(schedule)
    return peak * (final + (1 - final) * share) if schedule != "constant" else peak
