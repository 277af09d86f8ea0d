"""Rotary positions in the ways that models apply them, on heads (batch, heads, tokens, size)."""

from __future__ import annotations

import torch


def angles(tokens: int, size: int, base: float) -> torch.Tensor:
    """(tokens, size / 2)"""
    rates = base ** (-torch.arange(0, size, 2).float() / size)
    return torch.outer(torch.arange(tokens).float(), rates)


def in_halves(heads: torch.Tensor, base: float, turned: int | None = None, sign: int = 1) -> torch.Tensor:
    """Row i turns with row i + turned / 2; rows from `turned` on stay."""
    turned = heads.shape[-1] if turned is None else turned
    angle = sign * angles(heads.shape[-2], turned, base)
    first, second, rest = heads.split([turned // 2, turned // 2, heads.shape[-1] - turned], dim=-1)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)


def in_pairs(heads: torch.Tensor, base: float) -> torch.Tensor:
    """Row 2i turns with row 2i + 1, as one complex number."""
    angle = angles(heads.shape[-2], heads.shape[-1], base)
    numbers = torch.view_as_complex(heads.reshape(*heads.shape[:-1], -1, 2).contiguous())
    return torch.view_as_real(numbers * torch.polar(torch.ones_like(angle), angle)).flatten(-2)


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Causal attention with grouped heads: (batch, heads, tokens, size) to (batch, tokens, heads * size)."""
    mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    return mixed.transpose(1, 2).flatten(2)


def heads_of(rows: torch.Tensor, count: int) -> torch.Tensor:
    """(batch, tokens, count * size) to (batch, count, tokens, size)"""
    return rows.unflatten(-1, (count, -1)).transpose(1, 2)
