"""The estimate of training's peak memory: against what autograd really keeps, and its proportions.

What whole processes take is measured by `python -m benchmarks.planning` (docs/planning.md).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from proctool.models.build import model_config, outline
from proctool.models.memory import Layout, Memory, training_memory
from tests.models.tiny import CONTEXT, EACH_FAMILY, VOCAB, tiny, tiny_config

MiB = 2**20


def memory_of(
    spec: str = "4x4x64", context: int = 64, vocabulary: int = 257, family: str = "gpt2", **how: Any
) -> Memory:
    config = model_config(spec, vocab_size=vocabulary, context=context, family=family)
    return training_memory(outline(config), length=context, **({"logits_at_once": 1 << 25} | how))


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3", "gemma2"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_activations_are_what_autograd_keeps(family: str, precision: str) -> None:
    from proctool.models.faster import lean_mlp, one_gelu

    config = tiny_config(family)
    estimate = training_memory(
        outline(config), length=CONTEXT, logits_at_once=1 << 25, precision=precision, on_cpu=True
    )
    model = tiny(family).train()
    own = {each.untyped_storage().data_ptr() for each in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with (
        one_gelu(model),
        lean_mlp(model),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        model.base_model(input_ids=torch.zeros((6, CONTEXT), dtype=torch.long), use_cache=False)
    assert estimate.copies + 6 * estimate.per_sample == pytest.approx(
        sum(storage.nbytes() for storage in kept.values()), rel=0.06
    )


def test_state_of_gpt2_small_by_hand() -> None:
    found = memory_of("gpt2", 1024, 50_257)
    assert found.parameters == found.trained == 124_439_808
    whole = Layout(1)
    assert found.state(whole) == 12 * 124_439_808  # weights and two moments
    assert found.gradients(whole) == 4 * 124_439_808
    assert found.gradients(Layout(1, 8)) == 8 * 124_439_808  # DDP's buckets
    assert found.state(Layout(1, 8, sharded=True)) == 12 * 124_439_808 // 8
    # 667 rows of logits at once, three times in fp32; the head's gradient twice, the hidden states and theirs.
    rows = (1 << 25) // 50_257
    assert found.logits(whole) == 12 * rows * 50_257 + 8 * 50_257 * 768 + 8 * 1024 * 768


def test_it_grows_with_what_is_larger() -> None:
    def peak(layout: Layout, *size: Any, **how: Any) -> int:
        return memory_of(*size, **how).peak(layout)

    one, two = Layout(1), Layout(2)
    assert peak(one) < peak(two) < peak(Layout(4))
    assert peak(two) < peak(two, "8x4x64") < peak(two, "8x4x128")
    assert peak(two) < peak(two, "4x4x64", 128)
    assert peak(two) < peak(two, "4x4x64", 64, 30_000)
    assert peak(two) < peak(Layout(2, accumulates=True))
    assert peak(Layout(16), precision="bf16") < peak(Layout(16))
    assert peak(Layout(16), checkpointing=True) < peak(Layout(16)) < peak(Layout(16), dropout=0.1)
    assert peak(Layout(16), dropout=0.1) < peak(Layout(16), dropout=0.1, on_cpu=True)


def test_sharding_takes_less_the_more_devices_there_are() -> None:
    found = memory_of("gpt2-medium", 1024, 50_257, precision="bf16")
    peaks = [found.peak(Layout(1, devices, sharded=True)) for devices in (2, 8, 64)]
    assert peaks == sorted(peaks, reverse=True)
    assert found.peak(Layout(1, 8)) == found.peak(Layout(1, 64)) > peaks[0]  # DDP holds all of it everywhere


def test_a_chunk_bounds_the_logits() -> None:
    few, many = (memory_of(context=512, vocabulary=50_257, logits_at_once=limit) for limit in (1 << 22, 1 << 25))
    assert few.logits(Layout(8)) < many.logits(Layout(8))
    assert many.logits(Layout(64)) - many.logits(Layout(32)) == 32 * 512 * 64 * 8  # hidden states alone


def test_the_largest_micro_batch_is_the_last_that_fits() -> None:
    found = memory_of("4x4x128", 256)
    for room in (30 * MiB, 100 * MiB, 300 * MiB):
        largest = found.largest_micro_batch(room, 64)
        assert largest in (0, 1, 2, 4, 8, 16, 32, 64)
        assert not largest or found.peak(Layout(largest, accumulates=largest < 64)) <= room
        larger = max(1, 2 * largest)
        assert larger > 64 or found.peak(Layout(larger, accumulates=larger < 64)) > room


def test_frozen_parameters_have_neither_gradients_nor_moments() -> None:
    model = tiny("gpt2")
    for parameter in model.base_model.h.parameters():
        parameter.requires_grad_(False)
    found = training_memory(model, length=CONTEXT, logits_at_once=1 << 25)
    assert found.trained < found.parameters
    assert found.state(Layout(1)) == 4 * found.parameters + 8 * found.trained


@pytest.mark.parametrize("family", EACH_FAMILY)
def test_every_family_has_an_estimate(family: str) -> None:
    found = training_memory(outline(tiny_config(family)), length=CONTEXT, logits_at_once=1 << 25)
    assert found.per_sample >= 2 * CONTEXT * found.width * 4
    assert found.vocabulary == VOCAB
    assert found.peak(Layout(1)) < found.peak(Layout(8))
