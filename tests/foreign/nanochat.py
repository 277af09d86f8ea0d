"""nanochat's GPT: as it began, and with value embeddings, residual scalars, smear and backout."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from tests.foreign.rotary import attend, heads_of, in_halves


@dataclass
class GPTConfig:
    sequence_len: int = 16
    vocab_size: int = 23
    n_layer: int = 2
    n_head: int = 2
    n_kv_head: int = 2
    n_embd: int = 32


def norm(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.rms_norm(x, (x.shape[-1],), eps=1e-6)


def linear(inputs: int, outputs: int) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=False)


class Attention(nn.Module):
    def __init__(self, config: GPTConfig, has_values: bool, base: float, sharper: float) -> None:
        super().__init__()
        self.config, self.base, self.sharper = config, base, sharper
        size = config.n_embd // config.n_head
        self.c_q = linear(config.n_embd, config.n_head * size)
        self.c_k = linear(config.n_embd, config.n_kv_head * size)
        self.c_v = linear(config.n_embd, config.n_kv_head * size)
        self.c_proj = linear(config.n_embd, config.n_embd)
        self.ve_gate = linear(12, config.n_kv_head) if has_values else None

    def forward(self, x: torch.Tensor, values: torch.Tensor | None) -> torch.Tensor:
        query, key = heads_of(self.c_q(x), self.config.n_head), heads_of(self.c_k(x), self.config.n_kv_head)
        value = heads_of(self.c_v(x), self.config.n_kv_head)
        if values is not None:
            gate = 3 * self.ve_gate(x[..., :12]).sigmoid()  # (B, T, heads)
            value = value + gate.transpose(1, 2).unsqueeze(-1) * heads_of(values, self.config.n_kv_head)
        query, key = (self.sharper * norm(in_halves(each, self.base, sign=-1)) for each in (query, key))
        return self.c_proj(attend(query, key, value))


class MLP(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = linear(config.n_embd, 4 * config.n_embd)
        self.c_proj = linear(4 * config.n_embd, config.n_embd)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c_proj(self.c_fc(x).relu().square())


class Block(nn.Module):
    def __init__(self, config: GPTConfig, has_values: bool, base: float, sharper: float) -> None:
        super().__init__()
        self.attn = Attention(config, has_values, base, sharper)
        self.mlp = MLP(config)

    def forward(self, x: torch.Tensor, values: torch.Tensor | None) -> torch.Tensor:
        x = x + self.attn(norm(x), values)
        return x + self.mlp(norm(x))


class GPT(nn.Module):
    """`is_first` is the class as it began; the later one pads its vocabulary, and mixes values and residuals."""

    def __init__(self, config: GPTConfig, is_first: bool = False) -> None:
        super().__init__()
        self.config, self.is_first = config, is_first
        rows = config.vocab_size if is_first else -(-config.vocab_size // 64) * 64
        alternate = [not is_first and i % 2 == (config.n_layer - 1) % 2 for i in range(config.n_layer)]
        base, sharper = (10000, 1.0) if is_first else (100000, 1.2)
        self.transformer = nn.ModuleDict({
            "wte": nn.Embedding(rows, config.n_embd),
            "h": nn.ModuleList([Block(config, each, base, sharper) for each in alternate]),
        })  # fmt: skip
        self.lm_head = linear(config.n_embd, rows)
        if not is_first:
            self.resid_lambdas = nn.Parameter(torch.ones(config.n_layer))
            self.x0_lambdas = nn.Parameter(torch.zeros(config.n_layer))
            self.smear_gate = linear(24, 1)
            self.smear_lambda = nn.Parameter(torch.zeros(1))
            self.backout_lambda = nn.Parameter(0.2 * torch.ones(1))
            width = config.n_kv_head * (config.n_embd // config.n_head)
            self.value_embeds = nn.ModuleDict({
                str(i): nn.Embedding(rows, width) for i, each in enumerate(alternate) if each
            })  # fmt: skip

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = norm(self.transformer.wte(tokens))
        if self.is_first:
            for block in self.transformer.h:
                x = block(x, None)
        else:
            x = self._later(x, tokens)
        logits = self.lm_head(norm(x))[..., : self.config.vocab_size]
        return 15 * torch.tanh(logits / 15)

    def _later(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        gate = self.smear_lambda * self.smear_gate(x[:, 1:, :24]).sigmoid()
        x = torch.cat([x[:, :1], x[:, 1:] + gate * x[:, :-1]], dim=1)
        start, middle = x, x
        for i, block in enumerate(self.transformer.h):
            values = self.value_embeds[str(i)](tokens) if str(i) in self.value_embeds else None
            x = block(self.resid_lambdas[i] * x + self.x0_lambdas[i] * start, values)
            middle = x if i == self.config.n_layer // 2 else middle
        return x - self.backout_lambda * middle
