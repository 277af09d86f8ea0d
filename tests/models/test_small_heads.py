"""The kernel for small heads computes what torch's attention computes, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from proctool.models import small_heads as module
from proctool.models.build import build_model, model_config
from proctool.models.faster import faster

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
    out = module.attend(*mine)
    wanted = scaled_dot_product_attention(*theirs, is_causal=True).transpose(1, 2)
    out.backward(coming)
    wanted.backward(coming.double())
    torch.testing.assert_close(out.double(), wanted, atol=3e-6, rtol=1e-5)
    for a, b in zip(mine, theirs, strict=True):
        assert a.grad is not None
        torch.testing.assert_close(a.grad.double(), b.grad, atol=2e-5, rtol=1e-4)
    views = module.attend(*parts)  # strides as they come
    assert torch.equal(views, out)


@needs_kernel
def test_threads_do_not_change_a_bit() -> None:
    torch.manual_seed(0)
    parts = [torch.randn(5, 3, 40, 4) for _ in range(3)]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = module.attend(*parts)
        torch.set_num_threads(2)
        shared = module.attend(*parts)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(alone, shared)


@pytest.mark.parametrize(
    ("shape", "dtype"), [((1, 2, 5, 17), torch.float32), ((1, 2, 5, 4), torch.bfloat16), ((1, 2, 5, 4), torch.float64)]
)
def test_others_are_left_to_torch(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    assert not module.suits(*(torch.zeros(shape, dtype=dtype) for _ in range(3)))
    assert not module.suits(torch.zeros(1, 2, 5, 4), *(torch.zeros(1, 1, 5, 4) for _ in range(2)))


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
