"""The same function in less time: what training and scoring change in a model, and put back afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from proctool.models.attention import without_mask

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextlib.contextmanager
def faster(model: PreTrainedModel, *, lean: bool = True) -> Iterator[None]:
    """While the block lasts, `model` computes the same with fewer operations and less memory.

    Plain causal attention gets no mask, and small heads a kernel of their own (attention.py). GPT-2's GELU, which
    transformers spells out in eight operations that each keep a result for the backward pass, becomes torch's single
    one; with `lean` what comes out of it is computed again in the backward pass, which gradient checkpointing does
    with everything. Results agree to rounding. For rows without padding masks only.
    """
    with (
        one_gelu(model),
        lean_mlp(model) if lean else contextlib.nullcontext(),
        without_mask(model),
    ):
        yield


@contextlib.contextmanager
def one_gelu(model: PreTrainedModel) -> Iterator[None]:
    """While the block lasts, GPT-2's GELU is torch's single operation."""
    from transformers.activations import NewGELUActivation

    places = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, NewGELUActivation)
    ]
    for parent, name, _ in places:
        setattr(parent, name, nn.GELU(approximate="tanh"))
    try:
        yield
    finally:
        for parent, name, child in places:
            setattr(parent, name, child)


@contextlib.contextmanager
def lean_mlp(model: PreTrainedModel) -> Iterator[None]:
    """While the block lasts, GPT-2's MLPs keep their inner activations once: before the GELU, not after it too.

    A quarter of all activations for a hundredth of the time: the GELU is computed again where the backward pass needs
    it. A compiler decides that for itself.
    """
    from transformers.models.gpt2.modeling_gpt2 import GPT2MLP

    changed = [module for module in model.modules() if type(module) is GPT2MLP]
    # A class of its own: with a `forward` in each module a compiler would make a graph for each layer.
    lean = type("LeanMLP", (GPT2MLP,), {"forward": _lean})
    for module in changed:
        module.__class__ = lean
    try:
        yield
    finally:
        for module in changed:
            module.__class__ = GPT2MLP


def _lean(mlp: Any, hidden: Tensor) -> Tensor:
    before = mlp.c_fc(hidden)
    after = mlp.act(before)
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return mlp.dropout(mlp.c_proj(after))  # type: ignore[no-any-return]
    kept = after.untyped_storage()._cdata

    def pack(tensor: Tensor) -> Tensor | torch.Size:
        return tensor.shape if tensor.untyped_storage()._cdata == kept else tensor

    def unpack(packed: Tensor | torch.Size) -> Tensor:
        return packed if isinstance(packed, Tensor) else mlp.act(before.detach()).reshape(packed)

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        projected = mlp.c_proj(after)
    return mlp.dropout(projected)  # type: ignore[no-any-return]
