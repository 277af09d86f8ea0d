"""The loss of target tokens. Shapes: B samples of L tokens, T targets in total, D width, V vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from proctool.errors import ModelError
from proctool.training.head import Bend, fused_loss, is_faster

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LOGITS_AT_ONCE = 1 << 25
"""Logits in memory at once. If a batch has more, they are computed, scored and freed chunk by chunk."""


class TargetLoss(nn.Module):
    """A causal language model with its loss on target tokens only.

    Only hidden states at target positions go through the head. On tasks with few targets or large vocabularies, full
    logits would take most of the time and memory.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.in_chunks = True
        """Whether to compute at most LOGITS_AT_ONCE at a time. The head is then called once per chunk."""
        self._bend = Bend.of(model.config)
        self._require_own_logits()

    def forward(
        self, tokens: Tensor, positions: Tensor, labels: Tensor, procedural: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The summed cross-entropy over the batch's targets, in nats; () float32.

        With `procedural` (see `MixedBatch`), returns also the sum over procedural targets, detached; () each.
        """
        hidden = self._hidden(tokens, positions)  # (T, D)
        if procedural is None:
            return self._total(hidden, labels)
        with torch.no_grad():  # all processes must call the head equally often, even without procedural targets
            theirs = self._total(hidden.index_select(0, procedural), labels.index_select(0, procedural))
        return self._total(hidden, labels), theirs

    def _total(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """The summed cross-entropy of predictions from (T, D); () float32."""
        output = self.model.get_output_embeddings()
        if self.in_chunks and torch.is_grad_enabled() and is_faster(output, hidden, self.model.config.vocab_size):
            return fused_loss(hidden, labels, output, self._bend)
        parts = self._chunks(hidden, labels)
        if len(parts) == 1:
            return self._loss(*parts[0])
        if not torch.is_grad_enabled():
            return torch.stack([self._loss(*part) for part in parts]).sum()
        head = [p for p in output.parameters() if p.requires_grad]
        return _InChunks.apply(self._logits, len(parts[0][1]), hidden, labels, *head)  # type: ignore[no-any-return, no-untyped-call]

    def scores(self, tokens: Tensor, positions: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The cross-entropy of each target in nats, (T,), and whether it has the highest logit, (T,) bool."""
        losses, right = [], []
        for part, wanted in self._chunks(self._hidden(tokens, positions), labels):
            logits = self._logits(part)
            losses.append(functional.cross_entropy(logits, wanted, reduction="none"))
            right.append(logits.argmax(-1) == wanted)
        return torch.cat(losses), torch.cat(right)

    def _chunks(self, hidden: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
        size = max(1, LOGITS_AT_ONCE // self.model.config.vocab_size if self.in_chunks else len(labels))
        return list(zip(torch.split(hidden, size), torch.split(labels, size), strict=True))

    def _hidden(self, tokens: Tensor, positions: Tensor) -> Tensor:
        hidden = self.model.base_model(input_ids=tokens, use_cache=False).last_hidden_state  # (B, L, D)
        return hidden.reshape(-1, hidden.shape[-1]).index_select(0, positions)  # type: ignore[no-any-return]

    def _logits(self, hidden: Tensor) -> Tensor:
        return self._bend(self.model.get_output_embeddings()(hidden).float())  # (T, V)

    def _require_own_logits(self) -> None:
        """Raise ModelError if the model post-processes logits in an unknown way, which would make the loss wrong."""
        device = next(self.model.parameters()).device
        config = self.model.config
        few = min(4, getattr(config, "max_position_embeddings", None) or 4)
        tokens = (torch.arange(few, device=device) % config.vocab_size)[None]
        was_training = self.model.training
        self.model.eval()
        with torch.no_grad():
            own = self.model(input_ids=tokens, use_cache=False).logits[0].float()
            ours = self._logits(self._hidden(tokens, torch.arange(few, device=device)))
        self.model.train(was_training)
        if not torch.allclose(own, ours, rtol=1e-2, atol=1e-3, equal_nan=True):
            raise ModelError(
                f"{config.model_type}: unsupported logit post-processing, so the loss would be wrong; "
                "use another configuration or family"
            )

    def _loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(self._logits(hidden), labels, reduction="sum")


class _InChunks(torch.autograd.Function):
    """A sum of losses that computes gradients chunk by chunk in the forward pass, while each chunk's logits exist.

    Keeping all logits for the backward pass would dominate memory, and recomputing them would take a third of the
    head's time. Neither is necessary because the loss is the end of the graph: the gradient passed back is one number.
    """

    @staticmethod
    def forward(
        ctx: Any, logits_of: Callable[[Tensor], Tensor], size: int, hidden: Tensor, labels: Tensor, *head: Tensor
    ) -> Tensor:
        total = torch.zeros((), device=hidden.device)
        # Sharded weights are in bf16, in which sums over many chunks would be inexact.
        sums = [torch.zeros_like(each, dtype=torch.promote_types(each.dtype, torch.float32)) for each in head]
        grad_hidden = torch.empty_like(hidden)
        for start in range(0, len(labels), size):
            chunk = slice(start, start + size)
            wanted = labels[chunk, None]
            with torch.enable_grad():
                part = hidden[chunk].detach().requires_grad_()
                logits = logits_of(part)
            shares = torch.log_softmax(logits.detach(), -1)
            total -= shares.gather(1, wanted).sum()
            # The gradient of cross-entropy is softmax minus 1 at the label. Compute it in place, because autograd would
            # need two more arrays of this size, which is the largest of all.
            shares.exp_().scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=shares.dtype))
            grad_hidden[chunk], *grads = torch.autograd.grad(logits, [part, *head], shares)
            for so_far, grad in zip(sums, grads, strict=True):
                so_far += grad
        ctx.save_for_backward(grad_hidden, *sums)
        return total

    @staticmethod
    def backward(ctx: Any, *coming: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, *sums = ctx.saved_tensors
        return None, None, grad_hidden * coming[0], None, *(total * coming[0] for total in sums)
