"""Mappings of transformers families, to carry weights between them and models of other projects."""

from __future__ import annotations

from dataclasses import replace

from proctool.errors import ModelError
from proctool.foreign.mapping import ModelMapping, TensorRule

_QKV = ("query", "key", "value")


def _llama(*inside: TensorRule) -> ModelMapping:
    """A mapping with the names that most families share; `inside` are the rules of attention and MLP."""
    return ModelMapping(
        "",
        "model.layers",
        inside=(
            TensorRule("input_layernorm", "norms", ("attention_norm",), optional=True),
            *inside,
            TensorRule("self_attn.o_proj", "attention", ("attention_output",)),
            TensorRule("self_attn.q_norm", "attention", ("query_norm",), optional=True),
            TensorRule("self_attn.k_norm", "attention", ("key_norm",), optional=True),
            TensorRule("post_attention_layernorm", "norms", ("mlp_norm",), optional=True),
        ),
        outside=(
            TensorRule("model.embed_tokens", "embeddings", ("tokens",)),
            TensorRule("model.norm", "norms", ("final_norm",), optional=True),
            TensorRule("lm_head", "head", ("head",)),
        ),
        rotary="halves",
        heads="config.num_attention_heads",
        kv_heads="config.num_key_value_heads",
    )


_SPLIT_ATTENTION = tuple(
    TensorRule(f"self_attn.{name}_proj", "attention", (part,))
    for name, part in (("q", "query"), ("k", "key"), ("v", "value"))
)
_SPLIT = _llama(
    *_SPLIT_ATTENTION,
    TensorRule("mlp.gate_proj", "mlp", ("gate",)),
    TensorRule("mlp.up_proj", "mlp", ("up",)),
    TensorRule("mlp.down_proj", "mlp", ("down",)),
)
_PHI3 = _llama(
    TensorRule("self_attn.qkv_proj", "attention", _QKV),
    TensorRule("mlp.gate_up_proj", "mlp", ("gate", "up")),
    TensorRule("mlp.down_proj", "mlp", ("down",)),
)
_NANOCHAT = replace(
    _llama(*_SPLIT_ATTENTION, TensorRule("mlp.fc1", "mlp", ("up",)), TensorRule("mlp.fc2", "mlp", ("down",))),
    rotary="halves-reversed",
)
_GPT2 = ModelMapping(
    "",
    "transformer.h",
    inside=(
        TensorRule("ln_1", "norms", ("attention_norm",)),
        TensorRule("attn.c_attn", "attention", _QKV, transposed=True),
        TensorRule("attn.c_proj", "attention", ("attention_output",), transposed=True),
        TensorRule("ln_2", "norms", ("mlp_norm",)),
        TensorRule("mlp.c_fc", "mlp", ("up",), transposed=True),
        TensorRule("mlp.c_proj", "mlp", ("down",), transposed=True),
    ),
    outside=(
        TensorRule("transformer.wte", "embeddings", ("tokens",)),
        TensorRule("transformer.wpe", "positions", ("positions",)),
        TensorRule("transformer.ln_f", "norms", ("final_norm",)),
        TensorRule("lm_head", "head", ("head",)),
    ),
    heads="config.num_attention_heads",
)
_GPT_NEOX = ModelMapping(
    "",
    "gpt_neox.layers",
    inside=(
        TensorRule("input_layernorm", "norms", ("attention_norm",)),
        TensorRule("attention.query_key_value", "attention", _QKV, grouped=True),
        TensorRule("attention.dense", "attention", ("attention_output",)),
        TensorRule("post_attention_layernorm", "norms", ("mlp_norm",)),
        TensorRule("mlp.dense_h_to_4h", "mlp", ("up",)),
        TensorRule("mlp.dense_4h_to_h", "mlp", ("down",)),
    ),
    outside=(
        TensorRule("gpt_neox.embed_in", "embeddings", ("tokens",)),
        TensorRule("gpt_neox.final_layer_norm", "norms", ("final_norm",)),
        TensorRule("lm_head", "head", ("head",)),
    ),
    rotary="halves",
    heads="config.num_attention_heads",
)

FAMILIES = {
    family: replace(mapping, name=family)
    for family, mapping in {
        "gpt2": _GPT2,
        "gpt_neox": _GPT_NEOX,
        "llama": _SPLIT,
        "mistral": _SPLIT,
        "qwen2": _SPLIT,
        "qwen3": _SPLIT,
        "phi3": _PHI3,
        "nanochat": _NANOCHAT,
    }.items()
}
"""The families that can be carried into models of other projects."""


def family_mapping(family: str) -> ModelMapping:
    """The mapping of a transformers family. Raises ModelError for a family without a mapping."""
    if family not in FAMILIES:
        raise ModelError(
            f"{family}: proctool cannot carry weights between this family and other projects; "
            f"supported: {', '.join(FAMILIES)}"
        )
    return FAMILIES[family]
