"""Parts of a donor: exactly the tensors that are named change; what does not fit is one line and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import proctool
from proctool.errors import ModelError, Notice, OptionError, ProctoolError
from proctool.foreign import PROJECTS, ModelMapping, TensorRule
from proctool.foreign.layouts import HeadSizes, join, split
from proctool.foreign.mapping import Rotary
from tests.foreign import litgpt, nanochat, nanogpt
from tests.foreign.rotary import in_halves, in_pairs
from tests.foreign.test_whole import later_nanochat, lit_llama, shaken, source, titan

NANOGPT = nanogpt.GPTConfig(n_embd=32, n_head=4, vocab_size=64)


def changed(module: nn.Module, act: Callable[[], Any]) -> set[str]:
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    act()
    return {name for name, value in module.named_parameters() if not torch.equal(value, before[name])}


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
    found = changed(module, lambda: proctool.transplant_into(module, donor, [component], layers=layers))
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
    found = changed(target, lambda: proctool.transplant_into(target, donor, ["attention", "mlp"]))
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


class Own(nn.Module):
    """A model class that no project has: fused gate and up, separate attention, a tied head, weights (in, out)."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        for _ in range(2):
            block = nn.Module()
            block.mix = nn.ParameterDict(
                {"q": torch.randn(32, 32), "kv": torch.randn(32, 32), "out": torch.randn(32, 32)}
            )
            block.wide = nn.Linear(32, 80, bias=False)
            block.narrow = nn.Linear(40, 32, bias=False)
            block.scale = nn.Parameter(torch.ones(1))
            self.blocks.append(block)
        self.head = nn.Linear(32, 23, bias=False)
        self.table = nn.Embedding(23, 32)
        self.table.weight = self.head.weight


def own_mapping(**changes: Any) -> ModelMapping:
    return replace(
        ModelMapping(
            "own",
            "blocks",
            inside=(
                TensorRule(r"mix\.q", "attention", ("query",), transposed=True),
                TensorRule(r"mix\.kv", "attention", ("key", "value"), transposed=True),
                TensorRule(r"mix\.out", "attention", ("attention_output",), transposed=True),
                TensorRule("wide", "mlp", ("gate", "up")),
                TensorRule("narrow", "mlp", ("down",)),
            ),
            outside=(
                TensorRule("table", "embeddings", ("tokens",)),
                TensorRule("head", "head", ("head",)),
            ),
            rotary="halves",
            heads=4,
            kv_heads=2,
        ),
        **changes,
    )


def test_a_class_of_ones_own_by_a_mapping() -> None:
    donor, target = source("llama", tie_word_embeddings=True), Own()
    with pytest.warns(Notice, match="norms"):
        donor_norms = changed(target, lambda: proctool.transplant_into(target, donor, mapping=own_mapping()))
    assert donor_norms == {
        f"blocks.{i}.{name}" for i in (0, 1) for name in ("mix.q", "mix.kv", "mix.out", "wide.weight", "narrow.weight")
    }
    layer, block = donor.model.layers[1], target.blocks[1]
    assert torch.equal(block.mix["q"].T, layer.self_attn.q_proj.weight)
    assert torch.equal(block.mix["kv"].T, torch.cat([layer.self_attn.k_proj.weight, layer.self_attn.v_proj.weight]))
    assert torch.equal(block.wide.weight, torch.cat([layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight]))
    origins = proctool.transplant_into(target, donor, ["mlp"], "copy", own_mapping())
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


def with_nan() -> nn.Module:
    donor = source("llama")
    with torch.no_grad():
        donor.model.layers[1].mlp.down_proj.weight[0, 0] = torch.nan
    return donor


def two_claims() -> ModelMapping:
    return own_mapping(inside=(*own_mapping().inside, TensorRule("wide|narrow", "norms"), TensorRule("wide", "norms")))


