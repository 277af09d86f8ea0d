"""Built-in mappings for models of other projects, from the public definitions of their classes.

nanogpt         karpathy/nanoGPT, model.py
nanochat        karpathy/nanochat, nanochat/gpt.py, with and without value embeddings and residual scalars
litgpt          Lightning-AI/litgpt, litgpt/model.py
torchtitan      pytorch/torchtitan, models/llama3, from version 0.3: fused or split query, key and value
torchtitan-0.2  the same up to version 0.2, which has other names
"""

from __future__ import annotations

from proctool.foreign.mapping import ModelMapping, TensorRule

_QKV = ("query", "key", "value")

_NANOGPT = ModelMapping(
    "nanogpt",
    "transformer.h",
    inside=(
        TensorRule("ln_1", "norms", ("attention_norm",)),
        TensorRule("attn.c_attn", "attention", _QKV),
        TensorRule("attn.c_proj", "attention", ("attention_output",)),
        TensorRule("ln_2", "norms", ("mlp_norm",)),
        TensorRule("mlp.c_fc", "mlp", ("up",)),
        TensorRule("mlp.c_proj", "mlp", ("down",)),
    ),
    outside=(
        TensorRule("transformer.wte", "embeddings", ("tokens",)),
        TensorRule("transformer.wpe", "positions", ("positions",)),
        TensorRule("transformer.ln_f", "norms", ("final_norm",)),
        TensorRule("lm_head", "head", ("head",)),
    ),
    heads="config.n_head",
    padded_to=64,
)

_NANOCHAT = ModelMapping(
    "nanochat",
    "transformer.h",
    inside=(
        TensorRule("attn.c_q", "attention", ("query",)),
        TensorRule("attn.c_k", "attention", ("key",)),
        TensorRule("attn.c_v", "attention", ("value",)),
        TensorRule("attn.c_proj", "attention", ("attention_output",)),
        TensorRule("attn.ve_gate", "attention", optional=True),
        TensorRule("mlp.c_fc", "mlp", ("up",)),
        TensorRule("mlp.c_proj", "mlp", ("down",)),
    ),
    outside=(
        TensorRule("transformer.wte", "embeddings", ("tokens",)),
        TensorRule("value_embeds", "embeddings", optional=True),
        TensorRule("lm_head", "head", ("head",)),
        # Gains of the residual stream take the place of the norm weights of other models.
        TensorRule("resid_lambdas|x0_lambdas|backout_lambda", "norms", optional=True),
        # The smear adds the previous token: a convolution over two positions.
        TensorRule("smear_lambda", "mixer", optional=True),
        TensorRule("smear_gate", "mixer", optional=True),
    ),
    rotary="halves-reversed",
    heads="config.n_head",
    kv_heads="config.n_kv_head",
    vocabulary="config.vocab_size",
    padded_to=64,
)

_LITGPT = ModelMapping(
    "litgpt",
    "transformer.h",
    inside=(
        TensorRule("norm_1", "norms", ("attention_norm",), optional=True),
        TensorRule("attn.qkv", "attention", _QKV),
        TensorRule("attn.proj", "attention", ("attention_output",)),
        TensorRule("attn.norm_q", "attention", ("query_norm",), optional=True),
        TensorRule("attn.norm_k", "attention", ("key_norm",), optional=True),
        TensorRule("norm_2", "norms", ("mlp_norm",), optional=True),
        TensorRule("mlp.fc", "mlp", ("up",), optional=True),
        TensorRule("mlp.fc_1", "mlp", ("gate",), optional=True),
        TensorRule("mlp.fc_2", "mlp", ("up",), optional=True),
        TensorRule("mlp.proj", "mlp", ("down",)),
    ),
    outside=(
        TensorRule("transformer.wte", "embeddings", ("tokens",)),
        TensorRule("transformer.ln_f", "norms", ("final_norm",), optional=True),
        TensorRule("lm_head", "head", ("head",)),
    ),
    rotary="halves",
    heads="config.n_head",
    kv_heads="config.n_query_groups",
    vocabulary="config.vocab_size",
    padded_to=512,
)


def _torchtitan(name: str, qkv: str, head: str) -> ModelMapping:
    def attention(tensor: str, *parts: str, **more: bool) -> TensorRule:
        return TensorRule(f"attention.{tensor}", "attention", parts, **more)

    return ModelMapping(
        name,
        "layers",
        inside=(
            TensorRule("attention_norm", "norms", ("attention_norm",)),
            attention(f"{qkv}wq", "query", optional=True),
            attention(f"{qkv}wk", "key", optional=True),
            attention(f"{qkv}wv", "value", optional=True),
            attention(f"{qkv}wqkv", *_QKV, grouped=True, optional=True),
            attention("wo", "attention_output"),
            attention("q_norm", "query_norm", optional=True),
            attention("k_norm", "key_norm", optional=True),
            TensorRule("ffn_norm", "norms", ("mlp_norm",)),
            TensorRule("feed_forward.w1", "mlp", ("gate",)),
            TensorRule("feed_forward.w3", "mlp", ("up",)),
            TensorRule("feed_forward.w2", "mlp", ("down",)),
        ),
        outside=(
            TensorRule("tok_embeddings", "embeddings", ("tokens",)),
            TensorRule("norm", "norms", ("final_norm",)),
            TensorRule(head, "head", ("head",)),
        ),
        rotary="pairs",
        heads=("layers.0.attention.n_heads", "model_args.n_heads"),
        kv_heads=("layers.0.attention.n_kv_heads", "model_args.n_kv_heads"),
    )


PROJECTS = {
    mapping.name: mapping
    for mapping in (
        _NANOGPT,
        _NANOCHAT,
        _LITGPT,
        _torchtitan("torchtitan", "qkv_linear.", "lm_head"),
        _torchtitan("torchtitan-0.2", "", "output"),
    )
}
"""The built-in mappings by name."""
