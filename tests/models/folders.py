"""Hugging Face folders of tiny models, written as other tools write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from proctool.models.build import build_model
from tests.models.tiny import tiny_config

Weights = dict[str, torch.Tensor]


def write_folder(folder: Path, family: str = "llama", *, shards: str = "5GB", **config: Any) -> Weights:
    """A folder of a model whose tensors are all different; returns them as the file holds them."""
    settings = tiny_config(family)
    for name, value in config.items():
        setattr(settings, name, value)
    model = build_model(settings, 1)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=random))
    model.save_pretrained(folder, max_shard_size=shards)
    return stored(folder)


def stored(folder: Path) -> Weights:
    return {
        name: tensor for path in sorted(folder.glob("model*.safetensors")) for name, tensor in load_file(path).items()
    }


def rewrite(folder: Path, weights: Weights, **config: Any) -> None:
    """Other weights and settings in the same folder."""
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors")
    configure(folder, **config)


def configure(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
