"""The learning rate as a pure function of the step, and its factors by component."""

from __future__ import annotations

import math
from collections.abc import Sequence

from proctool import config
from proctool.errors import OptionError
from proctool.models.components import COMPONENTS, parse_components

_DECAY_SHARE = 0.2
"""Share of the steps at the end of a WSD schedule in which the rate falls (https://arxiv.org/abs/2405.18392)."""


def learning_rate(step: int, *, steps: int, peak: float, schedule: str, ramp_steps: int, final: float) -> float:
    """The learning rate of optimiser step `step` (from 0) of `steps`; `final` is a fraction of `peak`."""
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


def lr_factors(written: Sequence[str]) -> dict[str, float]:
    """Parse learning rate factors such as `attention=0.5`; returns them by component, in the standard order.

    Factors of 1 are left out. Raises OptionError.
    """
    found: dict[str, float] = {}
    for each in written:
        name, equals, value = (part.strip() for part in each.partition("="))
        if not equals:
            raise OptionError(f"lr_of: {each}: write component=factor, such as attention=0.5")
        parse_components([*found, name], "lr_of")
        found[name] = config.convert(value, float, f"lr_of: {name}")
        if found[name] <= 0:
            raise OptionError(f"lr_of: {name} = {value}: must be above 0; --train freezes components")
    return {name: found[name] for name in COMPONENTS if found.get(name, 1.0) != 1.0}


def lr_options(written: Sequence[str] | None) -> tuple[str, ...] | None:
    """Learning rate factors in their one written form; None if no factor differs from 1. Raises OptionError."""
    return tuple(f"{name}={factor!r}" for name, factor in lr_factors(written or ()).items()) or None
