"""Fresh weights one tensor at a time, for models too large to build as a whole."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from proctool.errors import ModelError
from proctool.internals.of_torch import tensors_of
from proctool.internals.of_transformers import initialise

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def seeded(seed: int, name: str) -> torch.Generator:
    """A random generator for one tensor, independent of all others."""
    import torch

    return torch.Generator().manual_seed(_number(seed, name))


def _number(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big") >> 1


def draw(model: PreTrainedModel, name: str, seed: int) -> torch.Tensor:
    """The fresh value of the tensor `name` of an `outline`: a function of `seed`, `name` and the configuration only.

    The family's initialiser in transformers runs on the module of the tensor and on the modules around it, innermost
    first as usual, while every other tensor stays without memory. Raises ModelError for a tensor that the
    initialiser does not set.
    """
    import torch
    from transformers import PreTrainedModel

    path = name.split(".")
    modules = [model.get_submodule(".".join(path[:depth])) for depth in range(len(path))]
    owner, own = modules[-1], path[-1]
    place = tensors_of(owner, own)
    outlined: torch.Tensor = place[own]
    if not outlined.is_floating_point():
        raise ModelError(f"{model.config.model_type}: {name} has integers, which cannot be initialised randomly")
    value = torch.full(outlined.shape, torch.nan)
    is_parameter = isinstance(outlined, torch.nn.Parameter)
    place[own] = torch.nn.Parameter(value, requires_grad=False) if is_parameter else value
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(_number(seed, name))
            for depth in reversed(range(len(modules))):
                around = [module for module in modules[: depth + 1] if isinstance(module, PreTrainedModel)]
                initialise(around[-1], modules[depth])
        # An initialiser may replace the parameter.
        held: torch.Tensor = place[own]
        value = held.detach()
    finally:
        place[own] = outlined
    if value.isnan().any():
        raise ModelError(
            f"{model.config.model_type}: the family's initialiser does not set {name}; "
            "take its component from a donor, or give a base model with --base FILE"
        )
    return value
