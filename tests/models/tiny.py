"""A tiny model of every architecture family that proctool promises to take apart."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import PretrainedConfig, PreTrainedModel

from proctool.models.build import build_model, config_of, model_config

VOCAB, CONTEXT = 23, 12

DENSE = (
    "gpt2", "llama", "mistral", "qwen2", "qwen3", "gpt_neox", "olmo2", "gemma", "gemma2", "phi", "phi3", "bloom",
    "opt", "starcoder2", "stablelm", "cohere", "granite", "smollm3", "olmo", "gpt_bigcode", "mpt", "nanochat",
)  # fmt: skip

_SMALL = {
    "vocab_size": VOCAB, "max_position_embeddings": CONTEXT, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "hidden_size": 16, "intermediate_size": 32, "pad_token_id": None,
}  # fmt: skip
_EXPERTS = {
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 8,
    "head_dim": 8,
}
_MAMBA2 = {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 4}
_NEMOTRON = {
    "hybrid_override_pattern": "M*-", "num_hidden_layers": 3, "mamba_num_heads": 4, "mamba_head_dim": 8,
    "ssm_state_size": 8, "n_groups": 1, "chunk_size": 4, "head_dim": 8,
}  # fmt: skip
_EXTRA: dict[str, dict[str, Any]] = {
    # mixtures of experts
    "mixtral": _EXPERTS,
    "qwen2_moe": _EXPERTS | {"shared_expert_intermediate_size": 8},
    "qwen3_moe": _EXPERTS,
    "olmoe": _EXPERTS,
    "granitemoe": _EXPERTS,
    "deepseek_v3": {
        "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 8,
        "first_k_dense_replace": 1, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4,
        "v_head_dim": 8,
    },
    # state-space and other hybrids: layers of attention beside layers of something else
    "jamba": _EXPERTS | {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 4, "mamba_dt_rank": 4,
              "use_mamba_kernels": False},
    "bamba": _MAMBA2 | {"attn_layer_indices": [1]},
    "falcon_h1": _MAMBA2 | {"head_dim": 8, "mamba_d_ssm": 32},
    "granitemoehybrid": _EXPERTS | _MAMBA2 | {"layer_types": ["mamba", "attention"], "shared_intermediate_size": 8},
    "nemotron_h": _NEMOTRON,
    "recurrent_gemma": {"lru_width": 16, "block_types": ["recurrent", "attention"], "head_dim": 8,
                        "attention_window_size": 12},
    "qwen3_next": _EXPERTS | {
        "shared_expert_intermediate_size": 8, "layer_types": ["linear_attention", "full_attention"],
        "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    },
    "olmo_hybrid": {"layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2,
                    "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 4, "head_dim": 8, "state_size": 8, "n_groups": 1, "chunk_size": 4, "expand": 2},
}  # fmt: skip

EXPERTS = ("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "granitemoe", "deepseek_v3")
HYBRIDS = (
    "jamba", "bamba", "falcon_h1", "granitemoehybrid", "nemotron_h", "recurrent_gemma", "qwen3_next", "olmo_hybrid",
    "lfm2", "mamba2",
)  # fmt: skip
FAMILIES = (*DENSE, *EXPERTS, *HYBRIDS)
FEW = ("gpt2", "llama", "qwen3", "gemma2", "phi", "mixtral", "bloom", "mamba2", "olmo2")
EACH_FAMILY = tuple(each if each in FEW else pytest.param(each, marks=pytest.mark.slow) for each in FAMILIES)
"""Every family, most of them in `make test` only."""


def tiny_config(family: str) -> PretrainedConfig:
    if family in DENSE:
        return model_config("2x2x16", vocab_size=VOCAB, context=CONTEXT, family=family)
    return config_of(family, _SMALL | _EXTRA[family])


def tiny(family: str, seed: int = 0) -> PreTrainedModel:
    return build_model(tiny_config(family), seed)
