"""What each parameter of a model is for, resolved from its modules, not from substrings of names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from proctool.errors import ModelError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

COMPONENTS = ("attention", "mlp", "norms", "embeddings", "positions", "head")


@dataclass(frozen=True)
class Place:
    """Where a parameter sits: its component, and its layer (None outside the stack of layers)."""

    component: str
    layer: int | None


def components(model: PreTrainedModel) -> dict[str, Place]:
    """The place of every parameter, by name; tied parameters appear once, under their first name.

    Inside a layer each direct child is one component, by its class; a norm inside an attention module (the
    query and key norms of some families) belongs to the attention. Raises ModelError for a model with a part
    that is none of these.
    """
    from torch import nn

    base = model.base_model
    token_embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    stacks = [module for module in base.children() if isinstance(module, nn.ModuleList)]
    if len(stacks) != 1:
        raise ModelError(f"{model.config.model_type}: expected one stack of layers, found {len(stacks)}")
    parts: dict[nn.Module, Place] = {token_embedding: Place("embeddings", None)}
    if head is not None:
        parts[head] = Place("head", None)
    for child in base.children():
        if child in parts or child is stacks[0]:
            continue
        is_positions = isinstance(child, nn.Embedding)
        parts[child] = Place("positions" if is_positions else _kind(child, model), None)
    for layer, block in enumerate(stacks[0]):
        for child in block.children():
            parts[child] = Place(_kind(child, model), layer)
    names = {parameter: name for name, parameter in model.named_parameters()}
    # The input embedding comes first: a tied head's weight is an embedding.
    found = {names[parameter]: place for part, place in reversed(parts.items()) for parameter in part.parameters()}
    for parameter in token_embedding.parameters():
        found[names[parameter]] = Place("embeddings", None)
    if lost := names.values() - found.keys():
        raise ModelError(f"{model.config.model_type}: {min(lost)} belongs to no known component")
    return {name: found[name] for name in names.values()}


def _kind(module: nn.Module, model: PreTrainedModel) -> str:
    name = type(module).__name__
    if "Attention" in name:
        return "attention"
    if name.endswith("Norm"):
        return "norms"
    if name.endswith(("MLP", "MoE", "MoeBlock", "SparseMoeBlock", "FeedForward")):
        return "mlp"
    if not any(True for _ in module.parameters()):
        return "norms"  # dropout, rotary tables: nothing to place
    raise ModelError(f"{model.config.model_type}: {name} is neither attention, MLP, norm nor embedding")
