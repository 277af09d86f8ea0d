"""litgpt's GPT, as far as Pythia's and Llama's kind go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tests.foreign.rotary import attend, heads_of, in_halves


@dataclass
class Config:
    block_size: int = 16
    n_layer: int = 2
    n_embd: int = 16
    vocab_size: int = 23
    padding_multiple: int = 512
    padded_vocab_size: int | None = None
    norm_class_name: str = "LayerNorm"
    norm_eps: float = 1e-5
    norm_qk: bool = False
    parallel_residual: bool = True
    shared_attention_norm: bool = False
    n_head: int = 2
    head_size: int | None = None
    n_query_groups: int | None = None
    attn_bias: bool = False
    rope_base: int = 10000
    rotary_percentage: float = 0.25
    intermediate_size: int | None = None
    bias: bool = True
    mlp_class_name: str = "GptNeoxMLP"
    gelu_approximate: str = "none"
    lm_head_bias: bool = False

    def __post_init__(self) -> None:
        self.head_size = self.head_size or self.n_embd // self.n_head
        self.n_query_groups = self.n_query_groups or self.n_head
        step = self.padding_multiple
        self.padded_vocab_size = self.padded_vocab_size or -(-self.vocab_size // step) * step
        self.intermediate_size = self.intermediate_size or 4 * self.n_embd

    def norm(self, width: int) -> nn.Module:
        return getattr(nn, self.norm_class_name)(width, eps=self.norm_eps)


class Attention(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, size = config, config.head_size
        rows = (config.n_head + 2 * config.n_query_groups) * size
        self.qkv = nn.Linear(config.n_embd, rows, bias=config.bias or config.attn_bias)
        self.proj = nn.Linear(config.n_head * size, config.n_embd, bias=config.bias)
        self.norm_q = config.norm(size) if config.norm_qk else None
        self.norm_k = config.norm(size) if config.norm_qk else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        config = self.config
        counts = [config.n_head, config.n_query_groups, config.n_query_groups]
        rows = self.qkv(x).split([count * config.head_size for count in counts], dim=-1)
        query, key, value = (heads_of(each, count) for each, count in zip(rows, counts, strict=True))
        if self.norm_q is not None:
            query, key = self.norm_q(query), self.norm_k(key)
        turned = int(config.rotary_percentage * config.head_size)
        return self.proj(attend(*(in_halves(each, config.rope_base, turned) for each in (query, key)), value))


class GptNeoxMLP(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.fc = nn.Linear(config.n_embd, config.intermediate_size, bias=config.bias)
        self.proj = nn.Linear(config.intermediate_size, config.n_embd, bias=config.bias)
        self.approximate = config.gelu_approximate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(nn.functional.gelu(self.fc(x), approximate=self.approximate))


class LLaMAMLP(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.fc_1 = nn.Linear(config.n_embd, config.intermediate_size, bias=config.bias)
        self.fc_2 = nn.Linear(config.n_embd, config.intermediate_size, bias=config.bias)
        self.proj = nn.Linear(config.intermediate_size, config.n_embd, bias=config.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(nn.functional.silu(self.fc_1(x)) * self.fc_2(x))


class Block(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.norm_1 = config.norm(config.n_embd)
        self.attn = Attention(config)
        self.norm_2 = config.norm(config.n_embd)
        self.mlp = globals()[config.mlp_class_name](config)
        self.is_parallel = config.parallel_residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed = x + self.attn(self.norm_1(x))
        return mixed + self.mlp(self.norm_2(x if self.is_parallel else mixed))


class GPT(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.lm_head = nn.Linear(config.n_embd, config.padded_vocab_size, bias=config.lm_head_bias)
        parts: dict[str, Any] = {
            "wte": nn.Embedding(config.padded_vocab_size, config.n_embd),
            "h": nn.ModuleList([Block(config) for _ in range(config.n_layer)]),
            "ln_f": config.norm(config.n_embd),
        }
        self.transformer = nn.ModuleDict(parts)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.transformer.wte(tokens)
        for block in self.transformer.h:
            x = block(x)
        return self.lm_head(self.transformer.ln_f(x))
