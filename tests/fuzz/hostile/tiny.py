"""A good model of four numbers a token, for bad ones to differ from."""

from __future__ import annotations

from typing import Any

TINY = {"model_type": "gpt2", "n_layer": 1, "n_head": 1, "n_embd": 4, "vocab_size": 8, "n_positions": 8}


def tiny_weights(extra: float = 0.0) -> dict[str, Any]:
    """The weights of the TINY configuration under their Hugging Face names."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    values = dict(TINY)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(values.pop("model_type"), **values))
    with torch.no_grad():
        model.transformer.wte.weight[3, 1] += extra
    return {name: tensor.detach() for name, tensor in model.named_parameters()}
