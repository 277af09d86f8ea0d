"""What does not fit is one line that names the tensors, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import proctool
from proctool.errors import ModelError, OptionError, ProctoolError
from proctool.foreign import ModelMapping, TensorRule
from proctool.models.build import build_model, model_config
from tests.foreign import nanogpt
from tests.foreign.own import Own, changed, own_mapping
from tests.foreign.test_whole import lit_llama, source, titan

NANOGPT = nanogpt.GPTConfig(n_embd=32, n_head=4, vocab_size=64)


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
        r"two rules cover blocks\.0\.wide\.weight: wide \(mlp\) and wide \(norms\)",
    ),
    "two tensors claim a part": (
        Own,
        lambda: source("llama"),
        {"mapping": own_mapping(inside=(*own_mapping().inside[:4], TensorRule("narrow", "mlp", ("up",))))},
        ModelError,
        r"gives both blocks\.0\.wide\.weight and blocks\.0\.narrow\.weight the part",
    ),
    "heads unknown": (
        Own,
        lambda: source("llama"),
        {"mapping": own_mapping(heads=None)},
        ModelError,
        r"number of heads is unknown.*mix\.q",
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
        r"layers\.0\.mlp\.gate_proj\.weight gives shape \(48, 32\), but layers\.0\.feed_forward\.w1\.weight of Llama",
    ),
    "depth": (
        lambda: titan("split"),
        lambda: source("llama", num_hidden_layers=3),
        {},
        ModelError,
        "has 3 layers but Llama has 2",
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
        r"set the start of the head with .*lm_head\.weight is tied to transformer\.wte\.weight",
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
        r"layers\.1\.mlp\.down_proj\.weight has NaN or infinite values",
    ),
    "layers": (
        lambda: titan("split"),
        lambda: source("llama"),
        {"layers": 2},
        OptionError,
        "layers: 2 exceeds the model",
    ),
    "nothing": (
        lambda: titan("split"),
        lambda: source("llama"),
        {"components": ["none"], "embeddings": "fresh"},
        OptionError,
        "nothing would be carried",
    ),
    "family without a mapping": (
        lambda: titan("split"),
        lambda: source("olmo2"),
        {},
        ModelError,
        "olmo2: proctool cannot carry weights",
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


@pytest.mark.parametrize("start", ["scale", "fresh"])
def test_a_module_without_memory_is_refused(start: str) -> None:
    with torch.device("meta"):
        target = titan("split")
    with pytest.raises(ModelError, match=r"\.weight is on the meta device; give the module memory first"):
        proctool.transplant_into(target, source("llama"), ["norms"], start)


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
        (("x(", "mlp"), "not a valid regular expression"),
    ],
)
def test_rules_that_are_none(rule: tuple[Any, ...], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        TensorRule(*rule)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda model: model.transformer.h[0].mlp.to("meta"), "is on the meta device"),
        (lambda model: model.half(), r"float16, which cannot hold a weight of 1e\+06"),
    ],
)
def test_a_model_of_transformers_that_cannot_take_the_values_is_left_as_it_is(spoil: Any, said: str) -> None:
    donor = build_model(model_config("1x2x16", vocab_size=12, context=9), 0)
    with torch.no_grad():
        donor.transformer.h[0].mlp.c_fc.weight[0, 0] = 1e6
    target = build_model(model_config("1x2x16", vocab_size=12, context=9), 1)
    spoil(target)
    before = {name: each.clone() for name, each in target.named_parameters() if not each.is_meta}
    with pytest.raises(ModelError, match=said):
        proctool.transplant_into(target, donor)
    assert all(torch.equal(dict(target.named_parameters())[name], each) for name, each in before.items())


def test_no_layers_is_not_all_layers() -> None:
    donor, target = (build_model(model_config("1x2x16", vocab_size=12, context=9), seed) for seed in (0, 1))
    with pytest.raises(OptionError, match="layers: is empty"):
        proctool.transplant_into(target, donor, layers=[])


@pytest.mark.parametrize(("option", "value"), [("rotary", "half"), ("heads", 0), ("kv_heads", -1)])
def test_a_mapping_of_nonsense_is_refused(option: str, value: Any) -> None:
    with pytest.raises(OptionError, match=f"mapping mine: {option} = "):
        ModelMapping("mine", "h", (), **{option: value})


def _int8(model: Any) -> None:
    block = model.transformer.h[0].mlp.c_fc
    block.weight = nn.Parameter(block.weight.detach().to(torch.int8), requires_grad=False)


def test_whole_numbers_take_no_weights() -> None:
    donor, target = (build_model(model_config("1x2x16", vocab_size=12, context=9), seed) for seed in (0, 1))
    _int8(target)
    with pytest.raises(ModelError, match=r"h\.0\.mlp\.c_fc\.weight has type torch\.int8, not floating-point"):
        proctool.transplant_into(target, donor)


def test_tensors_of_inference_mode_are_refused_before_any_changes() -> None:
    donor = build_model(model_config("1x2x16", vocab_size=12, context=9), 0)
    with torch.inference_mode():
        target = build_model(model_config("1x2x16", vocab_size=12, context=9), 1)
        before = {name: each.clone() for name, each in target.named_parameters()}
    with pytest.raises(ModelError, match="inference mode"):
        proctool.transplant_into(target, donor)
    assert all(torch.equal(each, before[name]) for name, each in target.named_parameters())


def test_a_donor_without_memory_is_refused() -> None:
    donor, target = (build_model(model_config("1x2x16", vocab_size=12, context=9), seed) for seed in (0, 1))
    with pytest.raises(ModelError, match="meta device, so the donor has no weights"):
        proctool.transplant_into(target, donor.to("meta"))


def test_data_parallel_is_unwrapped() -> None:
    donor, target = (build_model(model_config("1x2x16", vocab_size=12, context=9), seed) for seed in (0, 1))
    proctool.transplant_into(nn.DataParallel(target), donor)
    assert torch.equal(target.transformer.h[0].mlp.c_fc.weight, donor.transformer.h[0].mlp.c_fc.weight)
