"""AdamW, decaying matrices only, and its state by parameter name."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def make_optimiser(model: nn.Module, *, lr: float, weight_decay: float, beta2: float) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; norms, biases and embeddings are not decayed."""
    embedded = {
        weight for module in model.modules() if isinstance(module, nn.Embedding) for weight in module.parameters()
    }
    decayed: list[Tensor] = []
    plain: list[Tensor] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            (decayed if parameter.dim() >= 2 and parameter not in embedded else plain).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=lr, betas=(0.9, beta2), fused=True)


def optimiser_tensors(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as `PARAMETER/KEY` tensors."""
    return {
        f"{name}/{key}": torch.as_tensor(value)
        for name, parameter in model.named_parameters()
        for key, value in optimiser.state.get(parameter, {}).items()
    }


def restore_optimiser(model: nn.Module, optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimiser_tensors` gave."""
    parameters = dict(model.named_parameters())
    for name, value in tensors.items():
        parameter, _, key = name.rpartition("/")
        owner = parameters[parameter]
        optimiser.state[owner][key] = value.to(owner.device) if value.dim() else value.clone()
