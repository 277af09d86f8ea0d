"""The kernel for small heads computes what torch's attention computes, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from proctool.models import small_heads as module
from proctool.models.build import build_model, model_config
from proctool.models.faster import faster
from proctool.models.small_heads import small_heads

needs_kernel = pytest.mark.skipif(module.kernel() is None, reason="no C compiler here")


@needs_kernel
@pytest.mark.parametrize(
    ("batch", "heads", "tokens", "size"), [(3, 4, 61, 4), (2, 1, 1, 8), (1, 3, 130, 16), (2, 2, 17, 5)]
)
def test_attention_and_gradients_are_torchs(batch: int, heads: int, tokens: int, size: int) -> None:
    torch.manual_seed(0)
    joined = torch.randn(batch, tokens, 3 * heads * size)  # as GPT-2 makes them: views into one tensor
    parts = [part.view(batch, tokens, heads, size).transpose(1, 2) for part in joined.split(heads * size, -1)]
    mine = [part.detach().clone().requires_grad_() for part in parts]
    theirs = [part.detach().double().requires_grad_() for part in parts]
    coming = torch.randn(batch, tokens, heads, size)
    out = module._attend(torch.nn.Module(), *mine, None)[0]
    wanted = scaled_dot_product_attention(*theirs, is_causal=True).transpose(1, 2)
    out.backward(coming)
    wanted.backward(coming.double())
    torch.testing.assert_close(out.double(), wanted, atol=3e-6, rtol=1e-5)
    for a, b in zip(mine, theirs, strict=True):
        assert a.grad is not None
        torch.testing.assert_close(a.grad.double(), b.grad, atol=2e-5, rtol=1e-4)
    views = module._attend(torch.nn.Module(), *parts, None)[0]  # strides as they come
    assert torch.equal(views, out)


@needs_kernel
def test_threads_do_not_change_a_bit() -> None:
    torch.manual_seed(0)
    parts = [torch.randn(5, 3, 40, 4) for _ in range(3)]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = module._attend(torch.nn.Module(), *parts, None)[0]
        torch.set_num_threads(2)
        shared = module._attend(torch.nn.Module(), *parts, None)[0]
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(alone, shared)


@needs_kernel
@pytest.mark.parametrize("family", module._PLAIN)
def test_a_models_logits_stay_and_its_configuration_too(family: str) -> None:
    model = build_model(model_config("2x2x16", vocab_size=50, context=40, family=family), seed=1)
    before, tokens = model.config.to_json_string(), torch.randint(0, 50, (2, 33))
    wanted = model(tokens).logits
    with small_heads(model) as used:
        assert used
        assert model.config._attn_implementation == module.NAME
        found = model(tokens, use_cache=False).logits
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-4)
    assert model.config.to_json_string() == before
    assert torch.equal(model(tokens).logits, wanted)


@pytest.mark.parametrize(
    ("family", "shape", "dropout"), [("gpt2", "1x1x32", 0.0), ("gpt2", "1x2x16", 0.1), ("gemma2", "1x2x16", 0.0)]
)
def test_other_attention_is_left_alone(family: str, shape: str, dropout: float) -> None:
    """Large heads, dropout, and families whose attention has windows or caps."""
    model = build_model(model_config(shape, vocab_size=20, context=20, family=family), seed=0)
    before = model.config._attn_implementation
    with small_heads(model, dropout=dropout) as used:
        assert not used
        assert model.config._attn_implementation == before


def test_without_a_compiler_torchs_attention_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "kernel", lambda: None)
    with small_heads(build_model(model_config("1x2x8", vocab_size=20, context=20), seed=0)) as used:
        assert not used


def test_faster_changes_no_logit_and_leaves_no_trace() -> None:
    model = build_model(model_config("2x2x64", vocab_size=50, context=40), seed=1)
    tokens = torch.randint(0, 50, (2, 40))
    wanted, before = model(tokens).logits, [type(part) for part in model.modules()]
    with faster(model):
        assert [type(part) for part in model.modules()] != before
        torch.testing.assert_close(model(tokens).logits, wanted, atol=2e-5, rtol=1e-4)
    assert [type(part) for part in model.modules()] == before
    assert torch.equal(model(tokens).logits, wanted)


@needs_kernel
def test_the_kernels_library_leaves_the_processors_arithmetic_alone() -> None:
    assert float.fromhex("0x1p-1074") / 1 > 0  # -ffast-math would have flushed it to zero


@needs_kernel
@pytest.mark.parametrize("family", module._PLAIN)
def test_under_autocast_attention_stays_right(family: str) -> None:
    config = model_config("2x2x16", vocab_size=50, context=40, family=family, init_std=0.02)
    model = build_model(config, seed=1)
    tokens = torch.randint(0, 50, (2, 33))
    wanted = model(tokens).logits
    with torch.autocast("cpu", torch.bfloat16), small_heads(model):
        found = model(tokens).logits
    torch.testing.assert_close(found.float(), wanted, atol=0.02, rtol=0.05)
