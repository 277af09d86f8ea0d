"""Heads built by hand have the scores they were built to have; distances are those of the numbers put in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from proctool.evaluation.interpret import InterpretOptions, interpret_model
from proctool.models.build import build_model, model_config
from proctool.models.probes import repeated
from proctool.models.saved import open_model, save_model
from tests.conftest import Said
from tests.models.tiny import tiny

VOCAB, CONTEXT, HEAD = 8, 24, 40
TOKEN, PLACE, BEFORE = 0, VOCAB, VOCAB + CONTEXT  # where a token, its position and the token before it are written


def induction_model(copies: float = 1.0) -> torch.nn.Module:
    """Two layers of two heads without MLPs; the first heads make an induction circuit (Elhage et al. 2021).

    0.0 attends to the position before and writes down the token there; 1.0 looks for the present token in what 0.0
    wrote, which stands at the tokens after earlier occurrences, and copies (or, negative, suppresses) what it finds.
    """
    model = build_model(model_config(f"2x2x{2 * HEAD}", vocab_size=VOCAB, context=CONTEXT), 0)
    with torch.no_grad():
        for parameter in model.transformer.parameters():
            parameter.zero_()
        for norm in (module for module in model.modules() if isinstance(module, torch.nn.LayerNorm)):
            norm.weight.fill_(1)
        for token in range(VOCAB):
            model.transformer.wte.weight[token, TOKEN + token] = 1
        for place in range(CONTEXT):
            model.transformer.wpe.weight[place, PLACE + place] = 1
        query, key, value = 0, 2 * HEAD, 4 * HEAD  # columns of c_attn, of each the first head's first
        first, second = (layer.attn for layer in model.transformer.h)
        for place in range(CONTEXT):
            first.c_attn.weight[PLACE + place, key + place] = 5
            if place:
                first.c_attn.weight[PLACE + place, query + place - 1] = 5
        for token in range(VOCAB):
            first.c_attn.weight[TOKEN + token, value + token] = 1
            first.c_proj.weight[token, BEFORE + token] = 1
            second.c_attn.weight[TOKEN + token, query + token] = 5
            second.c_attn.weight[BEFORE + token, key + token] = 5
            second.c_attn.weight[TOKEN + token, value + token] = 1
            second.c_proj.weight[token, TOKEN + token] = copies
    return model


def by_head(result: dict, name: str) -> dict[tuple[int, int], float]:
    return {(row["layer"], row["head"]): row[name] for row in result["heads"]}


@pytest.mark.parametrize("copies", [1.0, -1.0])
def test_a_hand_built_induction_circuit_is_found_where_it_was_put(tmp_path: Path, copies: float) -> None:
    save_model(tmp_path / "m.safetensors", induction_model(copies), {})
    result = interpret_model(tmp_path / "m.safetensors", InterpretOptions(length=VOCAB, samples=4))
    assert result["repeats"] == 3
    induction, before, copying = (by_head(result, name) for name in ("induction", "previous_token", "copying"))
    # The first position has nothing before it and writes down itself, which splits the attention of two positions.
    assert induction[1, 0] == pytest.approx((14 + 1 / 2 + 2 / 3) / 16, abs=1e-3)
    assert before[0, 0] > 0.99
    assert copying[1, 0] == pytest.approx(copies, abs=1e-6)
    for idle in ((0, 1), (1, 1)):  # heads of zeros attend evenly
        assert induction[idle] == pytest.approx(result["even"]["induction"])
        assert before[idle] == pytest.approx(result["even"]["previous_token"])
        assert copying[idle] is None
    assert induction[0, 0] < 0.01
    assert before[1, 0] < 0.3
    assert (result["loss_repeated"] < result["loss_first"]) == (copies > 0)


def test_samples_are_random_tokens_repeated(tmp_path: Path) -> None:
    tokens = repeated(vocab_size=50, length=20, repeats=3, samples=6, seed=1)
    assert tokens.shape == (6, 60)
    assert all(np.array_equal(row[:20], row[20:40]) and len(set(row)) == 20 for row in tokens)
    assert len({row.tobytes() for row in tokens}) == 6
    assert len(set(repeated(5, 20, 2, 1, 0)[0])) <= 5


def test_copying_scores_are_those_of_the_whole_vocabularys_circuit(tmp_path: Path) -> None:
    for family in ("gpt2", "llama"):
        model = tiny(family)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
        save_model(tmp_path / "m.safetensors", model, {})
        found = by_head(interpret_model(tmp_path / "m.safetensors", InterpretOptions(length=4, samples=1)), "copying")
        with torch.no_grad():
            embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
            if family == "gpt2":
                block = model.transformer.h[1]
                gains, final = block.ln_1.weight, model.transformer.ln_f.weight
                value, output = block.attn.c_attn.weight[:, 40:48], block.attn.c_proj.weight[8:16]  # head 1
            else:
                block = model.model.layers[1]
                gains, final = block.input_layernorm.weight, model.model.norm.weight
                value, output = block.self_attn.v_proj.weight.T[:, 8:], block.self_attn.o_proj.weight.T[8:]
            whole = (
                (embedding * gains).double() @ value.double() @ output.double() @ (head * final).double().T
            )  # (V, V)
            eigenvalues = torch.linalg.eigvals(whole.double())
        assert found[1, 1] == pytest.approx(float(eigenvalues.real.sum() / eigenvalues.abs().sum()), abs=1e-4)


def test_distances_are_those_between_the_numbers(tmp_path: Path) -> None:
    config = model_config("2x2x16", vocab_size=12, context=16)
    fresh = build_model(config, 3)
    warm, final = build_model(config, 3), build_model(config, 3)
    with torch.no_grad():
        warm.transformer.h[0].attn.c_attn.weight.mul_(3)  # twice the fresh weights further
        final.transformer.h[0].attn.c_attn.weight.mul_(2)  # half of the way is left
        final.transformer.h[1].mlp.c_fc.weight.neg_()
    for name, model in (("warm", warm), ("final", final)):
        save_model(tmp_path / f"{name}.safetensors", model, {"seed": 3})
    options = InterpretOptions(against=("fresh", str(tmp_path / "warm.safetensors")), length=4, samples=1)
    result = interpret_model(tmp_path / "final.safetensors", options)
    tensors = {(row["against"], row["tensor"].removeprefix("transformer.h.")): row for row in result["tensors"]}
    grown = tensors["fresh", "0.attn.c_attn.weight"]
    assert (grown["relative"], grown["cosine"], grown["spectral"]) == pytest.approx((1, 1, 1), rel=1e-5)
    turned = tensors["fresh", "1.mlp.c_fc.weight"]
    assert (turned["relative"], turned["cosine"], turned["spectral"]) == pytest.approx((2, -1, 2), rel=1e-5)
    assert tensors["warm", "0.attn.c_attn.weight"]["relative"] == pytest.approx(1 / 3, rel=1e-5)
    assert tensors["fresh", "1.attn.c_proj.weight"]["relative"] == 0
    parts = {(row["against"], row["layer"], row["component"]): row for row in result["distances"]}
    assert parts["warm", 0, "attention"]["kept"] == pytest.approx(0.5, rel=1e-5)
    assert parts["warm", 0, "mlp"]["kept"] is None  # the warm-up did not move it
    assert "kept" not in parts["fresh", 0, "attention"]
    before = fresh.transformer.h[0].attn.c_proj.weight
    weight = fresh.transformer.h[0].attn.c_attn.weight
    share = float((weight.norm() / torch.cat([weight.reshape(-1), before.reshape(-1)]).norm()).detach())
    assert parts["fresh", 0, "attention"]["relative"] == pytest.approx(share, rel=1e-5)
    assert set(result["against"]) == {"fresh", "warm"}


def test_the_command_tells_and_draws(proctool: Callable[..., Said], tmp_path: Path) -> None:
    save_model(tmp_path / "m.safetensors", induction_model(), {})
    said = proctool(
        "eval", "interpret", "m.safetensors", "--against", "fresh", "--length", 8, "--samples", 1, "--figures", "f",
        "--kind", "png,svg", "--json",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert len(json.loads(said.out)["heads"]) == 4
    names = {f"{name}.{kind}" for name in ("heads", "attention", "distances") for kind in ("png", "svg")}
    assert {path.name for path in (tmp_path / "f").iterdir()} == names
    assert all(path.stat().st_size > 1000 for path in (tmp_path / "f").iterdir())


def test_the_former_name_works_and_says_the_present_one(proctool: Callable[..., Said], tmp_path: Path) -> None:
    save_model(tmp_path / "m.safetensors", tiny("gpt2"), {})
    arguments = ("m.safetensors", "--length", 4, "--samples", 1, "--json")
    former, present = (proctool("eval", name, *arguments) for name in ("inside", "interpret"))
    assert (former.code, former.out) == (0, present.out)
    assert former.err.count("eval inside is now called eval interpret") == 1
    assert "now called" not in present.err
    listed = proctool("eval", "--help").out
    assert "interpret" in listed
    assert "inside" not in listed


def test_what_cannot_be_looked_at_is_one_line(proctool: Callable[..., Said], tmp_path: Path) -> None:
    save_model(tmp_path / "m.safetensors", tiny("gpt2"), {})
    save_model(tmp_path / "llama.safetensors", tiny("llama"), {})
    save_model(tmp_path / "mamba.safetensors", tiny("mamba2"), {})
    for arguments, message in [
        (
            ("m.safetensors", "--length", 7),
            "a sample (2 times 7) of 14 tokens does not fit the model's context of 12 tokens; lower --length",
        ),
        (("m.safetensors", "--length", 1), "length = 1: must be at least 2"),
        (("m.safetensors", "--length", 4, "--against", "llama.safetensors"), "no layer of llama"),
        (
            ("m.safetensors", "--length", 4, "--against", "fresh", "--against", "fresh"),
            "two models have the name fresh",
        ),
        (("mamba.safetensors", "--length", 4), "no attention to look at"),
        (("gone.safetensors",), "no such file"),
    ]:
        said = proctool("eval", "interpret", *arguments)
        assert said.code == 1, arguments
        assert message in said.line
    assert open_model(tmp_path / "m.safetensors").config.vocab_size == 23
