from __future__ import annotations

import copy
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from proctool.errors import ModelError, Notice, OptionError
from proctool.models.build import build_model, model_config
from proctool.models.components import components
from proctool.models.saved import SavedModel, open_model, save_model
from proctool.transplantation import BODY, TransplantOptions, plan_transplant, transplant_into
from tests.models.tiny import FAMILIES, tiny

VOCAB, CONTEXT = 30, 16


def make(
    folder: Path, seed: int, *, model: str = "2x2x16", vocab: int = VOCAB, context: int = CONTEXT, **options: str
) -> SavedModel:
    built = build_model(model_config(model, vocab_size=vocab, context=context, **options), seed)
    path = folder / f"{seed}-{model}-{vocab}-{context}.safetensors"
    save_model(path, built, {})
    return open_model(path)


def fresh(**options: object) -> torch.nn.Module:
    settings = {"vocab_size": 41, "context": CONTEXT, **options}
    return build_model(model_config("2x2x16", **settings), 5)


@pytest.mark.parametrize("carried", [("attention",), ("mlp",), ("norms",), BODY, (*BODY, "positions")])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_exactly_the_named_components_change(tmp_path: Path, carried: tuple[str, ...], family: str) -> None:
    if family == "llama":
        carried = tuple(name for name in carried if name != "positions")  # rotary: there is nothing to carry
    donor = make(tmp_path, 1, family=family)
    with torch.no_grad():  # norms start alike everywhere: make the donor's different
        trained = donor.model()
        for parameter in trained.parameters():
            parameter.add_(0.5)
    save_model(tmp_path / "trained.safetensors", trained, {})
    donor = open_model(tmp_path / "trained.safetensors")
    target, before = fresh(family=family), fresh(family=family)
    origins = transplant_into(target, donor, carried)
    given, old = donor.weights(), dict(before.named_parameters())
    for origin, (name, parameter) in zip(origins, target.named_parameters(), strict=True):
        assert origin.tensor == name
        expected = given[name] if origin.component in carried else old[name]
        assert torch.equal(parameter, expected), name
        assert (origin.source == "fresh") == (origin.component not in carried)


@pytest.mark.parametrize("way", ["scale", "mean", "sample"])
def test_embedding_starts(tmp_path: Path, way: str) -> None:
    donor = make(tmp_path, 1)
    target, before = fresh(), fresh()
    transplant_into(target, donor, BODY, embeddings=way)
    rows, given = target.get_input_embeddings().weight.detach(), donor.weights()["transformer.wte.weight"]
    old = before.get_input_embeddings().weight.detach()
    if way == "scale":
        torch.testing.assert_close(rows.std(), given.std())
        torch.testing.assert_close(rows / rows.std(), old / old.std())
    elif way == "mean":
        torch.testing.assert_close(rows, given.mean(0).expand(41, -1))
    else:
        assert all(any(torch.equal(row, one) for one in given) for row in rows)
        assert len({tuple(row.tolist()) for row in rows}) > 10
    assert target.get_output_embeddings().weight is target.get_input_embeddings().weight


def test_copied_embeddings_ask_for_the_same_vocabulary(tmp_path: Path) -> None:
    donor = make(tmp_path, 1)
    with pytest.raises(ModelError, match="vocabulary of 30, but the target has 41"):
        transplant_into(fresh(), donor, BODY, embeddings="copy")
    target = fresh(vocab_size=VOCAB)
    transplant_into(target, donor, BODY, embeddings="copy")
    assert torch.equal(target.get_input_embeddings().weight, donor.weights()["transformer.wte.weight"])


@pytest.mark.parametrize(("context", "word"), [(8, "cut"), (16, "carried"), (31, "extended"), (24, "extended")])
def test_positions_are_cut_or_stretched_and_said_to_be(tmp_path: Path, context: int, word: str) -> None:
    donor = make(tmp_path, 1)
    target = fresh(context=context)
    origins = transplant_into(target, donor, ["positions"])
    (origin,) = [origin for origin in origins if origin.component == "positions"]
    assert origin.source == word
    given, rows = donor.weights()["transformer.wpe.weight"], target.transformer.wpe.weight.detach()
    if context <= CONTEXT:
        assert torch.equal(rows, given[:context])
        return
    for column in range(0, 16, 5):  # numpy's interpolation as the reference
        expected = np.interp(np.linspace(0, CONTEXT - 1, context), np.arange(CONTEXT), given[:, column].numpy())
        np.testing.assert_allclose(rows[:, column].numpy(), expected, atol=1e-6)
    if context == 2 * CONTEXT - 1:  # every other row is a donor's
        torch.testing.assert_close(rows[::2], given)


def test_stretched_positions_keep_the_rows_before_the_first(tmp_path: Path) -> None:
    donor = make(tmp_path, 1, family="opt", context=8)
    target = fresh(family="opt", context=15)
    transplant_into(target, donor, ["positions"])
    given, rows = donor.weights()["model.decoder.embed_positions.weight"], target.model.decoder.embed_positions.weight
    torch.testing.assert_close(rows[:2], given[:2])  # OPT's positions begin at row 2
    torch.testing.assert_close(rows[2::2], given[2:])


