"""What a model's configuration may ask for, checked before anything is made of it.

A few hundred bytes can ask for a trillion layers, for code from a hub, or for weights in a form that only somebody's
library reads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from proctool.errors import ModelError
from proctool.units import format_bytes, format_count

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

MOST_LAYERS, MOST_HEADS, MOST_WIDTH = 1000, 1000, 100_000
"""Larger than any model there is: numbers beyond are mistakes, or worse."""

# Sizes by transformers' common names; families have names of their own for them (their `attribute_map`).
_MOST = {
    "num_hidden_layers": MOST_LAYERS,
    "num_attention_heads": 10 * MOST_HEADS,
    "num_key_value_heads": 10 * MOST_HEADS,
    "hidden_size": MOST_WIDTH,
    "intermediate_size": 100 * MOST_WIDTH,
    "head_dim": MOST_WIDTH,
    "vocab_size": 10**8,
    "max_position_embeddings": 10**9,
}
_MOST_EXPERTS = 10_000
_MOST_OF_ALL = 10**9
_FREE = ("theta", "base", "token_id")  # periods of rotations; ids that are only compared
_KNOWN_ATTENTION = (None, "eager", "sdpa", "flex_attention")


def require_sane(family: str, values: Mapping[str, Any]) -> None:
    """Raise ModelError when a configuration asks for code, for quantised weights or for sizes beyond reason."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    common = {own: name for name, own in getattr(CONFIG_MAPPING[family], "attribute_map", {}).items()}
    for key, value in _entries(values):
        if key == "auto_map" and value:
            raise ModelError("asks to run code of its own (auto_map); proctool never does that")
        if key.lstrip("_").startswith(("attn_implementation", "experts_implementation")):
            asked = list(value.values()) if isinstance(value, Mapping) else [value]
            if any(each not in _KNOWN_ATTENTION for each in asked):
                raise ModelError(f"asks for an implementation of its own ({key} = {value!r}); proctool never loads one")
        if key == "quantization_config" and value:
            raise ModelError("is quantised (quantization_config); proctool reads plain floating-point weights only")
        _require_size(key, common.get(key, key), value)


def _entries(values: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, those of configurations within configurations too."""
    stack = [values]
    while stack:
        node = stack.pop()
        for key, value in node.items() if isinstance(node, Mapping) else enumerate(node):
            if isinstance(node, Mapping):
                yield str(key), value
            if isinstance(value, Mapping | list):
                stack.append(value)


def _require_size(key: str, name: str, value: Any) -> None:
    counts = isinstance(value, int | float) and not isinstance(value, bool)
    if name in _MOST and value is not None and not isinstance(value, list):
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ModelError(f"{key} = {value!r}: must be a whole number from 0 up")
        most = _MOST[name]
    elif "layer" in key and "norm" not in key:
        most = MOST_LAYERS
    elif "expert" in key:
        most = _MOST_EXPERTS
    else:
        most = _MOST_OF_ALL
    if counts and abs(value) > most and not any(part in key for part in _FREE):
        raise ModelError(f"{key} = {value}: beyond any model there is (at most {format_count(most)})")
    if isinstance(value, list) and len(value) > 10 * MOST_LAYERS:
        raise ModelError(f"{key}: a list of {len(value)}; at most {10 * MOST_LAYERS} are read")


def require_memory(config: PretrainedConfig) -> None:
    """Raise ModelError when the weights alone would take more than all of this machine's memory.

    A lower bound: two square matrices a layer, and the embedding.
    """
    layers, width = int(getattr(config, "num_hidden_layers", 0) or 0), int(getattr(config, "hidden_size", 0) or 0)
    vocabulary = int(getattr(config, "vocab_size", 0) or 0)
    learned = int(getattr(config, "n_positions", 0) or 0)
    needed = 4 * width * (2 * layers * width + vocabulary + learned)
    try:
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return
    if needed > there:
        size = f"{config.model_type} of {layers} layers of {width} with {format_count(vocabulary)} tokens"
        raise ModelError(
            f"{size}: its weights take {format_bytes(needed)} or more, and this machine has {format_bytes(there)}"
        )


def require_finite(tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """Raise ModelError naming the first tensor of real numbers that holds a NaN or an infinity."""
    import torch

    for name, tensor in tensors.items():
        real = tensor.is_floating_point() and tensor.numel()
        if real and not all(torch.isfinite(bound) for bound in torch.aminmax(tensor.detach())):
            raise ModelError(f"{where}: tensor {name} holds values that are not finite (NaN or infinity)")
