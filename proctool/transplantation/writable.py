"""Whether tensors of a module in memory can take the values made for them, asked before any is changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from proctool.errors import ModelError

if TYPE_CHECKING:
    import torch


def require_writable(label: str, tensors: Mapping[str, torch.Tensor], made: Mapping[str, torch.Tensor]) -> None:
    """Raise ModelError, naming the tensor, unless every value of `made` fits the tensor of its name.

    Tensors without memory, sharded ones, those of inference mode and whole numbers cannot take weights; nor can a
    number format whose largest number a value exceeds.
    """
    import torch
    from torch.distributed.tensor import DTensor

    for name, value in made.items():
        tensor = tensors[name]
        if tensor.is_meta:
            raise ModelError(f"{label}: {name} is on the meta device; give the module memory first (to_empty)")
        if isinstance(tensor, DTensor):
            raise ModelError(f"{label}: {name} is sharded; carry weights before the module is sharded")
        if tensor.is_inference():
            raise ModelError(f"{label}: {name} was made in inference mode, which forbids changes")
        if not tensor.is_floating_point():
            raise ModelError(f"{label}: {name} holds {tensor.dtype}, not floating-point numbers")
        largest = float(value.abs().max()) if value.numel() else 0.0
        if largest > torch.finfo(tensor.dtype).max:
            raise ModelError(f"{label}: {name} holds {tensor.dtype}, which cannot hold a weight of {largest:.3g}")
