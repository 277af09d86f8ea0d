"""Conversion of tensors to the requested number format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from proctool.errors import ModelError

if TYPE_CHECKING:
    import torch

Dtype = Literal["fp32", "bf16", "fp16"]
_TORCH = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def torch_dtype(dtype: str) -> torch.dtype:
    """torch's number format for fp32, bf16 or fp16."""
    import torch

    found: torch.dtype = getattr(torch, _TORCH[dtype])
    return found


def cast(name: str, value: torch.Tensor, dtype: str) -> torch.Tensor:
    """A copy of a tensor in `dtype`. Raises ModelError if a number is too large for `dtype`."""
    made = value.to(torch_dtype(dtype), copy=True).contiguous()
    if dtype != "fp32" and not made.isfinite().all():
        raise ModelError(f"tensor {name} has numbers too large for {dtype}; export as bf16 or fp32")
    return made
