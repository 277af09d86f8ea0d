"""Parts of a donor: exactly the tensors that are named change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import proctool
from proctool.errors import Notice
from proctool.foreign import PROJECTS, TensorRule
from proctool.foreign.layouts import HeadSizes, join, split
from proctool.foreign.mapping import Rotary
from tests.foreign import litgpt, nanochat, nanogpt
from tests.foreign.own import Own, changed, own_mapping
from tests.foreign.rotary import in_halves, in_pairs
from tests.foreign.test_whole import later_nanochat, lit_llama, shaken, source, titan

NANOGPT = nanogpt.GPTConfig(n_embd=32, n_head=4, vocab_size=64)


@pytest.mark.parametrize("layers", [None, 0, "1", [0, 1], "attention=1-"])
@pytest.mark.parametrize("component", ["attention", "mlp", "norms"])
@pytest.mark.parametrize("project", ["nanogpt", "litgpt", "torchtitan"])
def test_exactly_the_named_tensors_change(project: str, component: str, layers: Any) -> None:
    if isinstance(layers, str) and "=" in layers:
        layers = layers.replace("attention", component)
    module = shaken(
        {"nanogpt": lambda: nanogpt.GPT(NANOGPT), "litgpt": lit_llama, "torchtitan": lambda: titan("fused")}[project](),
        9,
    )
    donor = source("gpt2" if project == "nanogpt" else "llama")
    words = {"attention": ("attn.", "attention."), "mlp": ("mlp.", "feed_forward."), "norms": ("ln_", "norm")}
    found = changed(
        module, lambda: proctool.transplant_into(module, donor, [component], layers=layers, embeddings="fresh")
    )
    kept = {None: {0, 1}, 0: {0}}.get(layers if not isinstance(layers, list) else None, {1})
    wanted = set()
    for name, _ in module.named_parameters():
        inside = name.removeprefix("transformer.")
        layer = int(inside.split(".")[1]) if inside.startswith(("h.", "layers.")) else None
        own = inside.split(".", 2)[2] if layer is not None else inside
        if own.startswith(words[component]) or (component == "norms" and own.endswith("norm.weight")):
            wanted |= {name} if (layers is None if layer is None else layer in kept) else set()
    assert found == wanted
    assert found


def test_attention_and_mlp_of_a_module_like_nanochat() -> None:
    donor, target = later_nanochat(1), later_nanochat(2)
    given = dict(donor.named_parameters())
    found = changed(target, lambda: proctool.transplant_into(target, donor, ["attention", "mlp"], "fresh"))
    assert found == {name for name in given if ".attn." in name or ".mlp." in name}
    assert all(torch.equal(target.get_parameter(name), given[name]) for name in found)


def test_attention_of_llama_turns_the_same_way_in_nanochat() -> None:
    donor = source("llama")
    target = shaken(nanochat.GPT(nanochat.GPTConfig(n_head=4, n_kv_head=2), is_first=True))
    proctool.transplant_into(target, donor, ["attention"])
    x = torch.randn(1, 9, 32)
    ours, theirs = target.transformer.h[0].attn, donor.model.layers[0].self_attn
    scores = []
    for query, key, sign in ((ours.c_q, ours.c_k, -1), (theirs.q_proj, theirs.k_proj, 1)):
        heads = [each(x).unflatten(-1, (-1, 8)).transpose(1, 2) for each in (query, key)]
        turned = [in_halves(each, 10000, sign=sign)[:, ::2][:, :2] for each in heads]
        scores.append(turned[0][:, :1] @ turned[1][:, :1].mT)
    torch.testing.assert_close(scores[0], scores[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rotary", ["halves", "pairs", "halves-reversed", None])
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
def test_layouts_lead_back(rotary: Rotary | None, grouped: bool, transposed: bool) -> None:
    rule = TensorRule("qkv", "attention", ("query", "key", "value"), grouped=grouped, transposed=transposed)
    heads = HeadSizes(6, 2, 4)
    value = torch.randn((5, 40) if transposed else (40, 5))
    parts = split(value, rule, heads, rotary)
    assert [tuple(part.shape) for part in parts] == [(24, 5), (8, 5), (8, 5)]
    assert torch.equal(join(parts, rule, heads, rotary), value)


def test_rows_are_moved_so_that_pairs_turn_as_halves_do() -> None:
    rule, heads = TensorRule("wq", "attention", ("query",)), HeadSizes(3, 3, 8)
    pairs = torch.randn(24, 5)
    halves = split(pairs, rule, heads, "pairs")[0]
    x = torch.randn(1, 7, 5)
    turned = [
        f((x @ w.T).unflatten(-1, (3, 8)).transpose(1, 2), 100.0) for f, w in ((in_pairs, pairs), (in_halves, halves))
    ]
    back = turned[0].unflatten(-1, (4, 2)).transpose(-1, -2).flatten(-2)
    torch.testing.assert_close(back, turned[1], atol=1e-5, rtol=1e-5)


def test_a_class_of_ones_own_by_a_mapping() -> None:
    donor, target = source("llama", tie_word_embeddings=True), Own()
    with pytest.warns(Notice, match="norms"):
        donor_norms = changed(
            target, lambda: proctool.transplant_into(target, donor, embeddings="fresh", mapping=own_mapping())
        )
    assert donor_norms == {
        f"blocks.{i}.{name}" for i in (0, 1) for name in ("mix.q", "mix.kv", "mix.out", "wide.weight", "narrow.weight")
    }
    layer, block = donor.model.layers[1], target.blocks[1]
    assert torch.equal(block.mix["q"].T, layer.self_attn.q_proj.weight)
    assert torch.equal(block.mix["kv"].T, torch.cat([layer.self_attn.k_proj.weight, layer.self_attn.v_proj.weight]))
    assert torch.equal(block.wide.weight, torch.cat([layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight]))
    origins = proctool.transplant_into(target, donor, "mlp", "copy", own_mapping())
    assert torch.equal(target.head.weight, donor.lm_head.weight)
    assert {origin.component for origin in origins if "scale" in origin.tensor} == {"other"}


@pytest.mark.parametrize("way", ["scale", "mean", "sample"])
def test_embedding_starts(way: str) -> None:
    donor, target = source("gpt2"), shaken(nanogpt.GPT(NANOGPT), 5)
    before = target.transformer.wte.weight.detach().clone()
    given = donor.transformer.wte.weight.detach()
    assert changed(target, lambda: proctool.transplant_into(target, donor, ["mlp"], way, layers=0)) >= {
        "transformer.wte.weight"
    }
    made = target.transformer.wte.weight.detach()
    if way == "scale":
        torch.testing.assert_close(made, before * (given.std() / before.std()))
    elif way == "mean":
        torch.testing.assert_close(made, given.mean(0).expand_as(made))
    else:
        assert {tuple(row.tolist()) for row in made} <= {tuple(row.tolist()) for row in given}


def test_padding_stays_and_is_told() -> None:
    donor, target = source("gpt2"), shaken(nanogpt.GPT(NANOGPT), 5)
    before = target.transformer.wte.weight.detach().clone()
    with pytest.warns(Notice, match=r"rows 23 to 63 of transformer\.wte\.weight are padding"):
        proctool.transplant_into(target, donor, ["mlp"], "copy")
    assert torch.equal(target.transformer.wte.weight[23:], before[23:])
    assert torch.equal(target.transformer.wte.weight[:23], donor.transformer.wte.weight)


def test_positions_are_cut_and_stretched() -> None:
    donor = source("gpt2")
    for rows, kind in ((12, "cut"), (20, "extended")):
        target = nanogpt.GPT(replace(NANOGPT, block_size=rows))
        origins = proctool.transplant_into(target, donor, ["positions"])
        assert [origin.source for origin in origins if origin.component == "positions"] == [kind]
        assert torch.equal(target.transformer.wpe.weight[0], donor.transformer.wpe.weight[0])


def test_rotary_into_a_model_without_is_told() -> None:
    target = litgpt.GPT(litgpt.Config(n_embd=32, n_head=4, padding_multiple=16))
    with pytest.warns(Notice, match="GPT has rotary positions but GPT2LMHeadModel does not"):
        proctool.transplant_into(target, source("gpt2"), ["attention"])


@pytest.mark.parametrize("name", PROJECTS)
def test_each_project_is_told_from_the_others(name: str) -> None:
    made = {
        "nanogpt": lambda: nanogpt.GPT(NANOGPT),
        "litgpt": lit_llama,
        "torchtitan": lambda: titan("fused"),
        "torchtitan-0.2": lambda: titan("0.2"),
        "nanochat": lambda: later_nanochat(1),
    }[name]()
    found = proctool.transplant_into(made, made, ["attention"], mapping=name)
    assert found == proctool.transplant_into(made, made, ["attention"])
