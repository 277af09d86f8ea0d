"""How a model is given to DDP. That its results are those of one process: test_training.py and test_faults.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from accelerate.utils import DistributedType

from proctool.training.background import HostCopies
from proctool.training.devices import accelerator_of
from proctool.training.engine import Engine
from proctool.training.loss import TargetLoss
from proctool.training.optimiser import make_optimiser
from tests.models.tiny import tiny


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_gradients_lie_in_large_buckets_and_no_buffer_is_sent(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, Any]] = []

    def spy(module: torch.nn.Module, **how: Any) -> torch.nn.Module:
        given.append(how)
        return module

    accelerator = accelerator_of("fp32")
    monkeypatch.setattr(torch.nn.parallel, "DistributedDataParallel", spy)
    monkeypatch.setitem(accelerator.state.__dict__, "distributed_type", DistributedType.MULTI_CPU)
    module = TargetLoss(tiny("llama"))
    optimiser = make_optimiser(module.model, lr=1e-3, weight_decay=0.1, beta2=0.95, optimizer=optimizer)
    engine = Engine(accelerator, module, optimiser)
    assert given == [{"gradient_as_bucket_view": True, "bucket_cap_mb": 100, "broadcast_buffers": False}]
    before = engine.weights(HostCopies())
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    engine.step()
    assert all(not torch.equal(before[name], after) for name, after in engine.weights().items())
