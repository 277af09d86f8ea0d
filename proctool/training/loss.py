"""The loss. Shapes: B samples, L tokens in each, T target tokens among them, D width, V vocabulary."""

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
"""Logits held at once; where a batch has more, they are made, scored and dropped chunk by chunk."""


class TargetLoss(nn.Module):
    """A causal language model with its loss on target tokens only.

    Hidden states at target positions alone go through the head: on tasks with few targets, and on large
    vocabularies, the full logits would cost most of the time and memory.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.in_chunks = True
        """Whether to hold no more than LOGITS_AT_ONCE. Chunks call the head as often as the batch has targets for."""
        self._bend = Bend.of(model.config)
        self._require_own_logits()

    def forward(
        self, tokens: Tensor, positions: Tensor, labels: Tensor, procedural: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The summed cross-entropy over the batch's targets, in nats; () float32.

        With `procedural`, as `MixedBatch` has it, that over those targets alone too, without gradients; () each.
        """
        hidden = self._hidden(tokens, positions)  # (T, D)
        if procedural is None:
            return self._total(hidden, labels)
        with torch.no_grad():  # every process goes through the head as often, also where it has none of them
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
        """For each target, its cross-entropy in nats and whether it has the highest logit: (T,) and (T,) bool."""
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
        """Raise ModelError where the model does more to its logits than is known here: its loss would be wrong."""
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
    """A sum of losses whose gradients are taken chunk by chunk in the forward pass, while each chunk's logits exist.

    Keeping all logits for the backward pass would dominate memory, making them twice costs a third of the head's
    time; with a loss at the very end of the graph neither is needed, since the gradient that comes back is a number.
    """

    @staticmethod
    def forward(
        ctx: Any, logits_of: Callable[[Tensor], Tensor], size: int, hidden: Tensor, labels: Tensor, *head: Tensor
    ) -> Tensor:
        total = torch.zeros((), device=hidden.device)
        # Sharded weights are in bf16, and sums of many chunks would lose much there.
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
            # The gradient of cross-entropy is softmax - 1 at the label: made in place, where autograd's takes two more
            # arrays of this size, the largest there are.
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
