"""Mimetic attention does what its source says of trained attention, in every family, whatever the layout of heads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from proctool.models.build import build_model, config_of, model_config
from proctool.models.components import attention_modules
from proctool.models.heads import eager, patterns
from proctool.models.mimetic import make_mimetic
from tests.models.tiny import CONTEXT, DENSE, VOCAB, tiny_config

GROUPED = {
    "vocab_size": VOCAB, "max_position_embeddings": CONTEXT, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "hidden_size": 64, "intermediate_size": 64,
}  # fmt: skip


def model_of(family: str) -> Any:
    if family == "grouped":
        return build_model(config_of("llama", GROUPED), 0)
    return build_model(model_config("2x2x64", vocab_size=VOCAB, context=CONTEXT, family=family), 0)


@pytest.mark.parametrize("family", [*DENSE, "grouped"])
def test_a_position_attends_to_itself_and_subtracts_what_it_reads(family: str) -> None:
    plain, made = model_of(family), model_of(family)
    make_mimetic(made, 0)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def keep(module: Any, args: Any, kwargs: Any, output: Any) -> None:
        given = args[0] if args else kwargs["hidden_states"]
        added = args[1] if family == "bloom" else 0.0  # its attention adds the residual itself
        seen.append((given.detach(), (output[0] - added).detach()))

    for _, module in attention_modules(made).values():
        module.register_forward_hook(keep, with_kwargs=True)
    made(input_ids=torch.arange(8)[:, None])  # each attends to its one position, so queries and keys do not matter
    for given, read in seen:
        alike = torch.nn.functional.cosine_similarity(given.flatten(0, -2), read.flatten(0, -2), dim=-1)
        assert -0.9 < alike.mean() < -0.45, family  # -1 / sqrt(2) without a limit on the rank

    itself = []
    for model in (plain, made):
        with eager(model):
            shown, _ = patterns(model, torch.arange(CONTEXT)[None])
        itself.append(shown[0][0].diagonal(dim1=-2, dim2=-1)[:, 4:].mean(-1))
    assert (itself[1] > 1.15 * itself[0]).all(), family
    inside = {id(each) for _, module in attention_modules(made).values() for each in module.parameters()}
    for old, new in zip(plain.parameters(), made.parameters(), strict=True):
        assert torch.equal(old, new) != (id(new) in inside and new.ndim == 2)
    again = model_of(family)
    make_mimetic(again, 0)
    assert all(torch.equal(*pair) for pair in zip(made.parameters(), again.parameters(), strict=True))


def test_a_head_has_the_balanced_factors_of_its_matrix() -> None:
    model = model_of("llama")
    make_mimetic(model, 3)
    attention = model.model.layers[1].self_attn
    query, key = (each.weight.unflatten(0, (2, 32))[1] for each in (attention.q_proj, attention.k_proj))
    sizes = (key @ key.T).diagonal()
    assert (sizes.diff() <= 0).all()  # the largest singular values first
    for each in (query, key):
        torch.testing.assert_close(each @ each.T, torch.diag(sizes), atol=1e-4, rtol=1e-3)


def test_commands_start_from_it(proctool: Callable[..., Any], tmp_path: Path) -> None:
    losses = []
    words = ("warmup", "--task", "set:inputs=4", "--steps", 1, "--batch-size", 2, "--eval-samples", 2, "--json")
    for name, more in (("plain", []), ("made", ["--init-attention", "mimetic"])):
        said = proctool(*words, "--model", "1x2x16", "-o", tmp_path / f"{name}.safetensors", *more)
        assert said.code == 0, said.err
        losses.append(json.loads(said.out)["loss"])
    assert losses[0] != losses[1]
    config = tmp_path / "latent.json"
    config.write_text(json.dumps(tiny_config("deepseek_v3").to_dict()), encoding="utf-8")
    said = proctool(*words, "--model", config, "--init-attention", "mimetic", "-o", tmp_path / "w.safetensors")
    assert said.code == 1
    assert "does not know the head layout" in said.err
    assert not (tmp_path / "w.run").exists()
