"""The same function in less time and memory: what is computed, and what the backward pass is kept waiting with."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from proctool.models.faster import faster, lean_mlp, one_gelu
from tests.models.tiny import CONTEXT, VOCAB, tiny


def gradients(way: object, half: bool = False) -> list[torch.Tensor]:
    torch.manual_seed(0)
    model = tiny("gpt2").eval()  # no dropout; gradients all the same
    tokens = torch.randint(VOCAB, (3, CONTEXT), generator=torch.Generator().manual_seed(1))
    with way(model), torch.autocast("cpu", torch.bfloat16, enabled=half):  # type: ignore[operator]
        model(input_ids=tokens, use_cache=False).logits.float().logsumexp(-1).sum().backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("half", [False, True])
def test_gradients_stay(half: bool) -> None:
    plain, fast = gradients(lambda _: nullcontext(), half), gradients(faster, half)
    assert len(plain) == len(fast)
    for one, other in zip(plain, fast, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-2 if half else 1e-4, atol=2e-2 if half else 1e-5)


def test_inner_activations_are_kept_once() -> None:
    def kept(lean: bool) -> int:
        model = tiny("gpt2").train()
        seen: dict[int, torch.UntypedStorage] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
            return tensor

        with (
            one_gelu(model),
            lean_mlp(model) if lean else nullcontext(),
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        ):
            model(input_ids=torch.zeros((3, CONTEXT), dtype=torch.long), use_cache=False)
        own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        return sum(storage.nbytes() for place, storage in seen.items() if place not in own)

    config = tiny("gpt2").config
    saved = config.num_hidden_layers * 3 * CONTEXT * 4 * config.hidden_size * 4
    assert kept(lean=False) - kept(lean=True) == saved


def test_models_are_left_as_they_were() -> None:
    model = tiny("gpt2")
    before = str(model), [list(module.__dict__) for module in model.modules()]
    with faster(model):
        assert str(model) != before[0]
    assert (str(model), [list(module.__dict__) for module in model.modules()]) == before
