"""AdamW, decaying matrices only."""

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
