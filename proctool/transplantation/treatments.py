"""How tensors can be changed between donor and target: controls, embedding starts, other contexts.

All functions work on tensors in float32. `fresh` draws a new tensor of the target; `start` gives its value before the
transplant, which is the fresh one unless there is a base model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from proctool.errors import OptionError

if TYPE_CHECKING:
    import torch

EMBEDDINGS = ("fresh", "scale", "mean", "sample", "copy")
"""Starts for the token embeddings (and an untied head):

fresh   random rows
scale   random rows, scaled to the donor's standard deviation
mean    every row is the mean of the donor's rows (the paper's "full transfer", section 4)
sample  every row is a random row of the donor
copy    the donor's rows; needs the same vocabulary size
"""


@dataclass(frozen=True)
class Treatment:
    """Controls, applied in this order to the donor's tensor, or to the average of several donors."""

    shuffle: bool = False
    """Permute the tensor's values: the same distribution, no structure (the paper's per-tensor shuffle)."""
    match_scale: bool = False
    """Use a fresh tensor with the donor's standard deviation: only the scale is carried."""
    sharpen: float | Literal["match"] = 1.0
    """Multiply the queries of attention by this factor; match: one factor per head, to reach the donor's entropy."""
    noise: float = 0.0
    """Add Gaussian noise with this fraction of the tensor's root mean square as its deviation (noise-to-signal)."""
    alpha: float = 1.0
    """Linear interpolation from the start (0) to the result so far (1)."""

    def __post_init__(self) -> None:
        if self.shuffle and self.match_scale:
            raise OptionError("shuffle and match-scale: a component can have only one of them; choose one")
        if self.sharpen != "match" and not 0 < self.sharpen < math.inf:
            raise OptionError(f"sharpen = {self.sharpen:g}: must be a factor above 0, or match")
        if self.noise < 0:
            raise OptionError(f"noise = {self.noise:g}: must be at least 0, as a fraction of the weights' size")
        if not 0 <= self.alpha <= 1:
            raise OptionError(f"alpha = {self.alpha:g}: must be from 0 (the start) to 1 (the donor)")

    def words(self) -> list[str]:
        """A description for users; empty without a control."""
        said = []
        if self.shuffle:
            said.append("shuffled")
        if self.match_scale:
            said.append("scale only")
        if self.sharpen == "match":
            said.append("sharpened to the donor's entropy per head")
        elif self.sharpen != 1:
            said.append(f"queries times {self.sharpen:g}")
        if self.noise:
            said.append(f"with noise of {self.noise:g} of its size")
        if self.alpha < 1:
            said.append(f"interpolated {self.alpha:g} from the start")
        return said

    def apply(
        self,
        given: Sequence[torch.Tensor],
        start: Callable[[], torch.Tensor],
        fresh: Callable[[], torch.Tensor],
        random: torch.Generator,
        sharpen: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """The target's tensor from its donors' tensors, all of one shape; `sharpen` sharpens it."""
        import torch

        made = given[0] if len(given) == 1 else torch.stack(list(given)).mean(0)
        if self.shuffle:
            made = made.flatten()[torch.randperm(made.numel(), generator=random)].view(made.shape)
        elif self.match_scale:
            made = with_deviation(fresh(), made, random)
        if sharpen is not None:
            made = sharpen(made)
        if self.noise:
            size = self.noise * made.square().mean().sqrt()
            made = made + size * torch.randn(made.shape, generator=random)
        return made if self.alpha == 1 else torch.lerp(start(), made, self.alpha)


def with_deviation(fresh: torch.Tensor, given: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """`fresh` with the standard deviation of `given` (which may have another shape), around its own mean.

    Norms and biases start as constants, which cannot be scaled: they get Gaussian values around the constant.
    """
    import torch

    wanted, mean = given.std(correction=0), fresh.mean()
    spread = fresh.std(correction=0)
    if spread == 0:
        return mean + wanted * torch.randn(fresh.shape, generator=random)
    return mean + (fresh - mean) * (wanted / spread)


def embedding_rows(
    way: str,
    rows: int,
    given: torch.Tensor,
    fresh: Callable[[], torch.Tensor],
    random: torch.Generator,
) -> torch.Tensor:
    """`rows` embedding rows by one of `EMBEDDINGS`, from the donor's (V, C)."""
    import torch

    if way == "copy":
        return given
    if way == "scale":
        drawn = fresh()
        return drawn * (given.std() / drawn.std())
    if way == "mean":
        return given.mean(0, keepdim=True).expand(rows, -1)
    if way == "sample":
        return given[torch.randint(given.shape[0], (rows,), generator=random)]
    raise ValueError(way)


def resize_positions(given: torch.Tensor, rows: int, offset: int) -> torch.Tensor:
    """Position embeddings (P, C) for `rows` rows: the first rows, or stretched by linear interpolation.

    Stretching keeps the vectors of the first and the last position. The `offset` rows before the first position are
    copied.
    """
    import torch

    if rows <= len(given):
        return given[:rows]
    head, body = given[:offset], given[offset:]
    stretched = torch.nn.functional.interpolate(
        body.T[None], size=rows - offset, mode="linear", align_corners=True
    )  # (1, C, P)
    return torch.cat([head, stretched[0].T])
