"""Components partition every supported family's parameters, and are what their names say."""

from __future__ import annotations

import collections

import pytest
import torch

from proctool.errors import ModelError, OptionError
from proctool.models.build import build_model, config_of, outline
from proctool.models.components import COMPONENTS, anatomy, components, train_only
from proctool.transplantation.fresh import draw
from tests.models.tiny import CONTEXT, DENSE, EXPERTS, FAMILIES, HYBRIDS, VOCAB, tiny, tiny_config

TOKENS = torch.arange(CONTEXT)[None] % VOCAB


@pytest.mark.parametrize("family", FAMILIES)
def test_components_partition_the_parameters_exactly(family: str) -> None:
    model = tiny(family)
    found = anatomy(model)
    parameters = dict(model.named_parameters())
    assert list(found.parameters) == list(parameters)
    saved = {**parameters, **{name: each for name, each in model.named_buffers() if name in model.state_dict()}}
    assert {*found.parameters, *found.buffers} == saved.keys()
    sizes: collections.Counter[str] = collections.Counter()
    for name, place in found.parameters.items():
        assert place.component in COMPONENTS
        sizes[place.component] += parameters[name].numel()
    assert sum(sizes.values()) == sum(parameter.numel() for parameter in model.parameters())
    assert sizes["embeddings"] == model.get_input_embeddings().weight.numel()
    head, tied = model.get_output_embeddings(), model.get_output_embeddings().weight
    expected = 0 if tied is model.get_input_embeddings().weight else sum(each.numel() for each in head.parameters())
    assert sizes["head"] == expected
    assert bool(sizes["mixer"]) == (family in HYBRIDS)
    assert bool(sizes["mlp"]) == (family != "mamba2")
    if family in (*DENSE, *EXPERTS):
        in_layers = {place.layer for place in found.parameters.values() if place.component in ("attention", "mlp")}
        assert in_layers == set(range(found.layers))


@pytest.mark.parametrize("family", FAMILIES)
def test_without_attention_and_mixers_no_token_sees_another(family: str) -> None:
    model = tiny(family, seed=1).eval()
    changed = TOKENS.clone()
    changed[0, 3] = VOCAB - 1
    with torch.no_grad():
        mixed = (model(TOKENS).logits - model(changed).logits)[0, -1]
        for name, place in components(model).items():
            if place.component in ("attention", "mixer"):
                model.get_parameter(name).zero_()
        alone = (model(TOKENS).logits - model(changed).logits)[0, -1]
    assert mixed.abs().max() > 0
    assert alone.abs().max() == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_fresh_tensors_are_drawn_as_the_family_draws_them(family: str) -> None:
    config = tiny_config(family)
    outlined, built = outline(config), build_model(config, 5)
    for name, parameter in built.named_parameters():
        drawn, expected = draw(outlined, name, 7), parameter.detach()
        assert drawn.shape == expected.shape
        if expected.std(correction=0) == 0:
            assert torch.equal(drawn, expected), name
        elif expected.numel() >= 64:
            ratio = drawn.std() / expected.std()
            assert 0.6 < ratio < 1.7, f"{name}: {ratio}"
    assert all(parameter.is_meta for parameter in outlined.parameters())


def test_a_fresh_tensor_depends_on_the_seed_and_its_name_only() -> None:
    config = tiny_config("gpt2")
    one, two = "transformer.h.0.mlp.c_fc.weight", "transformer.h.1.mlp.c_fc.weight"
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = draw(outline(config), one, 0)
    assert torch.equal(torch.get_rng_state(), before)
    other = outline(config)
    assert not torch.equal(draw(other, two, 0), first)
    assert torch.equal(draw(other, one, 0), first)
    assert not torch.equal(draw(other, one, 1), first)


@pytest.mark.parametrize(
    ("family", "values", "message"),
    [
        ("bert", {"is_decoder": True}, "BertEmbeddings is neither"),
        ("cpmant", {}, "an embedding of 32 rows is neither the tokens'"),
        ("doge", {}, "model.layers.0.input_residual belongs to no known component"),
        ("hrm_text", {}, "found 2"),
        ("ctrl", {}, "Sequential is neither"),
    ],
)
def test_families_whose_parts_are_unclear_are_refused(family: str, values: dict[str, object], message: str) -> None:
    small = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "vocab_size": VOCAB}
    with pytest.raises(ModelError, match=message):
        components(outline(config_of(family, small | values)))


@pytest.mark.slow
def test_every_causal_model_of_transformers_is_partitioned_or_refused() -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    small = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "hidden_size": 16}
    counts: collections.Counter[str] = collections.Counter()
    for family in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        try:
            model = outline(config_of(family, small))
        except (ModelError, ImportError, AssertionError, NotImplementedError):
            counts["not built from so small a configuration"] += 1
            continue
        try:
            found = anatomy(model)
        except ModelError:
            counts["refused"] += 1
            continue
        assert list(found.parameters) == [name for name, _ in model.named_parameters()]
        counts["partitioned"] += 1
    print(dict(counts))
    assert counts["partitioned"] >= 120


@pytest.mark.parametrize("names", [("attention",), ("mlp", "norms"), ("embeddings",)])
def test_freezing_leaves_exactly_the_named_components_to_train(names: tuple[str, ...]) -> None:
    model = tiny("gpt2")
    trained = train_only(model, names)
    places = components(model)
    assert {name for name, each in model.named_parameters() if each.requires_grad} == {
        name for name, place in places.items() if place.component in names
    }
    assert trained == sum(each.numel() for each in model.parameters() if each.requires_grad)


@pytest.mark.parametrize(
    ("family", "names", "message"),
    [
        ("llama", ["positions"], "has no positions"),
        ("gpt2", ["head"], "the head shares the token embedding"),
        ("gpt2", ["mixer"], "has no mixer"),
        ("gpt2", ["atention"], 'train: "atention" is not a component'),
        ("gpt2", ["mlp", "mlp"], "twice"),
        ("gpt2", ["none"], "nothing would be trained"),
    ],
)
def test_what_cannot_be_trained_is_refused(family: str, names: list[str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        train_only(tiny(family), names)