@pytest.mark.parametrize("ranges", [["1"], ["mlp=1"], ["0", "attention=0-1"]])
def test_only_the_layers_asked_for_change(tmp_path: Path, ranges: list[str]) -> None:
    donor = make(tmp_path, 1)
    target, before = fresh(), dict(fresh().named_parameters())
    origins = transplant_into(target, donor, ["attention", "mlp"], layers=ranges)
    given = donor.weights()
    expected = {
        "1": {("attention", 1), ("mlp", 1)},
        "mlp=1": {("attention", 0), ("attention", 1), ("mlp", 1)},
        "0": {("attention", 0), ("attention", 1), ("mlp", 0)},
    }[ranges[0]]
    for origin in origins:
        is_moved = (origin.component, origin.layer) in expected
        wanted = given[origin.tensor] if is_moved else before[origin.tensor]
        assert torch.equal(target.get_parameter(origin.tensor), wanted), origin
        assert (origin.source == "carried") == is_moved


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_carries_what_is_named_and_nothing_else(family: str) -> None:
    donor, target, before = tiny(family, 1), tiny(family, 2), tiny(family, 2)
    with torch.no_grad():
        for parameter in donor.parameters():
            parameter.add_(torch.randn(parameter.shape))
    given = dict(donor.named_parameters())
    carried = [name for name in ("attention", "mixer") if name in {p.component for p in components(donor).values()}]
    transplant_into(target, InMemory(donor), carried)
    for name, place in components(target).items():
        wanted = given[name] if place.component in carried else before.get_parameter(name)
        assert torch.equal(target.get_parameter(name), wanted), name


def test_components_that_a_family_does_without_are_passed_over_beside_others() -> None:
    donor = InMemory(tiny("olmo", 1))  # rotary positions, norms without weights
    origins = transplant_into(tiny("olmo", 2), donor, ["attention", "norms", "positions"])
    assert {origin.component for origin in origins if origin.source == "carried"} == {"attention"}
    with pytest.raises(OptionError, match="has no positions"):
        transplant_into(tiny("olmo", 2), donor, ["positions"])


class InMemory(SavedModel):
    """A model that was never saved."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__(Path("memory"), model.config, {}, None)
        object.__setattr__(self, "_model", model)

    def weights(self) -> dict[str, torch.Tensor]:
        return dict(self._model.state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "3x2x16"}, "has 3 layers, but the target has 2"),
        ({"model": "2x2x32"}, "has 32 width, but the target has 16"),
        ({"model": "2x4x16"}, "has 4 heads, but the target has 2"),
        ({"family": "llama"}, "is a llama model, but the target is gpt2"),
    ],
)
def test_donors_of_another_shape_are_refused(tmp_path: Path, change: dict[str, str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        transplant_into(fresh(), make(tmp_path, 1, **change), BODY)


@pytest.mark.parametrize(
    ("carried", "message"),
    [
        (["atention"], 'did you mean "attention"'),
        (["mlp", "mlp"], "twice"),
        ([], "nothing"),
        (["embeddings"], "--embeddings"),
        (["mixer"], "has no mixer"),
    ],
)
def test_components_that_cannot_be_carried_are_refused(tmp_path: Path, carried: list[str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        transplant_into(fresh(), make(tmp_path, 1), carried)


def test_a_donor_with_nan_is_refused_and_the_target_left_alone(tmp_path: Path) -> None:
    broken = make(tmp_path, 1).model()
    last = [name for name, place in components(broken).items() if place.component == "norms"][-1]
    with torch.no_grad():
        broken.get_parameter(last)[0] = float("nan")
    save_model(tmp_path / "nan.safetensors", broken, {})
    target, before = fresh(), fresh()
    with pytest.raises(ModelError, match=last):
        transplant_into(target, open_model(tmp_path / "nan.safetensors"), BODY)
    assert all(torch.equal(a, b) for a, b in zip(target.parameters(), before.parameters(), strict=True))


def test_what_the_target_has_no_place_for_is_said(tmp_path: Path) -> None:
    """Biases of attention, and a head of its own, beside a target without."""
    settings = model_config("2x2x16", vocab_size=VOCAB, context=CONTEXT, family="llama")
    settings.tie_word_embeddings, plain = False, copy.deepcopy(settings)
    settings.attention_bias, plain.tie_word_embeddings = True, True
    save_model(tmp_path / "d", build_model(settings, 1), {})
    donor = open_model(tmp_path / "d")
    with pytest.warns(Notice) as said:
        transplant_into(build_model(plain, 2), donor, BODY, embeddings="copy")
    assert [str(each.message) for each in said] == [
        "d: 8 attention tensors do not exist in the model and are not carried: "
        + ", ".join(f"model.layers.0.self_attn.{name}_proj.bias" for name in "qkv")
        + " and 5 more",
        "d: 1 head tensor does not exist in the model and is not carried: lm_head.weight",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error", Notice)
        transplant_into(build_model(settings, 2), donor, BODY, embeddings="copy")
        transplant_into(build_model(plain, 2), donor, ["mlp"])
    save_model(tmp_path / "base", build_model(plain, 2), {})
    planned = plan_transplant(TransplantOptions(base=str(tmp_path / "base"), attention=(str(tmp_path / "d"),)))
    written = planned.write(tmp_path / "t")
    (row,) = written.metadata["left_behind"]
    assert (row["donor"], row["component"], row["count"]) == ("d", "attention", 8)