BAD: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], dict[str, Any], type[ProctoolError], str]] = {
    "mapping without a name": (
        Own,
        lambda: source("llama"),
        {},
        ModelError,
        r"Own: its parameters \(blocks\.0\.\S+, .* match none of nanogpt",
    ),
    "mapping of an unknown name": (
        Own,
        lambda: source("llama"),
        {"mapping": "nanogtp"},
        OptionError,
        "nanogtp.*nanogpt",
    ),
    "mapping that matches nothing": (
        Own,
        lambda: source("llama"),
        {"mapping": own_mapping(stack="layers")},
        ModelError,
        r"own matches no layer layers\.0; its tensors are blocks\.0",
    ),
    "component that matches nothing": (
        Own,
        lambda: source("llama"),
        {"mapping": own_mapping(), "components": ["mixer"]},
        OptionError,
        "own matches no mixer in Own",
    ),
    "two components claim a tensor": (
        Own,
        lambda: source("llama"),
        {"mapping": two_claims()},
        ModelError,
        r"two components claim blocks\.0\.wide\.weight: mlp by wide, norms by wide",
    ),
    "two tensors claim a part": (
        Own,
        lambda: source("llama"),
        {"mapping": own_mapping(inside=(*own_mapping().inside[:4], TensorRule("narrow", "mlp", ("up",))))},
        ModelError,
        r"blocks\.0\.wide\.weight and blocks\.0\.narrow\.weight both claim",
    ),
    "heads unknown": (
        Own,
        lambda: source("llama"),
        {"mapping": own_mapping(heads=None)},
        ModelError,
        r"number of heads is not known.*mix\.q",
    ),
    "heads that make no rows": (
        Own,
        lambda: source("llama"),
        {"mapping": own_mapping(heads=3, kv_heads=3)},
        ModelError,
        r"mix\.\w+ has shape",
    ),
    "another number of heads": (
        lambda: titan("fused"),
        lambda: source("llama", num_attention_heads=2),
        {},
        ModelError,
        r"has 2 heads, Llama 4 heads \(layers\.0\.attention\.qkv_linear\.wqkv\.weight\)",
    ),
    "another number of groups": (
        lambda: titan("split"),
        lambda: source("llama", num_key_value_heads=4),
        {},
        ModelError,
        "has 4 key-value heads, Llama 2 key-value heads",
    ),
    "another head size": (
        lambda: titan("split"),
        lambda: source("llama", head_dim=16),
        {},
        ModelError,
        r"has heads of 16 rows, Llama heads of 8 rows \(layers\.0",
    ),
    "shapes": (
        lambda: titan("split"),
        lambda: source("llama", intermediate_size=48),
        {},
        ModelError,
        r"layers\.0\.mlp\.gate_proj\.weight makes shape \(48, 32\), layers\.0\.feed_forward\.w1\.weight of Llama has",
    ),
    "depth": (
        lambda: titan("split"),
        lambda: source("llama", num_hidden_layers=3),
        {},
        ModelError,
        "has 3 layers, Llama 2",
    ),
    "missing in the donor": (
        lambda: nanogpt.GPT(NANOGPT),
        lambda: source("llama"),
        {"components": ["norms"]},
        ModelError,
        r"layer 0 has no attention_norm\.bias, which transformer\.h\.0\.ln_1\.bias of GPT needs",
    ),
    "part of the rows rotate": (
        lambda: titan("split", n_kv_heads=4),
        lambda: source("gpt_neox"),
        {"components": ["attention"]},
        ModelError,
        "rotates only some rows",
    ),
    "a tied head asked apart": (
        lambda: nanogpt.GPT(NANOGPT),
        lambda: source("gpt2"),
        {"components": ["head"]},
        OptionError,
        r"head moves with .*lm_head\.weight is tied to transformer\.wte\.weight",
    ),
    "vocabulary": (
        lambda: titan("split"),
        lambda: source("llama", vocab_size=31),
        {"embeddings": "copy"},
        ModelError,
        r"model\.embed_tokens\.weight has 31 tokens, tok_embeddings\.weight of Llama 23",
    ),
    "vocabulary that no padding explains": (
        lit_llama,
        lambda: source("llama", vocab_size=31),
        {"embeddings": "copy"},
        ModelError,
        "lm_head.weight has 31 tokens, lm_head.weight of GPT 23",
    ),
    "NaN": (
        lambda: titan("split"),
        with_nan,
        {},
        ModelError,
        r"layers\.1\.mlp\.down_proj\.weight holds values that are not finite",
    ),
    "layers": (lambda: titan("split"), lambda: source("llama"), {"layers": 2}, OptionError, "layers: 2 reaches out"),
    "nothing": (
        lambda: titan("split"),
        lambda: source("llama"),
        {"components": ["none"]},
        OptionError,
        "nothing would be carried",
    ),
    "family without a mapping": (
        lambda: titan("split"),
        lambda: source("olmo2"),
        {},
        ModelError,
        "olmo2: proctool has no mapping",
    ),
    "a way that is none": (
        lambda: titan("split"),
        lambda: source("llama"),
        {"embeddings": "meen"},
        OptionError,
        'embeddings: "meen".*mean',
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_one_line_and_changes_nothing(case: str) -> None:
    make_target, make_donor, options, kind, message = BAD[case]
    target, donor = make_target(), make_donor()
    caught: list[str] = []

    def act() -> None:
        with pytest.raises(kind, match=message) as error:
            proctool.transplant_into(target, donor, **options)
        caught.append(str(error.value))

    assert changed(target, act) == set()
    assert "\n" not in caught[0]
    assert len(caught[0]) < 320


def test_a_module_without_memory_is_refused() -> None:
    with torch.device("meta"):
        target = titan("split")
    with pytest.raises(ModelError, match=r"attention_norm\.weight is on the meta device"):
        proctool.transplant_into(target, source("llama"), ["norms"])


@pytest.mark.parametrize(
    ("module", "donor", "message"),
    [
        ({}, "warm.safetensors", "module: is a dict, not a torch.nn.Module$"),
        (nn.Linear(2, 2), {}, "donor: is a dict, not a torch.nn.Module or the path of a model"),
        (nn.Linear(2, 2), "missing.safetensors", r"missing\.safetensors"),
    ],
)
def test_what_is_no_model(module: Any, donor: Any, message: str) -> None:
    with pytest.raises(ProctoolError, match=message):
        proctool.transplant_into(module, donor)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (("x", "attn"), '"attn" is not a component'),
        (("x", "attention", ("qeury",)), '"qeury" is not a part.*query'),
        (("x", "mlp", ("query",)), "query belongs to attention, not mlp"),
        (("x(", "mlp"), "not a regular expression"),
    ],
)
def test_rules_that_are_none(rule: tuple[Any, ...], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        TensorRule(*rule)


def test_rotary_into_a_model_without_is_told() -> None:
    target = litgpt.GPT(litgpt.Config(n_embd=32, n_head=4, padding_multiple=16))
    with pytest.warns(Notice, match="GPT has rotary positions and GPT2LMHeadModel has none"):
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
