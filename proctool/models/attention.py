"""Causal attention without a mask, for training on whole rows.

transformers reads the positions to find packed rows before it decides whether a mask is needed. With a GPU, the host
then waits for the device in each forward pass. Compiled code cannot read them at all and builds a mask of (B, 1, L, L),
which rules out FlashAttention. Samples in proctool are never padded or packed, so families whose attention is causal
over the whole row need no mask.

Only this file relies on how transformers decides about masks, which holds for 5.0 to 5.24: an attention function in
`AttentionInterface` but not in `AttentionMaskInterface` gets no mask (`masking_utils._preprocess_mask_arguments`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from proctool.internals.of_transformers import attention_of, sdpa
from proctool.models import small_heads

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

NAME = "proctool_causal"
"""Name under which transformers knows this attention."""

PLAIN = (
    "apertus", "arcee", "cohere", "cohere2", "deepseek_v3", "ernie4_5", "gemma", "glm", "glm4", "gpt2", "gpt_bigcode",
    "gpt_neox", "granite", "granitemoe", "helium", "llama", "mistral", "mixtral", "nanochat", "nemotron", "olmo",
    "olmo2", "olmo3", "olmoe", "opt", "persimmon", "phi", "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe",
    "seed_oss", "smollm3", "stablelm", "starcoder2",
)  # fmt: skip
"""Families with causal attention over the row or a window of it, without soft caps, sinks or position biases."""


@contextmanager
def without_mask(model: PreTrainedModel) -> Iterator[bool]:
    """Let `model` attend without a mask inside the block, if that is the same computation. Yields whether it is.

    Only for rows without padding, as training uses them. Small heads use the kernel of small_heads.py. All others use
    torch's `scaled_dot_product_attention` with `is_causal`.
    """
    if not is_plain(model.config):
        yield False
        return
    from transformers import AttentionInterface

    # Check this here: torch.compile would trace a check in the attention into the compilation of the kernel.
    has_kernel = _head_size(model.config) <= small_heads.LARGEST_HEAD and small_heads.kernel() is not None
    AttentionInterface.register(NAME, _attend_small if has_kernel else _attend)
    before = attention_of(model.config)
    model.set_attn_implementation(NAME)
    try:
        yield True
    finally:
        model.set_attn_implementation(before)


def is_plain(config: PretrainedConfig) -> bool:
    """Whether every layer attends to the whole row up to its position, through torch's attention."""
    return (
        config.model_type in PLAIN
        and attention_of(config) == "sdpa"
        and getattr(config, "is_causal", True) is not False
        and not getattr(config, "use_bidirectional_attention", None)
        and not _has_window(config)
    )


def _head_size(config: PretrainedConfig) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // max(config.num_attention_heads, 1))


def _has_window(config: PretrainedConfig) -> bool:
    """Whether a layer has a window shorter than the longest row, or a kind of attention unknown to this file."""
    kinds = set(getattr(config, "layer_types", None) or ("full_attention", "sliding_attention"))
    if not kinds <= {"full_attention", "sliding_attention"}:
        return True
    window = getattr(config, "sliding_window", None)
    if not window or "sliding_attention" not in kinds or getattr(config, "use_sliding_window", None) is False:
        return False
    longest = getattr(config, "max_position_embeddings", None)
    return not longest or bool(window < longest)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention function for transformers: (B, H, T, D) queries, keys and values to (B, T, H, D)."""
    assert attention_mask is None, "rows are not padded"
    return sdpa(module, query, key, value, None, dropout, scaling, **others)


def _attend_small(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """As `_attend`, by the kernel for small heads if it supports the tensors."""
    if dropout or not small_heads.suits(query, key, value):
        return _attend(module, query, key, value, attention_mask, dropout, scaling, **others)
    assert attention_mask is None, "rows are not padded"
    return small_heads.attend(query, key, value, scaling), None
