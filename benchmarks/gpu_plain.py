"""GPT-2 in plain PyTorch and its training loop, as one writes them for speed on one GPU: the bar for proctool's.

bf16 autocast, torch.compile, fused AdamW, causal attention without a mask, a vocabulary padded to a multiple of 128.
Shapes: B samples, L tokens in each, D width, H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

PADDED_TO = 128
"""Matrix units work on whole tiles; an odd vocabulary leaves the last of them half empty."""


class Layer(nn.Module):
    """Attention and MLP, each after a norm and added to what came in."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.mixed = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:  # (B, L, D)
        samples, length, width = x.shape
        split = self.qkv(self.before_attention(x)).split(width, 2)
        query, key, value = (part.view(samples, length, self.heads, -1).transpose(1, 2) for part in split)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)  # (B, H, L, D / H)
        x = x + self.mixed(mixed.transpose(1, 2).reshape(samples, length, width))
        return x + self.down(functional.gelu(self.up(self.before_mlp(x)), approximate="tanh"))


class PlainGPT(nn.Module):
    """GPT-2 with learned positions and a tied head; gives the mean loss."""

    def __init__(self, layers: int, heads: int, width: int, context: int, vocabulary: int) -> None:
        super().__init__()
        padded = -(-vocabulary // PADDED_TO) * PADDED_TO
        self.tokens, self.positions = nn.Embedding(padded, width), nn.Embedding(context, width)
        self.layers = nn.ModuleList(Layer(heads, width) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, padded, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:  # (B, L), (B, L)
        hidden = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        for layer in self.layers:
            hidden = layer(hidden)
        logits = self.head(self.norm(hidden))  # (B, L, padded vocabulary)
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


class PlainTraining:
    """One model with its optimiser; each `step` is one over `accumulate` micro-batches of random tokens."""

    def __init__(
        self, model: PlainGPT, device: str, batch: int, context: int, vocabulary: int, accumulate: int, compiled: bool
    ) -> None:
        torch.set_float32_matmul_precision("high")
        self.model, self.device, self.accumulate = model.to(device), device, accumulate
        matrices = [each for each in model.parameters() if each.dim() >= 2]
        others = [each for each in model.parameters() if each.dim() < 2]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=3e-4, betas=(0.9, 0.95), fused=True)
        self.loss = torch.compile(self.model) if compiled else self.model
        self.data = torch.randint(0, vocabulary, (4, batch // accumulate, context + 1), device=device)

    def step(self, number: int) -> None:
        """Forward, backward, clip, update."""
        for part in range(self.accumulate):
            tokens = self.data[(number + part) % len(self.data)]
            with torch.autocast(self.device, torch.bfloat16):
                loss = self.loss(tokens[:, :-1], tokens[:, 1:]) / self.accumulate
            loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
