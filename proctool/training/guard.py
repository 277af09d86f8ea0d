"""Looks at the gradient before each step, so that a bad one never reaches the weights.

The look happens on the device, without a wait for it: the verdict is a tensor that the optimiser obeys, and the host
reads it some steps later (`late.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

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
        return f"{what} of {self.value:.3g} is more than {self.limit:g} times its median of {self.usual:.3g}"

    def advice(self) -> str:
        """How to go on."""
        if self.limit is not None:
            return "to continue anyway, use a larger --spike or none; or lower --lr or --clip in another --run-dir"
        return "lower --lr, or raise --ramp-steps or lower --clip"


@dataclass(frozen=True)
class Judged:
    """A step as the guard saw it, on the host."""

    is_bad: bool
    """Whether this step, or one before it, is not to be taken."""
    loss: float
    norm: float
    usual: float
    """Median norm of the steps before; only with `spike`."""
    procedural: float = 0.0
    """The part of the loss that is of procedural rows among corpus rows."""

    @classmethod
    def of(cls, row: Sequence[float]) -> Judged:
        """What `Guard.judge` gave, once it is read."""
        return cls(bool(row[0]), *row[1:])


class Guard:
    """Objects to gradients that are not finite, or more than `spike` times the median of the last hundred steps'.

    Sources of the second: PaLM (Chowdhery et al., section 5.1) on loss spikes; the gradient's norm shows them first.
    """

    def __init__(self, spike: float | None, device: torch.device | str = "cpu") -> None:
        self.spike = spike
        self._dtype = torch.float32 if torch.device(device).type == "mps" else torch.float64  # MPS has no float64
        self._recent = torch.full((_WINDOW,), math.inf, dtype=self._dtype, device=device)  # the newest last
        self.stopped = torch.zeros((), device=device)
        """1 from the first bad step on, else 0; () float32, changed in place. Fused AdamW obeys it as `found_inf`."""

    @torch.no_grad()
    def judge(self, loss: Tensor, norm: Tensor, *, scaled: bool = False) -> Tensor:
        """What `Judged` reads of a step's loss and gradient norm, both (); (4,). Later bad steps change nothing.

        The norm alone tells, since a loss that is not finite has no finite gradient. With a gradient scaler
        (`scaled`) infinite gradients are expected, and only the loss tells.
        """
        loss, norm = loss.detach().to(self._dtype), norm.detach().to(self._dtype)
        bad = ~torch.isfinite(loss if scaled else norm)
        usual = norm
        if self.spike is not None:
            size = torch.where(torch.isfinite(norm), norm, 0.0) if scaled else norm
            seen = torch.isfinite(self._recent).sum()
            middle = torch.stack([(seen - 1).clamp_min(0), seen]) // 2
            usual = self._recent.sort().values.index_select(0, middle).sum() / 2
            bad |= (seen >= _LEAST) & (size > self.spike * usual)
            is_kept = bad | (self.stopped > 0)
            self._recent.copy_(torch.where(is_kept, self._recent, torch.cat([self._recent[1:], size[None]])))
        self.stopped.copy_(torch.maximum(self.stopped, bad.float()))
        return torch.stack([self.stopped.to(self._dtype), loss, norm, usual])

    def objection(self, judged: Judged) -> Objection | None:
        """What is wrong with a step; None where nothing is."""
        if not judged.is_bad:
            return None
        if not math.isfinite(judged.loss):
            return Objection("loss", judged.loss)
        if not math.isfinite(judged.norm):
            return Objection("norm", judged.norm)
        return Objection("norm", judged.norm, self.spike, judged.usual)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"recent": [norm for norm in self._recent.tolist() if math.isfinite(norm)]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` gave."""
        if recent := state["recent"]:
            self._recent[-len(recent) :] = self._recent.new_tensor(recent)
