"""Budgets of one training step, counted on fake tensors: what a change may not exceed without anyone noticing.

A lower count is progress: lower its budget too. `python -m benchmarks.counts --ops 12` shows where a step's work is.
"""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks.counts import WORKLOADS, Counting, Workload, fake_tensors, layer_operations, step_cost
from proctool.models.attention import PLAIN
from proctool.models.faster import faster
from proctool.training.speed import step_kernels
from tests.models.tiny import CONTEXT, DENSE, tiny_config

SMALL = Workload("2x2x64", 50, 2, 32, 31, "fp32")


@pytest.mark.parametrize(
    ("name", "kernels", "gigabytes"),
    [
        ("GPT-2 small, 32 x 1024", 1530, 210.0),
        ("1.3B, 2 x 2048", 1007, 110.0),
        ("haystack 2x4x16, 1000 x 62", 120, 1.1),
    ],
)
def test_a_step_stays_within_its_budget(name: str, kernels: int, gigabytes: float) -> None:
    cost = step_cost(WORKLOADS[name])
    assert cost.kernels <= kernels
    assert cost.moved <= gigabytes * 1e9
    assert cost.waits == 0


@pytest.mark.parametrize(("family", "forward", "backward"), [("gpt2", 44, 79), ("llama", 53, 99), ("qwen3", 69, 129)])
def test_a_compiled_layer_stays_within_its_budget(family: str, forward: int, backward: int) -> None:
    found = layer_operations(family)
    assert found[0] <= forward
    assert found[1] <= backward


@pytest.mark.parametrize("family", sorted({*DENSE} & {*PLAIN}))
def test_a_forward_pass_asks_no_tensor_for_its_value(family: str) -> None:
    with fake_tensors():
        model = AutoModelForCausalLM.from_config(tiny_config(family)).train()
        with faster(model), Counting() as counting:
            model.base_model(input_ids=torch.zeros(2, CONTEXT, dtype=torch.long), use_cache=False)
    assert counting.waits == 0


def test_what_is_counted() -> None:
    own, ours = (step_cost(SMALL, change) for change in (lambda _: nullcontext(), faster))
    assert own.waits == ours.waits + 1  # transformers looks for packed rows
    assert own.kernels > ours.kernels
    assert own.moved > ours.moved
    products = [count for name, (count, _) in ours.by_operation.items() if "mm" in name]
    assert sum(products) == 3 * (2 * 4 + 1)  # forward, and for inputs and weights, of two layers and the head
    assert not any("view" in name or "transpose" in name for name in ours.by_operation)
    larger = step_cost(Workload("2x2x64", 50, 4, 32, 31, "fp32"))
    assert larger.kernels == ours.kernels
    assert ours.moved < larger.moved < 2 * ours.moved


@pytest.mark.parametrize(
    ("family", "precision", "most"), [("gpt2", "fp32", 1), ("gpt2", "bf16", 1.1), ("llama", "fp32", 3)]
)
def test_a_plan_counts_no_kernel_too_many(family: str, precision: str, most: float) -> None:
    counted = step_cost(Workload("3x2x16", 257, 4, 32, 31, precision, family)).kernels
    assert step_kernels(3, precision) <= counted <= most * step_kernels(3, precision)
