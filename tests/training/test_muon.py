"""Muon for the matrices of attention and MLPs, and learning rates by component."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from proctool import artifact
from proctool.errors import OptionError, ProctoolError, RunError
from proctool.evaluation.finetune.classifier import build_classifier, classifier_config
from proctool.models.build import build_model, outline
from proctool.models.components import components, hidden_matrices
from proctool.models.memory import Layout, training_memory
from proctool.models.saved import open_model
from proctool.training.engine import Engine
from proctool.training.late import LAG, lag_of
from proctool.training.optimiser import MuonAndAdamW, make_optimiser, set_rate
from proctool.training.options import recorded
from proctool.training.run_form import read_form
from proctool.training.warmup import warmup_job
from tests.models.tiny import CONTEXT, EACH_FAMILY, tiny, tiny_config
from tests.training.runs import contents, options, same_after_kills
from tests.training.test_late import poison

BY_COMPONENT = ("attention=0.5", "embeddings=2")


def matrices_of(model: Any) -> set[str]:
    """The weights of linear layers and routers inside attention and MLPs, found from the modules."""
    places, found = components(model), set()
    for path, module in model.named_modules():
        multiplies = isinstance(module, nn.Linear | Conv1D) or type(module).__name__.endswith("Router")
        place = places.get(name := f"{path}.weight")
        if multiplies and place is not None and place.component in ("attention", "mlp"):
            found.add(name)
    return found


@pytest.mark.parametrize("family", EACH_FAMILY)
def test_a_step_is_that_of_torchs_muon_and_adamw(family: str) -> None:
    mine = tiny(family)
    for number, parameter in enumerate(mine.parameters()):
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
    theirs, expected = copy.deepcopy(mine), matrices_of(mine)
    for name, parameter in theirs.named_parameters():
        parameter.grad = mine.get_parameter(name).grad
    how = {"lr": 0.01, "weight_decay": 0.3}
    embedded = {id(each) for part in theirs.modules() if isinstance(part, nn.Embedding) for each in part.parameters()}
    for name, parameter in theirs.named_parameters():
        if name in expected:
            torch.optim.Muon([parameter], adjust_lr_fn="match_rms_adamw", **how).step()
        else:
            decays = parameter.dim() >= 2 and id(parameter) not in embedded
            torch.optim.AdamW(
                [parameter], lr=0.01, betas=(0.9, 0.95), weight_decay=0.3 if decays else 0.0, fused=True
            ).step()
    if expected:
        optimiser = make_optimiser(mine, beta2=0.95, optimizer="muon", **how)
        optimiser.load_state_dict(optimiser.state_dict())  # Accelerate does
        optimiser.step()
        for name, parameter in mine.named_parameters():
            assert torch.equal(parameter, theirs.get_parameter(name)), name
            keys = {"momentum_buffer"} if name in expected else {"exp_avg", "exp_avg_sq", "step"}
            assert optimiser.state[parameter].keys() == keys, name
    assert bool(expected) == (family != "mamba2")
    found = training_memory(mine, length=CONTEXT, logits_at_once=1 << 25, optimizer="muon")
    held = sum((1 if name in expected else 2) * each.numel() for name, each in mine.named_parameters())
    assert found.state(Layout(1)) == 4 * (found.parameters + held)


def test_norms_with_a_row_for_each_head_are_not_muons() -> None:
    config = tiny_config("cohere")
    config.use_qk_norm = True
    model = outline(config)
    norms = {name for name, each in model.named_parameters() if "norm" in name and each.dim() == 2}
    assert norms
    assert hidden_matrices(model) == matrices_of(model)
    assert not norms & hidden_matrices(model)


def test_a_classifier_has_them_too() -> None:
    config = classifier_config(tiny_config("gpt2"), 3)
    classifier, causal = build_classifier(config, 0), outline(config)
    assert hidden_matrices(classifier) == hidden_matrices(causal)
    assert components(classifier)["score.weight"].component == "head"


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("family", ["gpt2", "phi"])
def test_factors_reach_the_parameters_of_their_components(family: str, optimizer: str) -> None:
    model = tiny(family)
    optimiser = make_optimiser(
        model, lr=1.0, weight_decay=0.1, beta2=0.95, optimizer=optimizer, lr_of=("attention=0.5", "norms=4")
    )
    set_rate(optimiser.param_groups, 0.25)
    rates = {id(each): group["lr"] for group in optimiser.param_groups for each in group["params"]}
    decays = {id(each): group["weight_decay"] for group in optimiser.param_groups for each in group["params"]}
    for name, place in components(model).items():
        parameter = model.get_parameter(name)
        assert rates[id(parameter)] == {"attention": 0.125, "norms": 1.0}.get(place.component, 0.25), name
        if place.component in ("norms", "embeddings", "positions"):
            assert decays[id(parameter)] == 0


def test_a_run_with_a_bad_gradient_and_kills_ends_as_one_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bad step must leave weights, both optimisers' state and step counts as they are."""
    changes: dict[str, Any] = {"optimizer": "muon", "lr_of": ("embeddings=1e-9", "mlp=2"), "seed": 1}
    with monkeypatch.context() as patches:
        poison(patches, 7, float("nan"))
        with pytest.raises(RunError, match="at step 7; a checkpoint from before it, of step 6"):
            warmup_job(options(tmp_path, "killed", **changes)).run()
    saved = artifact.read_header(max((tmp_path / "killed" / "checkpoints").iterdir()))
    held = {name: each for name, each in artifact.read_torch(saved).items() if name.startswith("optimiser/")}
    assert all(torch.isfinite(each).all() for each in held.values())
    assert {int(each) for name, each in held.items() if name.endswith("/step")} == {6}
    assert sum(name.endswith("/momentum_buffer") for name in held) == 8
    same_after_kills(tmp_path, [("train", 2)], **changes)
    model = open_model(tmp_path / "whole.safetensors")
    fresh = build_model(model.config, 1).state_dict()
    moved = {name: (each - fresh[name]).abs().max() for name, each in model.weights().items()}
    assert moved["transformer.wte.weight"] < 1e-7 < 1e-3 < moved["transformer.h.0.mlp.c_fc.weight"]
    warmup_job(options(tmp_path, "adamw", seed=1)).run()
    assert contents(tmp_path / "adamw.safetensors") != contents(tmp_path / "whole.safetensors")


