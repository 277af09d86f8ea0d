"""Checks of a model configuration before anything is built from it.

A few hundred bytes can request a trillion layers, code from a hub, or weights in a format that only one library reads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from proctool.errors import ModelError
from proctool.internals.of_transformers import common_names
from proctool.units import format_bytes, format_count

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

MOST_LAYERS, MOST_HEADS, MOST_WIDTH = 1000, 1000, 100_000
"""Limits above every existing model: larger numbers are mistakes or attacks."""

# Sizes under transformers' common names; a family's `attribute_map` gives its own names.
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
_FREE = ("theta", "base", "token_id")  # rotary base frequencies; ids that are only compared
_KNOWN_ATTENTION = (None, "eager", "sdpa", "flex_attention")


def require_sane(family: str, values: Mapping[str, Any]) -> None:
    """Raise ModelError when a configuration requests code, quantised weights or sizes above the limits."""
    common = common_names(family)
    for key, value in _entries(values):
        if key == "auto_map" and value:
            raise ModelError("the configuration asks to run code (auto_map); proctool runs no model code")
        if key.lstrip("_").startswith(("attn_implementation", "experts_implementation")):
            asked = list(value.values()) if isinstance(value, Mapping) else [value]
            if any(each not in _KNOWN_ATTENTION for each in asked):
                raise ModelError(f"the configuration requests its own implementation ({key} = {value!r}); remove {key}")
        if key == "quantization_config" and value:
            raise ModelError(
                "the weights are quantised (quantization_config); give a model with floating-point weights"
            )
        _require_size(key, common.get(key, key), value)


def _entries(values: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, including nested configurations."""
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
            raise ModelError(f"{key} = {value!r}: must be a whole number of at least 0")
        most = _MOST[name]
    elif "layer" in key and "norm" not in key:
        most = MOST_LAYERS
    elif "expert" in key:
        most = _MOST_EXPERTS
    else:
        most = _MOST_OF_ALL
    if counts and abs(value) > most and not any(part in key for part in _FREE):
        raise ModelError(f"{key} = {value}: exceeds the limit of {format_count(most)}")
    if isinstance(value, list) and len(value) > 10 * MOST_LAYERS:
        raise ModelError(f"{key}: a list of {len(value)} values exceeds the limit of {10 * MOST_LAYERS}")


def require_memory(config: PretrainedConfig) -> None:
    """Raise ModelError when the weights alone need more memory than this machine has.

    The estimate is a lower bound: two square matrices per layer, and the embedding.
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
        size = f"{config.model_type} with {layers} layers, width {width} and {format_count(vocabulary)} tokens"
        raise ModelError(
            f"{size}: its weights need at least {format_bytes(needed)}, but this machine has {format_bytes(there)}"
        )


def require_finite(tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """Raise ModelError naming the first floating-point tensor with a NaN or an infinity."""
    import torch

    for name, tensor in tensors.items():
        real = tensor.is_floating_point() and tensor.numel()
        if real and not all(torch.isfinite(bound) for bound in torch.aminmax(tensor.detach())):
            raise ModelError(f"{where}: tensor {name} holds values that are not finite (NaN or infinity)")
