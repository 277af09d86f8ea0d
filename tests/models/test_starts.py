"""How models given by shape begin: the deviation of their fresh weights, and whether the head is the embedding."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import PreTrainedModel

from proctool.errors import ArtifactError, ModelError, Notice, RunError
from proctool.experiment.identity import forget, identity
from proctool.models import shapes
from proctool.models.build import build_model, model_config, set_init_std
from proctool.models.saved import open_model
from proctool.training.run_place import run_folder_of
from proctool.training.warmup import warmup_job
from proctool.transplantation import transplant_into
from tests.training.runs import Killed, killed_at, options

FAMILIES = ("gpt2", "llama", "qwen3", "gpt_neox", "opt")


def model(spec: str = "2x2x64", family: str = "gpt2", **more: Any) -> PreTrainedModel:
    return build_model(model_config(spec, vocab_size=200, context=16, family=family, **more), 0)


def embedding_std(of: PreTrainedModel) -> float:
    return float(of.get_input_embeddings().weight.detach().std())


@pytest.mark.parametrize("family", FAMILIES)
def test_fresh_weights_have_the_deviation_asked_for(family: str) -> None:
    for asked in (0.3, 0.01):
        assert embedding_std(model(family=family, init_std=asked)) == pytest.approx(asked, rel=0.05)


@pytest.mark.parametrize(("width", "std"), [(768, 0.02), (192, 0.04), (48, 0.08)])
def test_the_default_deviation_suits_the_width(width: int, std: float) -> None:
    assert embedding_std(model(f"1x1x{width}")) == pytest.approx(std, rel=0.05)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_a_head_is_the_embedding_or_its_own(family: str, tied: bool) -> None:
    made = model(family=family, tie=tied)
    assert (made.get_output_embeddings().weight is made.get_input_embeddings().weight) is tied


def test_a_shape_is_tied_as_its_family_is() -> None:
    assert model(family="gpt2").config.tie_word_embeddings
    assert not model(family="phi").config.tie_word_embeddings


def test_the_diagnostic_preset_starts_as_published() -> None:
    made = model("diagnostic")
    assert embedding_std(made) == pytest.approx(0.02, rel=0.05)
    assert made.get_output_embeddings().weight is not made.get_input_embeddings().weight


def test_a_configuration_keeps_its_own_start_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    values = {"model_type": "gpt2", "n_layer": 1, "n_head": 1, "n_embd": 32, "initializer_range": 0.5}
    path.write_text(json.dumps(values | {"tie_word_embeddings": False}))
    assert embedding_std(model(str(path))) == pytest.approx(0.5, rel=0.05)
    assert not model(str(path)).config.tie_word_embeddings
    told = model(str(path), init_std=0.1, tie=True)
    assert embedding_std(told) == pytest.approx(0.1, rel=0.05)
    assert told.config.tie_word_embeddings


def test_a_family_without_a_deviation_refuses_one() -> None:
    odd: Any = SimpleNamespace(model_type="odd", get_text_config=SimpleNamespace)
    with pytest.raises(ModelError, match="odd: has no setting for the standard deviation"):
        set_init_std(odd, 0.1)


def test_another_default_makes_another_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    before = identity("model", "2x2x16")
    forget()
    monkeypatch.setattr(shapes, "GPT2_INIT_STD", 0.03)
    assert identity("model", "2x2x16") != before
    forget()


def test_a_run_from_before_the_rule_goes_on_where_its_start_is_named(tmp_path: Path) -> None:
    job = warmup_job(options(tmp_path, init_std=0.02))
    job.listeners = [killed_at("eval", 3)]
    with pytest.raises(Killed):
        job.run()
    settings = tmp_path / "run" / "config.json"
    values = json.loads(settings.read_text())
    settings.write_text(json.dumps({key: value for key, value in values.items() if key not in ("init_std", "tie")}))
    with pytest.raises(RunError, match=r"init_std = 0\.02, not 0\.13\d*; give --init-std 0\.02"):
        warmup_job(options(tmp_path)).run()
    assert warmup_job(options(tmp_path, init_std=0.02)).run().step == 12


@pytest.mark.parametrize("tied", [True, False])
def test_equal_rows_under_a_tied_head_are_warned_of(
    tmp_path: Path, tied: bool, recwarn: pytest.WarningsRecorder
) -> None:
    warmup_job(options(tmp_path, steps=2)).run()
    target = model("2x2x16", tie=tied)
    transplant_into(target, open_model(tmp_path / "run.safetensors"), ("attention",), embeddings="mean")
    warned = [str(each.message) for each in recwarn if issubclass(each.category, Notice)]
    assert any("all rows start equal" in each for each in warned) is tied


@pytest.mark.parametrize(
    ("before", "now", "advice"),
    [
        ({}, {"tie": False}, "leave out --tie and --no-tie"),
        ({"tie": False}, {}, "give --no-tie"),
        ({"tie": True}, {"tie": False}, "give --tie"),
        ({"init_std": 0.5}, {}, "give --init-std 0.5"),
    ],
)
def test_the_advice_of_another_start_is_what_goes_on(tmp_path: Path, before: Any, now: Any, advice: str) -> None:
    warmup_job(options(tmp_path, steps=2, **before)).run()
    with pytest.raises(RunError, match=f"; {advice} to resume it"):
        warmup_job(options(tmp_path, steps=2, **now)).run()


def test_an_output_without_a_name_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="give a file name"):
        run_folder_of(Path(""))