def test_settings_name_what_is_not_the_default(tmp_path: Path) -> None:
    usual = options(tmp_path)
    assert not {"optimizer", "lr_of"} & {name for name, value in recorded(usual).items() if value is not None}
    assert options(tmp_path, lr_of=("mlp=1",)) == usual
    changed = options(tmp_path, optimizer="muon", lr_of=BY_COMPONENT[::-1])
    assert changed == options(tmp_path, optimizer="muon", lr_of=("embeddings=2.0", "attention=.5"))
    assert {"optimizer", "lr_of"} <= recorded(changed).keys()
    job = warmup_job(dataclasses.replace(changed, steps=1, ramp_steps=0))
    job.run()
    settings = read_form(job.run_path)
    assert settings is not None
    assert (settings["optimizer"], settings["lr_of"]) == ("muon", ["embeddings=2.0", "attention=0.5"][::-1])
    planned = (warmup_job(each).plan()["state_bytes"] for each in (usual, changed))
    matrices = 2 * 12 * 16 * 16  # 2 layers of width 16
    assert next(planned) - next(planned) == 4 * matrices


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lr_of": ("attention",)}, "write component=factor"),
        ({"lr_of": ("atention=2",)}, 'did you mean "attention"'),
        ({"lr_of": ("mlp=2", "mlp=3")}, "given twice"),
        ({"lr_of": ("mlp=0",)}, "must be above 0"),
        ({"lr_of": ("mlp=nan",)}, "not a finite number"),
        ({"lr_of": ("head=2",)}, "trains no head; choose from attention, embeddings, mlp, norms, positions"),
        ({"lr_of": ("mlp=2",), "train": ("attention",)}, "trains no mlp"),
        ({"optimizer": "muon", "train": ("embeddings",)}, "use adamw"),
    ],
)
def test_what_cannot_be_is_refused_before_the_run(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=said):
        warmup_job(options(tmp_path, **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("variable", "changes", "said"),
    [
        ("ACCELERATE_USE_FSDP", {"optimizer": "muon"}, "use DDP"),
        ("ACCELERATE_USE_DEEPSPEED", {"optimizer": "muon"}, "use DDP"),
        ("ACCELERATE_USE_DEEPSPEED", {"lr_of": BY_COMPONENT}, "use DDP or FSDP2"),
    ],
)
def test_launches_that_lack_it_are_refused(
    variable: str, changes: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "true")
    with pytest.raises(ProctoolError, match=said):
        warmup_job(options(tmp_path, **changes))


def test_on_a_gpu_the_host_asks_the_guard_before_muon_steps() -> None:
    accelerator = SimpleNamespace(device=torch.device("cuda"), scaler=None)
    model = tiny("gpt2")
    for optimizer, lag in (("adamw", LAG), ("muon", 0)):
        engine = Engine.__new__(Engine)
        engine.accelerator = accelerator  # type: ignore[assignment]
        engine.optimiser = make_optimiser(model, lr=1.0, weight_decay=0.0, beta2=0.9, optimizer=optimizer)
        assert isinstance(engine.optimiser, MuonAndAdamW) == (lag == 0)
        assert lag_of(engine) == lag
