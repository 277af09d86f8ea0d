"""The loss, and the one place where targets shift: the prediction of token t is made at position t - 1.

Shapes: B samples, L tokens in each, T target tokens among them, D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from proctool.procedural.registry import Samples

_LOGITS_AT_ONCE = 1 << 26
"""Logits held at once: larger heads go in chunks whose logits are recomputed in the backward pass."""


@dataclass(frozen=True)
class Batch:
    """Samples as tensors on a device.

    tokens     (B, L) int64
    positions  (T,) int64, flat indices into (B, L) where predictions are made: one before each target
    labels     (T,) int64, the target tokens
    """

    tokens: Tensor
    positions: Tensor
    labels: Tensor

    @classmethod
    def of(cls, samples: Samples, device: torch.device | str = "cpu") -> Batch:
        """The first token has nothing before it, so it is never a target."""
        tokens = torch.from_numpy(samples.tokens.astype("int64"))
        targets = torch.from_numpy(samples.targets.copy())
        targets[:, 0] = False
        flat = targets.reshape(-1).nonzero().squeeze(1)
        batch = (tokens, flat - 1, tokens.reshape(-1)[flat])
        return cls(*(part.to(device, non_blocking=True) for part in batch))


class TargetLoss(nn.Module):
    """A causal language model with its loss on target tokens only.

    Hidden states at target positions alone go through the head: on tasks with few targets, and on large
    vocabularies, the full logits would cost most of the time and memory.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, positions: Tensor, labels: Tensor) -> Tensor:
        """The summed cross-entropy over the batch's targets, in nats; () float32."""
        hidden = self._hidden(tokens, positions)  # (T, D)
        parts = self._chunks(hidden, labels)
        if len(parts) == 1:
            return self._loss(*parts[0])
        return torch.stack([checkpoint(self._loss, *part, use_reentrant=False) for part in parts]).sum()

    def scores(self, tokens: Tensor, positions: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """For each target, its cross-entropy in nats and whether it has the highest logit: (T,) and (T,) bool."""
        losses, right = [], []
        for part, wanted in self._chunks(self._hidden(tokens, positions), labels):
            logits = self._logits(part)
            losses.append(functional.cross_entropy(logits, wanted, reduction="none"))
            right.append(logits.argmax(-1) == wanted)
        return torch.cat(losses), torch.cat(right)

    def _chunks(self, hidden: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
        size = max(1, _LOGITS_AT_ONCE // self.model.config.vocab_size)
        return list(zip(torch.split(hidden, size), torch.split(labels, size), strict=True))

    def _hidden(self, tokens: Tensor, positions: Tensor) -> Tensor:
        hidden = self.model.base_model(input_ids=tokens, use_cache=False).last_hidden_state  # (B, L, D)
        return hidden.reshape(-1, hidden.shape[-1]).index_select(0, positions)  # type: ignore[no-any-return]

    def _logits(self, hidden: Tensor) -> Tensor:
        logits = self.model.get_output_embeddings()(hidden).float()  # (T, V)
        # Some families bend their logits after the head (Gemma 2 caps them, Cohere scales them).
        config = self.model.config
        cap = getattr(config, "final_logit_softcapping", None) or getattr(config, "logits_soft_cap", None)
        if cap:
            logits = cap * torch.tanh(logits / cap)
        if scale := getattr(config, "logit_scale", None):
            logits = logits * scale
        return logits  # type: ignore[no-any-return]

    def _loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(self._logits(hidden), labels, reduction="sum")
