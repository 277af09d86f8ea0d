"""Faster computation of the same function: changes to a model for training and scoring, undone afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from proctool.internals.of_torch import storage_number
from proctool.internals.of_transformers import is_slow_gelu
from proctool.models.attention import without_mask

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextlib.contextmanager
def faster(model: PreTrainedModel, *, lean: bool = True) -> Iterator[None]:
    """Inside the block, `model` computes the same function with fewer operations and less memory.

    Plain causal attention gets no mask, and small heads use a C kernel (attention.py). GPT-2's GELU is one operation
    instead of the eight of transformers, each of which saves a tensor for the backward pass. With `lean`, the backward
    pass recomputes its output; gradient checkpointing recomputes everything anyway. Results agree up to rounding. Only
    for rows without padding.
    """
    with (
        one_gelu(model),
        lean_mlp(model) if lean else contextlib.nullcontext(),
        without_mask(model),
    ):
        yield


@contextlib.contextmanager
def one_gelu(model: PreTrainedModel) -> Iterator[None]:
    """Inside the block, GPT-2's GELU is a single operation of torch."""
    places = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if is_slow_gelu(child)
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
    """Inside the block, GPT-2's MLPs save only the input of the GELU, and the backward pass recomputes its output.

    This saves a quarter of all activations and takes a hundredth of the time. It has no effect in compiled code, where
    the compiler chooses what to recompute.
    """
    from transformers.models.gpt2.modeling_gpt2 import GPT2MLP

    changed = [module for module in model.modules() if type(module) is GPT2MLP]
    # Change the class, because a `forward` in each module would make a compiler build a graph per layer.
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
    kept = storage_number(after)

    def pack(tensor: Tensor) -> Tensor | torch.Size:
        return tensor.shape if storage_number(tensor) == kept else tensor

    def unpack(packed: Tensor | torch.Size) -> Tensor:
        return packed if isinstance(packed, Tensor) else mlp.act(before.detach()).reshape(packed)

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        projected = mlp.c_proj(after)
    return mlp.dropout(projected)  # type: ignore[no-any-return]
