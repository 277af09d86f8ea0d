"""What must hold for every architecture family that proctool supports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from proctool.errors import ModelError
from proctool.export.folder import export
from proctool.models.build import build_model, config_of, model_config
from proctool.models.saved import open_model, save_model
from proctool.procedural.samples import Samples
from proctool.training.batch import Batch
from proctool.training.loss import TargetLoss
from tests.models.tiny import EACH_FAMILY, tiny, tiny_config


@pytest.mark.parametrize("family", EACH_FAMILY)
def test_the_loss_at_targets_is_the_plain_cross_entropy(family: str) -> None:
    model = tiny(family).eval()
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 23, (3, 12)).astype(np.uint16)
    targets = rng.random((3, 12)) < 0.4
    batch = Batch.of(Samples(tokens, targets))
    found = TargetLoss(model)(batch.tokens, batch.positions, batch.labels)
    logits = model(torch.as_tensor(tokens.astype(np.int64))).logits
    expected = sum(
        functional.cross_entropy(logits[row, column - 1], torch.tensor(int(tokens[row, column])))
        for row, column in zip(*np.nonzero(targets), strict=True)
        if column > 0
    )
    torch.testing.assert_close(found, torch.as_tensor(expected))


@pytest.mark.parametrize(
    ("family", "bend"),
    [
        ("granite", {"logits_scaling": 8.0}),
        ("granitemoe", {"logits_scaling": 8.0}),
        ("falcon_h1", {"lm_head_multiplier": 0.5}),
        ("cohere", {"logit_scale": 0.5}),
        ("gemma2", {"final_logit_softcapping": 0.1}),
    ],
)
def test_logits_that_a_family_bends_are_bent_in_the_loss_too(family: str, bend: dict[str, float]) -> None:
    config = tiny_config(family)
    for name, value in bend.items():
        setattr(config, name, value)
    model = build_model(config, seed=0).eval()
    tokens = torch.arange(12)[None] % 23
    expected = functional.cross_entropy(model(tokens).logits[0, :-1], tokens[0, 1:], reduction="sum")
    found = TargetLoss(model)(tokens, torch.arange(11), tokens[0, 1:])
    torch.testing.assert_close(found, expected)


def test_a_family_that_bends_its_logits_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    whole = model.forward
    monkeypatch.setattr(model, "forward", lambda **given: _halved(whole(**given)))
    with pytest.raises(ModelError, match="unsupported logit post-processing"):
        TargetLoss(model)


def _halved(out: Any) -> Any:
    out.logits = out.logits / 2
    return out


@pytest.mark.parametrize("family", EACH_FAMILY)
def test_saved_and_exported_models_give_the_same_logits(family: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = tiny(family, seed=7).eval()
    tokens = torch.arange(12)[None] % 23
    save_model(tmp_path / "m.safetensors", model, {})
    saved = open_model(tmp_path / "m.safetensors")
    export(saved, tmp_path / "hf")
    expected = model(tokens).logits
    for again in (
        saved.model(),
        AutoModelForCausalLM.from_pretrained(tmp_path / "hf"),
        open_model(tmp_path / "hf").model(),
    ):
        assert torch.equal(again.eval()(tokens).logits, expected)


def test_large_vocabularies_in_chunks_give_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = np.random.default_rng(1).integers(0, 23, (4, 12)).astype(np.uint16)
    batch = Batch.of(Samples(tokens, np.ones((4, 12), bool)))
    gradients = []
    for limit in (1 << 26, 23 * 5):
        monkeypatch.setattr("proctool.training.loss.LOGITS_AT_ONCE", limit)
        model = tiny("gpt2")
        TargetLoss(model)(batch.tokens, batch.positions, batch.labels).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for whole, chunked in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, chunked)


def test_a_seed_draws_the_same_weights_and_leaves_the_random_state() -> None:
    before = torch.get_rng_state()
    first, second, other = tiny("gpt2", 1), tiny("gpt2", 1), tiny("gpt2", 2)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("spec", ["0x1x16", "2x3x16", "2x4", "gtp2", "1000000x1x1", ""])
def test_impossible_models_are_refused(spec: str) -> None:
    with pytest.raises(ModelError):
        model_config(spec, vocab_size=10, context=8)


def test_configurations_that_would_run_code_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "auto_map": {"AutoModel": "evil.py"}}')
    with pytest.raises(ModelError, match="run code"):
        model_config(str(tmp_path), vocab_size=10, context=8)


def test_unknown_families_are_refused_with_the_nearest() -> None:
    with pytest.raises(ModelError, match="llama"):
        config_of("lama", {})
