"""Floating-point operations of training, from a model's parts; any device, meta too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proctool.errors import ModelError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
_CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "moe_topk")


def _first(config: PretrainedConfig, names: tuple[str, ...]) -> Any:
    return next((value for name in names if (value := getattr(config, name, None))), None)


def chosen_experts(config: PretrainedConfig) -> int:
    """Experts per token; 1 without experts."""
    return int(_first(config, _CHOSEN) or 1)


def active_parameters(model: PreTrainedModel) -> int:
    """Parameters that multiply a token: the chosen experts and the head, but no look-up tables.

    Norms and biases are left out: they are negligible compared with matrices.
    """
    from torch import nn

    config = model.config
    experts, chosen = _first(config, _EXPERTS), _first(config, _CHOSEN)
    head = model.get_output_embeddings()
    tables = {id(p) for part in model.modules() if isinstance(part, nn.Embedding) for p in part.parameters()}
    total = head.weight.numel() if head is not None and id(head.weight) in tables else 0
    for parameter in model.parameters():
        if parameter.dim() < 2 or id(parameter) in tables:
            continue
        is_experts = parameter.dim() == 3 and experts and parameter.shape[0] == experts
        total += parameter.numel() * chosen // experts if is_experts and chosen else parameter.numel()
    return int(total)


def training_flops(model: PreTrainedModel, tokens: int, length: int) -> int:
    """Floating-point operations of training on `tokens` tokens in samples of `length`, forward and backward.

    6 per active parameter and token; for attention 6 x layers x length x heads x (key size + value size) per token, as
    in Chowdhery et al. (PaLM, https://arxiv.org/abs/2204.02311, appendix B): the causal mask is not subtracted, a
    sliding window is. The head is counted at every position, which is too much if few positions are targets.
    Recomputation by gradient checkpointing is not counted.
    """
    return tokens * token_flops(model, length)


def token_flops(model: PreTrainedModel, length: int) -> int:
    """`training_flops` of one token."""
    return 6 * active_parameters(model) + _attention(model, length)


def _attention(model: PreTrainedModel, length: int) -> int:
    """Operations of attention's two matrix products, for one token."""
    from proctool.models.components import components

    config = model.config
    layers: set[int | None]
    try:
        layers = {place.layer for place in components(model).values() if place.component == "attention"}
    except ModelError:  # a family whose parts are not known trains all the same
        layers = set(range(int(getattr(config, "num_hidden_layers", 0) or 0)))
    heads = int(getattr(config, "num_attention_heads", 0) or 0) if layers else 0
    if not heads:
        return 0
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    nope, rope = getattr(config, "qk_nope_head_dim", None), getattr(config, "qk_rope_head_dim", None)
    keys = nope + rope if nope and rope else size  # multi-head latent attention
    values = getattr(config, "v_head_dim", None) or size
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    seen = 0
    for layer in layers:
        slides = "sliding" in str(kinds[layer]) if kinds and layer is not None and layer < len(kinds) else True
        seen += min(length, window) if window and slides else length
    return int(6 * seen * heads * (keys + values))
