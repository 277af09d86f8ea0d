"""A model class that no project has, with its mapping, and what changes in a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from proctool.foreign import ModelMapping, TensorRule


def changed(module: nn.Module, act: Callable[[], Any]) -> set[str]:
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    act()
    return {name for name, value in module.named_parameters() if not torch.equal(value, before[name])}


class Own(nn.Module):
    """A model class that no project has: fused gate and up, separate attention, a tied head, weights (in, out)."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        for _ in range(2):
            block = nn.Module()
            block.mix = nn.ParameterDict(
                {"q": torch.randn(32, 32), "kv": torch.randn(32, 32), "out": torch.randn(32, 32)}
            )
            block.wide = nn.Linear(32, 80, bias=False)
            block.narrow = nn.Linear(40, 32, bias=False)
            block.scale = nn.Parameter(torch.ones(1))
            self.blocks.append(block)
        self.head = nn.Linear(32, 23, bias=False)
        self.table = nn.Embedding(23, 32)
        self.table.weight = self.head.weight


def own_mapping(**changes: Any) -> ModelMapping:
    return replace(
        ModelMapping(
            "own",
            "blocks",
            inside=(
                TensorRule(r"mix\.q", "attention", ("query",), transposed=True),
                TensorRule(r"mix\.kv", "attention", ("key", "value"), transposed=True),
                TensorRule(r"mix\.out", "attention", ("attention_output",), transposed=True),
                TensorRule("wide", "mlp", ("gate", "up")),
                TensorRule("narrow", "mlp", ("down",)),
            ),
            outside=(
                TensorRule("table", "embeddings", ("tokens",)),
                TensorRule("head", "head", ("head",)),
            ),
            rotary="halves",
            heads=4,
            kv_heads=2,
        ),
        **changes,
    )
