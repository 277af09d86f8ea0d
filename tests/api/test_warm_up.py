"""Warm-up from Python: a module in memory is trained as the command trains a model of that shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import proctool
from proctool.errors import ArtifactError, ModelError, OptionError, RunError
from proctool.events import CurriculumEvent, EvalEvent, Event, TrainEvent
from proctool.models.build import build_model, model_config
from proctool.models.saved import open_model
from proctool.training.options import WarmupOptions
from proctool.training.warmup import warmup_job

SPEC = "set:inputs=4,symbols=12"
SHORT = {"steps": 12, "batch_size": 8, "eval_samples": 40, "lr": 3e-3, "log_every": 5}


def configuration(spec: str = SPEC) -> Any:
    task = proctool.load_task(spec)
    return model_config("2x2x16", vocab_size=task.vocab_size, context=task.length, padded=False)


class Plain(nn.Module):
    """A model of no library: an embedding, a causal mean, a head."""

    def __init__(self, tokens: int = 14) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, 16)
        self.head = nn.Linear(16, tokens)
        self.dropout = nn.Dropout(0.1)

    def forward(self, ids: Tensor) -> Tensor:
        states = self.embedding(ids)  # (B, L, D)
        counts = torch.arange(1, ids.shape[1] + 1)[:, None]
        return self.head(self.dropout(states.cumsum(1) / counts))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def commanded(tmp_path_factory: pytest.TempPathFactory) -> proctool.WarmedModel:
    """What a run folder makes of the shape."""
    folder = tmp_path_factory.mktemp("run")
    return proctool.warm_up(
        SPEC, "2x2x16", output=folder / "a.safetensors", run_dir=folder / "run", init_std=0.02, **SHORT
    )


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_module_in_memory_ends_where_a_run_folder_does(commanded: proctool.WarmedModel, accumulate: int) -> None:
    module, _, _ = warmup_job(WarmupOptions(task=(SPEC,), model="2x2x16", init_std=0.02))._initial()
    before = torch.random.get_rng_state()
    warmed = proctool.warm_up(SPEC, module, accumulate=accumulate, **SHORT)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert warmed.model is module
    theirs = dict(commanded.model.named_parameters())
    for name, parameter in module.named_parameters():
        assert torch.allclose(parameter, theirs[name], atol=1e-4), name
    assert (warmed.loss, warmed.accuracy) == pytest.approx((commanded.loss, commanded.accuracy), abs=1e-4)
    assert (warmed.steps, warmed.tokens, warmed.task) == (commanded.steps, commanded.tokens, commanded.task)


def test_the_run_of_an_output_is_kept_and_found_done(commanded: proctool.WarmedModel) -> None:
    assert commanded.artifact is not None
    path = commanded.artifact.path
    notes: list[Event] = []
    again = proctool.warm_up(
        SPEC, "2x2x16", output=path, run_dir=path.parent / "run", listen=notes.append, init_std=0.02, **SHORT
    )
    assert again.artifact is not None
    assert again.artifact.content == commanded.artifact.content
    assert [event.kind for event in notes] == ["note"]


def test_without_an_output_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    warmed = proctool.warm_up(SPEC, "2x2x16", **SHORT)
    assert warmed.artifact is None
    assert warmed.model.num_parameters() > 0  # type: ignore[operator]
    assert list(tmp_path.iterdir()) == []


def test_a_shape_takes_the_options_of_the_command() -> None:
    events: list[Event] = []
    grow = "start=2,step=2,accuracy=0"
    proctool.warm_up(SPEC, "2x2x16", curriculum=grow, listen=events.append, **{**SHORT, "eval_every": 4})
    assert [event.size for event in events if isinstance(event, CurriculumEvent)] == [4]


def test_a_configuration_is_obeyed_and_its_artifact_opens(tmp_path: Path) -> None:
    config = configuration()
    config.vocab_size += 7  # larger than the task's
    warmed = proctool.warm_up(SPEC, config, output=tmp_path / "warm.safetensors", **SHORT)
    saved = open_model(tmp_path / "warm.safetensors")
    assert saved.config.vocab_size == config.vocab_size
    assert saved.metadata["task"] == proctool.load_task(SPEC).spec
    mine = dict(warmed.model.named_parameters())
    assert all(torch.equal(tensor, mine[name]) for name, tensor in saved.weights().items())


def test_any_module_learns_and_its_mode_stays() -> None:
    torch.manual_seed(0)
    events: list[Event] = []
    module = Plain().eval()
    warmed = proctool.warm_up(SPEC, module, listen=events.append, **{**SHORT, "steps": 60, "lr": 1e-2})
    assert not module.training
    train = [event for event in events if isinstance(event, TrainEvent)]
    assert [event.step for event in train] == list(range(5, 61, 5))
    assert train[-1].loss < train[0].loss
    assert isinstance(events[-1], EvalEvent)
    assert events[-1].loss == warmed.loss
    assert all(parameter.grad is None for parameter in module.parameters())


@pytest.mark.parametrize(
    ("spec", "model", "options", "said"),
    [
        (SPEC, Plain(), {"until": "accuracy=.9"}, "until: does not apply to a model in memory"),
        (SPEC, Plain(), {"batch_sise": 3}, 'did you mean "batch_size"'),
        (SPEC, Plain(), {"lr": -1}, "lr = -1"),
        (SPEC, Plain(), {"precision": "fp16"}, "fp32 and bf16"),
        (SPEC, Plain(), {"task": "union"}, "task cannot be an option"),
        (SPEC, Plain(), {"output": "plain.safetensors"}, "save its state_dict"),
        ("sett", Plain(), {}, 'did you mean "set"'),
        (SPEC, "2x2x17", {}, "not a multiple"),
    ],
)
def test_options_that_cannot_be_are_refused(spec: str, model: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises((OptionError, ModelError), match=said):
        proctool.warm_up(spec, model, **{"steps": 1, **options})


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda: build_model(configuration("set:inputs=3,symbols=12"), 0), "9 tokens does not fit"),
        (lambda: build_model(configuration("set:inputs=4,symbols=11"), 0), "the task has 14 tokens but the model has"),
        (lambda: Plain(5), "are too small for token ids up to"),
        (lambda: nn.Sequential(nn.Embedding(14, 3), nn.Flatten(1)), r"not logits of shape"),
        (lambda: nn.Sequential(nn.Embedding(14, 3)), "has logits for 3 tokens"),
        (lambda: Plain().requires_grad_(False), "no parameters to train"),
        (lambda: 3, "a int is not"),
    ],
)
def test_models_that_do_not_fit_are_refused(model: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        proctool.warm_up(SPEC, model(), steps=1)


def test_a_gradient_that_is_not_finite_stops_before_the_step() -> None:
    module = Plain()
    with torch.no_grad():
        module.head.bias[0] = torch.nan
    before = module.embedding.weight.clone()
    with pytest.raises(RunError, match="step 1: the gradient is not finite"):
        proctool.warm_up(SPEC, module, steps=2)
    assert torch.equal(module.embedding.weight, before)


def test_a_file_of_others_is_not_overwritten(tmp_path: Path) -> None:
    other = tmp_path / "theirs.safetensors"
    other.write_text("theirs")
    for model, more in (("2x2x16", {"run_dir": tmp_path / "run"}), (configuration(), {})):
        with pytest.raises(ArtifactError, match="theirs"):
            proctool.warm_up(SPEC, model, output=other, **more)
    assert other.read_text() == "theirs"
