"""Attention without a mask computes what the model's own attention computes, and stays out of other families' way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from proctool.models import small_heads
from proctool.models.attention import NAME, PLAIN, without_mask
from proctool.models.build import build_model, config_of, model_config, set_dropout
from tests.models.tiny import CONTEXT, FAMILIES, VOCAB, tiny, tiny_config

OTHERS = (
    "apertus", "arcee", "cohere2", "ernie4_5", "glm", "glm4", "helium", "nemotron", "olmo3", "persimmon", "seed_oss"
)  # fmt: skip
"""Plain families of which proctool promises nothing else."""
SMALL = {
    "vocab_size": VOCAB, "max_position_embeddings": CONTEXT, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "hidden_size": 16, "intermediate_size": 32, "head_dim": 8, "pad_token_id": None,
    "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
TOKENS = torch.randint(VOCAB, (2, CONTEXT), generator=torch.Generator().manual_seed(0))


def small(family: str, **values: Any) -> PreTrainedModel:
    return build_model(config_of(family, SMALL | values), seed=1).eval()


def logits(model: PreTrainedModel) -> torch.Tensor:
    return model(TOKENS, use_cache=False).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("family", sorted({*PLAIN, *FAMILIES}))
def test_logits_are_the_models_own(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit where torch's attention serves; to rounding where the kernel for small heads does."""
    model = (small(family) if family in OTHERS else tiny(family)).eval()
    before, wanted = model.config.to_json_string(), logits(model)
    with without_mask(model) as used:
        assert used is (family in PLAIN)
        assert (model.config._attn_implementation == NAME) is used
        torch.testing.assert_close(logits(model), wanted, atol=2e-6, rtol=1e-5)
    monkeypatch.setattr(small_heads, "kernel", lambda: None)  # as without a C compiler
    with without_mask(model):
        assert torch.equal(logits(model), wanted)
    assert model.config.to_json_string() == before
    assert model.config._attn_implementation != NAME
    assert torch.equal(logits(model), wanted)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral", "gpt_bigcode"])
def test_heads_that_share_keys(family: str) -> None:
    model = small(family, num_attention_heads=4, num_key_value_heads=2, head_dim=4)
    wanted = logits(model)
    with without_mask(model) as used:
        assert used
        assert torch.equal(logits(model), wanted)  # the kernel for small heads takes as many keys as queries


@pytest.mark.parametrize(
    ("family", "values"),
    [
        ("mistral", {"sliding_window": 4}),
        ("phi3", {"sliding_window": 4}),
        ("starcoder2", {"sliding_window": 4}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0}),
        ("cohere2", {"sliding_window": 4}),
        ("gemma", {"use_bidirectional_attention": True}),
        ("gemma2", {}),  # caps
        ("bloom", {"n_head": 2}),  # ALiBi
        ("mpt", {}),
    ],
)
def test_other_attention_is_left_alone(family: str, values: dict[str, Any]) -> None:
    model = small(family, **values)
    wanted, before = logits(model), model.config._attn_implementation
    with without_mask(model) as used:
        assert not used
        assert model.config._attn_implementation == before
        assert torch.equal(logits(model), wanted)


def test_a_chosen_implementation_stays() -> None:
    model = tiny("llama")
    model.set_attn_implementation("eager")
    with without_mask(model) as used:
        assert not used
        assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_dropout_in_attention_is_the_models_own(family: str) -> None:
    config = tiny_config(family)
    set_dropout(config, 0.5)
    model = build_model(config, seed=0).train()

    def drawn() -> torch.Tensor:
        torch.manual_seed(3)
        return logits(model)

    wanted = drawn()
    with without_mask(model) as used:
        assert used
        assert torch.equal(drawn(), wanted)
    assert not torch.equal(wanted, logits(model.eval()))


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "olmo2", "phi", "qwen2", "qwen3"])
def test_under_autocast_attention_stays_right(family: str) -> None:
    config = model_config("2x2x16", vocab_size=VOCAB, context=CONTEXT, family=family, init_std=0.02)
    model = build_model(config, seed=1)
    wanted = logits(model)
    with torch.autocast("cpu", torch.bfloat16), without_mask(model):
        found = logits(model)
    torch.testing.assert_close(found.float(), wanted, atol=0.02, rtol=0.05)
