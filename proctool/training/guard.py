"""Checks the gradient before each step, so that a bad one never reaches the weights.

The check runs on the device and the host does not wait for it. Its verdict is a tensor that the optimiser obeys and
that the host reads some steps later (`late.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

_WINDOW = 100
"""Steps over which the median gradient norm is taken."""
_LEAST = 20
"""Steps needed before the median is used."""


@dataclass(frozen=True)
class Objection:
    """Why a step is not taken: the loss or the gradient's norm is not finite, or the norm is a spike."""

    quantity: Literal["loss", "norm"]
    value: float
    limit: float | None = None
    """The largest allowed multiple of the usual norm; None if the value is not finite."""
    usual: float | None = None
    """Median norm of the last hundred steps."""

    def words(self) -> str:
        """What is wrong."""
        what = "the loss" if self.quantity == "loss" else "the gradient's norm"
        if self.limit is None:
            return f"{what} is {self.value}"
        return f"{what} of {self.value:.3g} is more than {self.limit:g} times its median of {self.usual:.3g}"

    def advice(self) -> str:
        """What the user can do."""
        if self.limit is not None:
            return "to continue anyway, use a larger --spike or none; or lower --lr or --clip in another --run-dir"
        return "lower --lr, or raise --ramp-steps or lower --clip"


@dataclass(frozen=True)
class Judged:
    """The guard's verdict on a step, on the host."""

    is_bad: bool
    """Whether this step or an earlier one is bad."""
    loss: float
    norm: float
    usual: float
    """Median norm of the steps before; with `spike` only."""
    procedural: float = 0.0
    """The part of the loss from procedural rows."""

    @classmethod
    def of(cls, row: Sequence[float]) -> Judged:
        """Make it from the numbers that `Guard.judge` returned."""
        return cls(bool(row[0]), *row[1:])


class Guard:
    """Objects to gradient norms that are not finite, or above `spike` times the median of the last hundred steps.

    Source of the spike rule: PaLM (Chowdhery et al., section 5.1) on loss spikes. The gradient's norm shows them before
    the loss does.
    """

    def __init__(self, spike: float | None, device: torch.device | str = "cpu") -> None:
        self.spike = spike
        self._dtype = torch.float32 if torch.device(device).type == "mps" else torch.float64  # MPS has no float64
        self._recent = torch.full((_WINDOW,), math.inf, dtype=self._dtype, device=device)  # the newest last
        self.stopped = torch.zeros((), device=device)
        """1 from the first bad step on, else 0; () float32, changed in place. Fused AdamW obeys it as `found_inf`."""

    @torch.no_grad()
    def judge(self, loss: Tensor, norm: Tensor, *, scaled: bool = False) -> Tensor:
        """Judge a step by its loss and gradient norm, both (). Returns the fields of `Judged`, (4,).

        Checking the norm is enough, because a loss that is not finite has no finite gradient. A gradient scaler
        (`scaled`) expects occasional infinite gradients, so the loss is checked instead. Once a step is bad, later ones
        do not change the guard's state.
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
        """What is wrong with a step; None if it is good."""
        if not judged.is_bad:
            return None
        if not math.isfinite(judged.loss):
            return Objection("loss", judged.loss)
        if not math.isfinite(judged.norm):
            return Objection("norm", judged.norm)
        return Objection("norm", judged.norm, self.spike, judged.usual)

    def state(self) -> dict[str, Any]:
        """The state that a checkpoint stores."""
        return {"recent": [norm for norm in self._recent.tolist() if math.isfinite(norm)]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        if recent := state["recent"]:
            self._recent[-len(recent) :] = self._recent.new_tensor(recent)
