"""Exports for other projects load into their model classes as they are, and compute the same logits."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from proctool.export.formats import FORMATS, export_as
from proctool.models.saved import open_model, save_model
from tests.conftest import Said
from tests.foreign import litgpt, nanogpt, torchtitan
from tests.foreign.test_whole import TOKENS, logits, source


def saved(folder: Path, family: str, **options: Any) -> nn.Module:
    model = source(family, **options)
    save_model(folder / "model.safetensors", model, {})
    return model


def built(form: str, fields: dict[str, Any]) -> nn.Module:
    if form == "nanogpt":
        return nanogpt.GPT(nanogpt.GPTConfig(**fields))
    if form == "litgpt":
        return litgpt.GPT(litgpt.Config(**fields))
    if form == "torchtitan":
        assert fields["rope"].items() >= {"scaling": "none", "max_seq_len": 16}.items()
        return torchtitan.Llama(torchtitan.Sizes(**fields), "split")
    assert fields.pop("rope_scaling_args") == {"scaling_factor": 1.0}
    return torchtitan.Llama(torchtitan.ModelArgs(**fields), "0.2")


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    ("form", "family", "options"),
    [
        ("nanogpt", "gpt2", {}),
        ("litgpt", "gpt_neox", {}),
        ("litgpt", "gpt_neox", {"use_parallel_residual": False, "hidden_act": "gelu_new"}),
        ("litgpt", "llama", {"rope_theta": 500.0}),
        ("litgpt", "llama", {"attention_bias": True, "mlp_bias": True}),
        ("litgpt", "mistral", {"sliding_window": None}),
        ("litgpt", "qwen2", {}),
        ("litgpt", "qwen3", {"head_dim": 16}),
        ("litgpt", "phi3", {}),
        ("torchtitan", "llama", {"rope_theta": 500.0}),
        ("torchtitan-0.2", "llama", {"rope_theta": 500.0}),
        ("torchtitan-0.2", "llama", {"intermediate_size": 49}),
    ],
)
def test_the_class_loads_it_and_computes_the_same(
    tmp_path: Path, form: str, family: str, options: dict[str, Any], tied: bool
) -> None:
    if form == "nanogpt":
        tied = True
    model = saved(tmp_path, family, tie_word_embeddings=tied, **options)
    export_as(open_model(tmp_path / "model.safetensors"), tmp_path / "out", form)
    loaded = built(form, json.loads((tmp_path / "out" / "model_config.json").read_text()))
    loaded.load_state_dict(load_file(tmp_path / "out" / "model.safetensors"))  # strict: every name, nothing else
    torch.testing.assert_close(logits(loaded, TOKENS), logits(model, TOKENS), atol=1e-5, rtol=1e-5)


def test_the_command_writes_it_with_the_umasks_mode(proctool: Callable[..., Said], tmp_path: Path) -> None:
    saved(tmp_path, "gpt2")
    before = os.umask(0o027)
    try:
        said = proctool("export", "model.safetensors", "out", "--format", "nanogpt", "--dtype", "bf16")
    finally:
        os.umask(before)
    assert said.code == 0, said.err
    assert "load_state_dict" in said.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.safetensors", "model_config.json"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()} == {0o640}
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"BF16"}  # noqa: SIM118


@pytest.mark.parametrize(
    ("dtype", "kind"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_a_hugging_face_folder_in_the_number_format(
    proctool: Callable[..., Said], tmp_path: Path, dtype: str, kind: torch.dtype
) -> None:
    model = saved(tmp_path, "llama")
    assert proctool("export", "model.safetensors", "out", "--dtype", dtype).code == 0
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert {name: tensor.dtype for name, tensor in found.items()} == dict.fromkeys(found, kind)
    assert all(torch.equal(found[name], value.to(kind)) for name, value in model.state_dict().items())
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == str(kind).removeprefix("torch.")


REFUSED = [
    ("gpt2", {}, "litgpt", "litgpt supports gpt_neox, .*, not gpt2: its positions are rotary"),
    ("gpt2", {}, "torchtitan", "torchtitan supports llama, mistral, not gpt2: its positions are rotary"),
    ("llama", {}, "nanogpt", "nanogpt supports gpt2, not llama: its positions are learned"),
    ("olmo2", {}, "litgpt", "not olmo2"),
    ("gpt2", {"activation_function": "relu"}, "nanogpt", "its activation is relu, not gelu"),
    ("gpt2", {"layer_norm_epsilon": 1e-6}, "nanogpt", "layer_norm_epsilon is 1e-06, not 1e-05"),
    ("gpt2", {"n_inner": 96}, "nanogpt", "n_inner is 96, not 128"),
    ("gpt2", {"tie_word_embeddings": False}, "nanogpt", "head is not tied"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "nanogpt", "scaled by layer"),
    ("mistral", {"sliding_window": 8}, "litgpt", "has a sliding window of 8 tokens"),
    ("mistral", {"sliding_window": 8}, "torchtitan", "has a sliding window of 8 tokens"),
    ("llama", {"attention_bias": True}, "litgpt", "only one of attention and MLP has biases"),
    ("llama", {"attention_bias": True}, "torchtitan", r"no place for model\.layers\.0\.self_attn\.k_proj\.bias"),
    ("llama", {"head_dim": 16}, "torchtitan", "heads have 16 rows, not 8"),
    ("llama", {"hidden_act": "gelu"}, "torchtitan", "activation is gelu, not silu"),
    ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 100.0}}, "litgpt", "linear"),
]  # fmt: skip


@pytest.mark.parametrize(("family", "options", "form", "message"), REFUSED)
def test_what_the_class_computes_otherwise_is_refused(
    proctool: Callable[..., Said], tmp_path: Path, family: str, options: dict[str, Any], form: str, message: str
) -> None:
    import re

    saved(tmp_path, family, **options)
    said = proctool("export", "model.safetensors", "out", "--format", form)
    assert said.code == 1
    assert re.search(message, said.err), said.err
    assert len(said.err.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors"]


@pytest.mark.parametrize("form", ["hf", "nanogpt"])
def test_numbers_too_large_for_the_format_are_named(proctool: Callable[..., Said], tmp_path: Path, form: str) -> None:
    model = source("gpt2")
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.weight[0, 0] = 1e5
    save_model(tmp_path / "model.safetensors", model, {})
    said = proctool("export", "model.safetensors", "out", "--format", form, "--dtype", "fp16")
    assert said.code == 1
    assert "transformer.h.1.mlp.c_fc.weight has numbers too large for fp16" in said.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors"]


def test_an_approximated_gelu_is_told(proctool: Callable[..., Said], tmp_path: Path) -> None:
    saved(tmp_path, "gpt2", activation_function="gelu_new")
    said = proctool("export", "model.safetensors", "out", "--format", "nanogpt")
    assert said.code == 0
    assert "nanoGPT computes gelu exactly, but this model uses gelu_new" in said.err


def test_every_format_is_a_choice_of_the_command(proctool: Callable[..., Said]) -> None:
    said = proctool("export", "missing", "out", "--format", "none")
    assert said.code == 2
    assert all(form in said.err for form in FORMATS)
