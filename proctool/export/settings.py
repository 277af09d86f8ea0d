"""A transformers configuration as settings of other projects. A model that they compute differently is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from proctool.errors import ModelError
from proctool.foreign.apart import TakenApart
from proctool.models.build import context_of

_TANH = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")
"""The names of GELU's tanh approximation."""


@dataclass(frozen=True)
class Settings:
    """The fields of a project's settings, and notes about small differences."""

    fields: dict[str, Any]
    differences: tuple[str, ...] = ()


def why_not(project: str, family: str) -> str:
    """The reason why a project's class does not support a family; empty if it is simply another family."""
    if family == "gpt2":
        return ": its positions are rotary, but GPT-2's are learned"
    if project == "nanogpt":
        return ": its positions are learned, its norms are LayerNorm and its MLP has no gate"
    return ""


def nanogpt(source: TakenApart, config: Any) -> Settings:
    """Fields of nanoGPT's GPTConfig. Raises ModelError."""
    _require(config.layer_norm_epsilon == 1e-5, f"layer_norm_epsilon is {config.layer_norm_epsilon}, not 1e-05")
    _require(config.n_inner in (None, 4 * config.n_embd), f"n_inner is {config.n_inner}, not {4 * config.n_embd}")
    _require(config.scale_attn_weights, "its attention is not scaled")
    _require(not config.scale_attn_by_inverse_layer_idx, "its attention is scaled by layer")
    _require((None, "head.weight") not in source.where, "its head is not tied to the embeddings")
    activation = config.activation_function
    _require(activation in ("gelu", *_TANH), f"its activation is {activation}, not gelu")
    told = (
        ()
        if activation == "gelu"
        else (f"nanoGPT computes gelu exactly, but this model uses {activation}; logits differ slightly",)
    )
    fields = {
        "block_size": config.n_positions,
        "vocab_size": config.vocab_size,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_embd": config.n_embd,
        "dropout": 0.0,
        "bias": True,
    }
    return Settings(fields, told)


def litgpt(source: TakenApart, config: Any) -> Settings:
    """Fields of litgpt's Config. Raises ModelError."""
    is_neox = config.model_type == "gpt_neox"
    rotary = _rotary(config)
    _require_all_tokens_seen(config)
    heads = source.heads
    assert heads is not None, "every family's configuration names its heads"
    has = {part: (0, f"{part}.bias") in source.where for part in ("query", "attention_output", "down")}
    _require(has["attention_output"] == has["down"], "only one of attention and MLP has biases")
    activation = config.hidden_act
    known = ("gelu", *_TANH) if is_neox else ("silu",)
    _require(activation in known, f"its activation is {activation}, not {' or '.join(known)}")
    fields = {
        "block_size": context_of(config),
        "n_layer": source.layers,
        "n_embd": config.hidden_size,
        "vocab_size": config.vocab_size,
        "padded_vocab_size": config.vocab_size,
        "n_head": heads.query,
        "head_size": heads.size,
        "n_query_groups": heads.groups,
        "norm_class_name": "LayerNorm" if is_neox else "RMSNorm",
        "norm_eps": config.layer_norm_eps if is_neox else config.rms_norm_eps,
        "norm_qk": (0, "query_norm.weight") in source.where,
        "parallel_residual": is_neox and bool(config.use_parallel_residual),
        "shared_attention_norm": False,
        "bias": has["down"],
        "attn_bias": has["query"],
        "lm_head_bias": False,
        "rope_base": _whole(rotary["rope_theta"]),
        "rotary_percentage": float(rotary.get("partial_rotary_factor", 1.0)),
        "intermediate_size": config.intermediate_size,
        "mlp_class_name": "GptNeoxMLP" if is_neox else "LLaMAMLP",
        "gelu_approximate": "tanh" if activation in _TANH else "none",
    }
    return Settings(fields)


def torchtitan(source: TakenApart, config: Any) -> Settings:
    """The settings of torchtitan's Llama (version 0.3): the sizes, and the fields of ComplexRoPE.Config.

    Raises ModelError.
    """
    sizes, theta = _torchtitan_sizes(source, config)
    assert source.heads is not None, "every family's configuration names its heads"
    rope = {
        "dim": source.heads.size,
        "max_seq_len": context_of(config),
        "theta": theta,
        "scaling": "none",
    }
    more = {"hidden_dim": config.intermediate_size, "rope": rope, "enable_weight_tying": bool(source.tied)}
    return Settings({**sizes, **more})


def torchtitan_02(source: TakenApart, config: Any) -> Settings:
    """Fields of TransformerModelArgs of torchtitan's Llama up to version 0.2. It never ties the head and always scales
    rotary positions; here the scale is 1. Raises ModelError."""
    sizes, theta = _torchtitan_sizes(source, config)
    hidden, width = config.intermediate_size, int(2 * 4 * config.hidden_size / 3)
    more = {
        "multiple_of": 1,
        # The class rounds the product down; half a row more gives the exact number.
        "ffn_dim_multiplier": (hidden + 0.5) / width,
        "rope_theta": theta,
        "max_seq_len": context_of(config),
        "rope_scaling_args": {"scaling_factor": 1.0},
    }
    return Settings({**sizes, **more})


def _torchtitan_sizes(source: TakenApart, config: Any) -> tuple[dict[str, Any], float]:
    rotary = _rotary(config)
    _require_all_tokens_seen(config)
    heads = source.heads
    assert heads is not None, "every family's configuration names its heads"
    width = config.hidden_size // heads.query
    _require(heads.size == width, f"its heads have {heads.size} rows, not {width}")
    _require(config.hidden_act == "silu", f"its activation is {config.hidden_act}, not silu")
    sizes = {
        "dim": config.hidden_size,
        "n_layers": source.layers,
        "n_heads": heads.query,
        "n_kv_heads": heads.groups,
        "vocab_size": config.vocab_size,
        "norm_eps": config.rms_norm_eps,
    }
    return sizes, float(rotary["rope_theta"])


def _rotary(config: Any) -> dict[str, Any]:
    rotary = dict(getattr(config, "rope_parameters", None) or {})
    kind = rotary.get("rope_type", "default")
    _require(kind == "default", f"its rotary positions are scaled ({kind}), which proctool does not translate")
    _require(isinstance(rotary.get("rope_theta"), int | float), "its configuration has no rope_theta")
    return rotary


def _require_all_tokens_seen(config: Any) -> None:
    kinds = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None)
    is_whole = kinds == {"full_attention"} or window is None or window >= (context_of(config) or 0)
    _require(is_whole, f"its attention has a sliding window of {window} tokens")


def _whole(number: float) -> int | float:
    return int(number) if number == int(number) else number


def _require(holds: bool, reason: str) -> None:
    if not holds:
        raise ModelError(reason)
