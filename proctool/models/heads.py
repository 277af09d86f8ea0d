"""Single attention heads: their rows in the tensors, the output projection of a layer, and attention patterns.

Layers and heads are counted from 0. Heads that share a key and a value (grouped-query attention) form a group.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from proctool.errors import ModelError
from proctool.internals.of_transformers import attention_of, is_transposed_linear
from proctool.models.components import attention_modules

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

QUERY, KEY, VALUE, OUTPUT = range(4)
"""The role of a row of a head's weights."""

_OUTPUTS = ("o_proj", "c_proj", "out_proj", "dense")
"""Names of the output projection, which follows the concatenated heads, in transformers' families."""
_ALONE = {"q_proj": (QUERY,), "k_proj": (KEY,), "v_proj": (VALUE,)}
_ONE_AFTER_ANOTHER = {"c_attn": "gpt2 gpt_bigcode", "qkv_proj": "phi3", "Wqkv": "mpt"}
"""Fused projections with all queries, then all keys, then all values; and the families that use the name so."""
_BY_HEAD = {"query_key_value": "gpt_neox bloom"}
"""Fused projections with query, key and value of one head after the other."""


@dataclass(frozen=True)
class HeadRows:
    """For each row of a tensor along `axis`: its role and its head (for keys and values, its group)."""

    layer: int
    axis: int
    role: NDArray[np.int64]
    owner: NDArray[np.int64]

    def of(self, heads: frozenset[int], group: int) -> NDArray[np.bool_]:
        """Mask of the rows that belong to `heads`, (rows,); `group` heads share a key and a value."""
        groups = sorted({head // group for head in heads})
        shared = np.isin(self.role, (KEY, VALUE))
        return np.where(shared, np.isin(self.owner, groups), np.isin(self.owner, sorted(heads)))


@dataclass(frozen=True)
class HeadMap:
    """The attention heads of a model. `rows` excludes tensors that all heads of a layer share."""

    heads: int
    """In a layer."""
    group: int
    """Heads that share a key and a value; 1 in plain attention."""
    layers: tuple[int, ...]
    """Layers with attention."""
    rows: dict[str, HeadRows]
    """By the tensor's name."""
    free_queries: bool
    """Whether scaling the queries has an effect; some families normalise them."""

    def all(self) -> list[tuple[int, int]]:
        """Every (layer, head)."""
        return [(layer, head) for layer in self.layers for head in range(self.heads)]


def head_count(model: PreTrainedModel) -> int:
    """Attention heads in a layer. Raises ModelError if the configuration does not have the number."""
    heads = getattr(model.config, "num_attention_heads", None)
    if not isinstance(heads, int) or heads < 1:
        raise ModelError(
            f"{model.config.model_type}: the configuration has no number of attention heads; add num_attention_heads"
        )
    return heads


def output_projections(model: PreTrainedModel) -> dict[int, nn.Module]:
    """The output projection of attention by layer: (..., heads * size) -> (..., D).

    Raises ModelError if attention has no such module, or if its input is not divided evenly into heads.
    """
    heads, found = head_count(model), {}
    for layer, (name, attention) in attention_modules(model).items():
        child = next((getattr(attention, each) for each in _OUTPUTS if hasattr(attention, each)), None)
        weight = getattr(child, "weight", None)
        if child is None or weight is None or weight.shape[_inputs_of(child)] % heads:
            raise ModelError(
                f"{model.config.model_type}: the output projection of {name} is unknown, so heads are not supported"
            )
        found[layer] = child
    return found


def head_map(model: PreTrainedModel) -> HeadMap:
    """The heads that the rows of attention tensors belong to. The model may be on any device, including meta.

    Raises ModelError for families with an unknown head layout.
    """
    heads, kind = head_count(model), str(model.config.model_type)
    group = heads // _groups(model.config, heads)
    modules, outputs = attention_modules(model), output_projections(model)
    rows: dict[str, HeadRows] = {}
    for layer, (prefix, attention) in modules.items():
        last, seen = outputs[layer], set()
        size = int(cast("Tensor", last.weight).shape[_inputs_of(last)]) // heads
        for name, child in attention.named_children():
            weight = getattr(child, "weight", None)
            if weight is None or weight.ndim != 2:
                continue
            if child is last:
                found = HeadRows(
                    layer, _inputs_of(child), np.full(heads * size, OUTPUT), np.repeat(np.arange(heads), size)
                )
                rows[f"{prefix}.{name}.weight"] = found
                continue
            if name in _ALONE:
                roles: tuple[int, ...] = _ALONE[name]
            elif kind in f"{_ONE_AFTER_ANOTHER.get(name, '')} {_BY_HEAD.get(name, '')}".split():
                roles = (QUERY, KEY, VALUE)
            else:
                raise _unknown(kind, f"{prefix}.{name}")
            counts = [heads if role == QUERY else heads // group for role in roles]
            role = np.concatenate([np.full(count * size, each) for each, count in zip(roles, counts, strict=True)])
            owner = np.concatenate([np.repeat(np.arange(count), size) for count in counts])
            if name in _BY_HEAD:
                order = np.argsort(owner, kind="stable")  # in the order query, key, value for each head
                role, owner = role[order], owner[order]
            if weight.shape[1 - _inputs_of(child)] != len(role):
                raise _unknown(kind, f"{prefix}.{name}")
            rows[f"{prefix}.{name}.weight"] = HeadRows(layer, 1 - _inputs_of(child), role, owner)
            if getattr(child, "bias", None) is not None:
                rows[f"{prefix}.{name}.bias"] = HeadRows(layer, 0, role, owner)
            seen |= {*roles}
        if seen != {QUERY, KEY, VALUE}:
            raise _unknown(kind, prefix)
    inside = [name for _, attention in modules.values() for name, _ in attention.named_children()]
    free = not any(name.startswith("q") and "norm" in name for name in inside)
    return HeadMap(heads, group, tuple(modules), rows, free)


def _unknown(kind: str, name: str) -> ModelError:
    return ModelError(f"{kind}: proctool does not know the head layout of {name}, so single heads are not supported")


def _inputs_of(module: nn.Module) -> int:
    """The input dimension of a projection's weight."""
    return 0 if is_transposed_linear(module) else 1


def _groups(config: Any, heads: int) -> int:
    if config.model_type == "gpt_bigcode":
        if not config.multi_query:
            raise ModelError("gpt_bigcode: single heads are supported only with multi_query")
        return 1
    found = getattr(config, "num_key_value_heads", None) or heads
    return int(found) if heads % int(found) == 0 else heads


@contextmanager
def eager(model: PreTrainedModel) -> Iterator[None]:
    """Put the model into evaluation mode inside the block, with attention that returns its patterns."""
    import torch

    was_training, attention = model.training, attention_of(model.config)
    model.eval()
    model.set_attn_implementation("eager")
    try:
        with torch.compiler.set_stance("force_eager"):  # otherwise each sample length would be compiled
            yield
    finally:
        model.set_attn_implementation(attention)
        model.train(was_training)


def patterns(model: PreTrainedModel, ids: Tensor) -> tuple[list[Tensor], Tensor]:
    """Attention patterns by layer, and logits: (B, L) -> [(B, heads, L, L)], (B, L, V). Call it inside `eager`."""
    import torch

    with torch.no_grad():
        output = model(input_ids=ids, output_attentions=True, use_cache=False)
    return [each for each in getattr(output, "attentions", None) or () if each is not None], output.logits


def entropies(pattern: Tensor) -> Tensor:
    """Entropy of attention at each position, in nats: (..., L) -> (...)"""
    import torch

    return cast("Tensor", torch.special.entr(pattern.double()).sum(-1))


def visible(config: Any, layer: int, length: int) -> NDArray[np.int64]:
    """The number of positions that each of `length` positions can attend to in `layer`, (L,). Respects windows."""
    counts = np.arange(1, length + 1)
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    kinds = getattr(config, "layer_types", None)
    if not window or (kinds and kinds[layer] != "sliding_attention"):
        return counts
    return np.minimum(counts, int(window))
