"""Two processes over gloo that share a model in bf16 (FSDP2): what they add up loses nothing to bf16."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from proctool import artifact
from proctool.models.build import build_model, model_config
from proctool.procedural.samples import Samples
from proctool.training.batch import Batch
from proctool.training.loss import TargetLoss
from proctool.training.optimiser import make_optimiser
from proctool.training.warmup import warmup_job
from tests.event_lines import event_lines
from tests.training.runs import options
from tests.training.test_sharded import FSDP, launched, of_two

STEPS = 3


def started() -> tuple[TargetLoss, torch.optim.Optimizer]:
    """A fresh model with its loss, and its optimiser."""
    module = TargetLoss(build_model(model_config("2x2x16", vocab_size=23, context=8), seed=0).train())
    return module, make_optimiser(module, lr=1e-2, weight_decay=0.1, beta2=0.95)


def batches(step: int) -> list[Batch]:
    """What each of two processes sees in a step."""
    tokens = torch.randint(23, (2, 4, 8), generator=torch.Generator().manual_seed(step)).numpy()
    return [Batch.of(Samples(part, part >= 0)) for part in tokens]


@pytest.mark.slow
@pytest.mark.parametrize("path", ["plain", "fused"])
def test_gradients_are_added_up_in_fp32(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights are those of one process that computes in bf16 and adds and steps in fp32.

    Also with the loss of accelerators, which reads the gathered weights of the head itself.
    """
    if path == "fused":
        monkeypatch.setattr("proctool.training.loss.is_faster", lambda *given: True)
    well, said = of_two(tmp_path, path, "{}", "gradients", **FSDP)
    assert well, said
    found = load_file(tmp_path / "weights.safetensors")

    whole, optimiser = started()
    half, _ = started()
    half.bfloat16()
    losses = []
    for step in range(STEPS):
        with torch.no_grad():
            for to, value in zip(half.parameters(), whole.parameters(), strict=True):
                to.copy_(value)
        optimiser.zero_grad()
        for process, batch in enumerate(batches(step)):
            half.zero_grad()
            loss = half(batch.tokens, batch.positions, batch.labels) / 50
            (loss * 2).backward()
            if process == 0:
                losses.append(loss.detach())
            for to, each in zip(whole.parameters(), half.parameters(), strict=True):
                assert each.grad is not None
                to.grad = each.grad.float() / 2 + (0 if to.grad is None else to.grad)
        optimiser.step()
    torch.testing.assert_close(found["losses"], torch.stack(losses), rtol=1e-6, atol=0)
    for name, parameter in whole.model.named_parameters():
        torch.testing.assert_close(found[name], parameter.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_sharded_run_in_bf16_stays_close_to_one_process(tmp_path: Path) -> None:
    changes = {"accumulate": 2, "precision": "bf16"}
    warmup_job(options(tmp_path, "one", dropout=0.0, init_std=0.02, **changes)).run()
    well, said = launched(tmp_path, None, "two", **changes)
    assert well, said
    one, two = (artifact.read_torch(artifact.read_header(tmp_path / f"{name}.safetensors")) for name in ("one", "two"))
    for name, tensor in one.items():
        if not name.endswith("c_attn.bias"):  # the gradient of a key's bias is nothing but rounding
            torch.testing.assert_close(tensor, two[name], rtol=0.02, atol=3e-3)
    for mine, theirs in zip(event_lines(tmp_path / "one"), event_lines(tmp_path / "two"), strict=True):
        for key in mine.keys() & {"loss", "grad_norm"}:
            assert mine[key] == pytest.approx(theirs[key], rel=5e-3)
