"""Conversion between layouts (fused or split projections, transposed weights, rotary layouts) and a common form.

In the common form each part is a tensor, weights are (outputs, inputs), and query and key rotate in halves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proctool.foreign.mapping import Rotary, TensorRule

if TYPE_CHECKING:
    import torch

_ROTATED = ("query", "key", "query_norm", "key_norm")
_PER_HEAD = {"query": "query", "key": "groups", "value": "groups"}


@dataclass(frozen=True)
class HeadSizes:
    """The attention heads of a model."""

    query: int
    groups: int
    """Key-value heads."""
    size: int
    """Rows of a head."""

    def of(self, part: str) -> int:
        """The number of heads of `part` (query, key or value)."""
        return self.query if part == "query" else self.groups


def outputs(rule: TensorRule, shape: Sequence[int]) -> int:
    """The number of outputs of a tensor with this shape: its rows, unless it is stored transposed."""
    return shape[1] if rule.transposed and len(shape) == 2 else shape[0]


def head_rows(rule: TensorRule, heads: HeadSizes | None) -> list[int] | None:
    """Rows of each part of fused query, key and value; None for other parts."""
    if heads is None or not all(part in _PER_HEAD for part in rule.parts):
        return None
    return [heads.of(part) * heads.size for part in rule.parts]


def split(value: torch.Tensor, rule: TensorRule, heads: HeadSizes | None, rotary: Rotary | None) -> list[torch.Tensor]:
    """The parts of a tensor in the common form."""
    if rule.transposed and value.ndim == 2:
        value = value.T
    if len(rule.parts) < 2:
        found = [value]
    elif rule.grouped:
        assert heads is not None, "checked when the model was taken apart"
        counts = [heads.of(part) // heads.groups for part in rule.parts]
        fused = value.reshape(heads.groups, sum(counts), heads.size, *value.shape[1:])
        found = [each.reshape(-1, *value.shape[1:]) for each in fused.split(counts, dim=1)]  # type: ignore[no-untyped-call]
    else:
        rows = head_rows(rule, heads) or len(value) // len(rule.parts)
        found = list(value.split(rows))  # type: ignore[no-untyped-call]
    return [_rotated(each, part, heads, rotary, "in") for each, part in zip(found, rule.parts or ("",), strict=True)]


def join(
    parts: Sequence[torch.Tensor], rule: TensorRule, heads: HeadSizes | None, rotary: Rotary | None
) -> torch.Tensor:
    """The tensor made of `parts`, which have the common form."""
    import torch

    ready = [_rotated(each, part, heads, rotary, "out") for each, part in zip(parts, rule.parts or ("",), strict=True)]
    if len(ready) == 1:
        value = ready[0]
    elif rule.grouped:
        assert heads is not None, "checked when the model was taken apart"
        tail = ready[0].shape[1:]
        value = torch.cat([each.reshape(heads.groups, -1, heads.size, *tail) for each in ready], dim=1)
        value = value.reshape(-1, *tail)
    else:
        value = torch.cat(ready)
    return value.T if rule.transposed and value.ndim == 2 else value


def _rotated(value: torch.Tensor, part: str, heads: HeadSizes | None, rotary: Rotary | None, way: str) -> torch.Tensor:
    """Query or key with rows permuted between a model's rotary layout and halves."""
    import torch

    if part not in _ROTATED or rotary in (None, "halves"):
        return value
    assert heads is not None, "checked when the model was taken apart"
    half, tail = heads.size // 2, value.shape[1:]
    if rotary == "pairs":
        inner = (half, 2) if way == "in" else (2, half)
        return value.reshape(-1, *inner, *tail).transpose(1, 2).reshape(value.shape)
    if part.endswith("norm"):
        return value  # a gain for each row is the same in both directions
    first, second = value.reshape(-1, 2, half, *tail).unbind(1)
    return torch.stack((first, -second), dim=1).reshape(value.shape)
