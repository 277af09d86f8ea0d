"""Check that tensors of a module in memory can take their new values, before any is changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from proctool.errors import ModelError

if TYPE_CHECKING:
    import torch


def require_memory(label: str, name: str, tensor: torch.Tensor) -> None:
    """Raise ModelError for a tensor on the meta device."""
    if tensor.is_meta:
        raise ModelError(f"{label}: {name} is on the meta device; give the module memory first (to_empty)")


def require_writable(label: str, tensors: Mapping[str, torch.Tensor], made: Mapping[str, torch.Tensor]) -> None:
    """Raise ModelError with the tensor's name unless every value of `made` fits the tensor of its name.

    Tensors on the meta device, sharded tensors, inference tensors and integers cannot take weights; nor can a number
    format that is too small for a value.
    """
    import torch
    from torch.distributed.tensor import DTensor

    for name, value in made.items():
        tensor = tensors[name]
        require_memory(label, name, tensor)
        if isinstance(tensor, DTensor):
            raise ModelError(f"{label}: {name} is sharded; carry weights before the module is sharded")
        if tensor.is_inference():
            raise ModelError(
                f"{label}: {name} was created in inference mode and cannot change; create it outside of it"
            )
        if not tensor.is_floating_point():
            raise ModelError(f"{label}: {name} has type {tensor.dtype}, not floating-point numbers")
        largest = float(value.abs().max()) if value.numel() else 0.0
        if largest > torch.finfo(tensor.dtype).max:
            raise ModelError(
                f"{label}: {name} has type {tensor.dtype}, which cannot hold a weight of {largest:.3g}; use float32"
            )
