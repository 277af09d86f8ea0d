"""What may be done to a tensor on its way from donor to target: controls, embedding starts, other contexts.

All are functions of tensors in float32. `fresh` draws the target's tensor anew; `start` makes the value it has where
nothing is carried, which is the fresh one unless there is a base model.
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

fresh   as the target drew them
scale   as the target drew them, times one number, so that their standard deviation is the donor's
mean    every row the mean of the donor's rows (the paper's "full transfer", section 4)
sample  each row one of the donor's rows, drawn from the seed
copy    the donor's own rows, which asks for the same vocabulary size
"""


@dataclass(frozen=True)
class Treatment:
    """Controls, applied in this order to the donor's tensor (several donors: to their average)."""

    shuffle: bool = False
    """Permute the tensor's values: the same distribution, no structure (the paper's per-tensor shuffle)."""
    match_scale: bool = False
    """Take a fresh tensor instead and give it the donor's standard deviation: only the scale is carried."""
    sharpen: float | Literal["match"] = 1.0
    """Multiply the queries of attention by this factor; match: by each head's own, to have the donor's entropy."""
    noise: float = 0.0
    """Add Gaussian noise, its deviation this fraction of the tensor's root mean square (noise-to-signal ratio)."""
    alpha: float = 1.0
    """How far to go from the start (0) to what was made so far (1), linearly."""

    def __post_init__(self) -> None:
        if self.shuffle and self.match_scale:
            raise OptionError("shuffle and match-scale: the same component cannot be both; choose one")
        if self.sharpen != "match" and not 0 < self.sharpen < math.inf:
            raise OptionError(f"sharpen = {self.sharpen:g}: a factor above 0 on the queries, or match")
        if self.noise < 0:
            raise OptionError(f"noise = {self.noise:g}: a fraction of the weights' size, at least 0")
        if not 0 <= self.alpha <= 1:
            raise OptionError(f"alpha = {self.alpha:g}: must be from 0 (the start) to 1 (the donor)")

    def words(self) -> list[str]:
        """What is done, for people; nothing for a plain carry."""
        said = []
        if self.shuffle:
            said.append("shuffled")
        if self.match_scale:
            said.append("scale only")
        if self.sharpen == "match":
            said.append("as sharp as the donor's, head by head")
        elif self.sharpen != 1:
            said.append(f"queries times {self.sharpen:g}")
        if self.noise:
            said.append(f"noise of {self.noise:g} of its size")
        if self.alpha < 1:
            said.append(f"{self.alpha:g} of the way from the start")
        return said

    def apply(
        self,
        given: Sequence[torch.Tensor],
        start: Callable[[], torch.Tensor],
        fresh: Callable[[], torch.Tensor],
        random: torch.Generator,
        sharpen: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """The target's tensor from its donors' tensors, all of one shape; `sharpen` is what sharpens this one."""
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
    """`fresh` with the standard deviation of `given` (which may be of another shape), about its own mean.

    Norms and biases start as constants, without a direction to scale: they get Gaussian ones about their constant.
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
    """`rows` rows of embedding by one of `EMBEDDINGS`, from the donor's (V, C)."""
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
    """Position embeddings (P, C) for `rows` rows: the first of them, or stretched over all by linear interpolation.

    The first and the last position keep their vectors when stretched. The `offset` rows before the first position
    are carried as they are.
    """
    import torch

    if rows <= len(given):
        return given[:rows]
    head, body = given[:offset], given[offset:]
    stretched = torch.nn.functional.interpolate(
        body.T[None], size=rows - offset, mode="linear", align_corners=True
    )  # (1, C, P)
    return torch.cat([head, stretched[0].T])
