"""torchtitan's Llama: with its names up to version 0.2, and from 0.3 with query, key and value split or fused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tests.foreign.rotary import attend, heads_of, in_pairs


@dataclass
class ModelArgs:
    """Version 0.2; the width of the MLP is computed from the model's."""

    dim: int = 16
    n_layers: int = 2
    n_heads: int = 2
    n_kv_heads: int | None = None
    vocab_size: int = 23
    multiple_of: int = 1
    ffn_dim_multiplier: float | None = None
    norm_eps: float = 1e-5
    rope_theta: float = 10000
    max_seq_len: int = 16

    @property
    def hidden_dim(self) -> int:
        width = int(2 * 4 * self.dim / 3)
        if self.ffn_dim_multiplier is not None:
            width = int(self.ffn_dim_multiplier * width)
        return -(-width // self.multiple_of) * self.multiple_of


@dataclass
class Sizes:
    """What the builders of version 0.3 are given."""

    dim: int = 16
    n_layers: int = 2
    n_heads: int = 2
    n_kv_heads: int | None = None
    vocab_size: int = 23
    hidden_dim: int = 64
    norm_eps: float = 1e-5
    rope: Mapping[str, Any] | None = None
    enable_weight_tying: bool = False

    @property
    def rope_theta(self) -> float:
        return self.rope["theta"] if self.rope else 10000


class Split(nn.Module):
    def __init__(self, dim: int, heads: int, groups: int) -> None:
        super().__init__()
        self.counts = heads, groups, groups
        size = dim // heads
        self.wq = nn.Linear(dim, heads * size, bias=False)
        self.wk = nn.Linear(dim, groups * size, bias=False)
        self.wv = nn.Linear(dim, groups * size, bias=False)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        rows = self.wq(x), self.wk(x), self.wv(x)
        return [heads_of(each, count) for each, count in zip(rows, self.counts, strict=True)]


class Fused(nn.Module):
    def __init__(self, dim: int, heads: int, groups: int) -> None:
        super().__init__()
        self.groups, self.each, self.size = groups, heads // groups, dim // heads
        self.wqkv = nn.Linear(dim, (heads + 2 * groups) * self.size, bias=False)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        heads = self.wqkv(x).unflatten(-1, (self.groups, self.each + 2, self.size))
        return [rows.flatten(2, 3).transpose(1, 2) for rows in heads.split([self.each, 1, 1], dim=3)]


class Attention(nn.Module):
    def __init__(self, args: ModelArgs | Sizes, kind: str) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads = args.n_heads, args.n_kv_heads or args.n_heads
        self.theta = args.rope_theta
        made = (Fused if kind == "fused" else Split)(args.dim, self.n_heads, self.n_kv_heads)
        self.made = [made]  # in a list, where its parameters take no name
        if kind == "0.2":
            self.wq, self.wk, self.wv = made.wq, made.wk, made.wv
        else:
            self.qkv_linear = made
        self.wo = nn.Linear(args.dim, args.dim, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.made[0](x)
        return self.wo(attend(in_pairs(query, self.theta), in_pairs(key, self.theta), value))


class FeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(dim, hidden, bias=False)
        self.w2 = nn.Linear(hidden, dim, bias=False)
        self.w3 = nn.Linear(dim, hidden, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w2(nn.functional.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    def __init__(self, args: ModelArgs | Sizes, kind: str) -> None:
        super().__init__()
        self.attention = Attention(args, kind)
        self.feed_forward = FeedForward(args.dim, args.hidden_dim)
        self.attention_norm = nn.RMSNorm(args.dim, eps=args.norm_eps)
        self.ffn_norm = nn.RMSNorm(args.dim, eps=args.norm_eps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.ffn_norm(x))


class Llama(nn.Module):
    """`kind` is 0.2, split or fused."""

    def __init__(self, args: ModelArgs | Sizes, kind: str = "split") -> None:
        super().__init__()
        self.model_args = args
        self.tok_embeddings = nn.Embedding(args.vocab_size, args.dim)
        self.layers = nn.ModuleDict({str(i): Block(args, kind) for i in range(args.n_layers)})
        self.norm = nn.RMSNorm(args.dim, eps=args.norm_eps)
        head = nn.Linear(args.dim, args.vocab_size, bias=False)
        self.head_name = "output" if kind == "0.2" else "lm_head"
        setattr(self, self.head_name, head)
        if getattr(args, "enable_weight_tying", False):
            self.tok_embeddings.weight = head.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.tok_embeddings(tokens)
        for block in self.layers.values():
            x = block(x)
        return getattr(self, self.head_name)(self.norm(x))
