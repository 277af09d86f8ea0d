"""Small trained-looking models, saved, for transplants."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from proctool.models.build import build_model, model_config
from proctool.models.saved import open_model, save_model

VOCAB, CONTEXT = 30, 16


def save_donor(
    path: Path,
    seed: int,
    *,
    model: str = "2x2x16",
    vocab: int = VOCAB,
    context: int = CONTEXT,
    family: str = "gpt2",
    change: Callable[[torch.nn.Module], None] | None = None,
    metadata: dict[str, Any] | None = None,
) -> dict[str, torch.Tensor]:
    """Write a model none of whose tensors is constant; returns its weights."""
    built = build_model(model_config(model, vocab_size=vocab, context=context, family=family), seed)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=random))
        if change is not None:
            change(built)
    save_model(path, built, metadata or {})
    return weights(path)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in open_model(path).weights().items()}
