"""Exactly the rows of the named heads are carried; sharpened attention has the entropy that was asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from proctool.artifact import open_artifact, read_torch
from proctool.errors import ModelError, OptionError
from proctool.models.build import build_model, config_of
from proctool.models.heads import QUERY, eager, entropies, head_map, patterns
from proctool.models.saved import open_model, save_model
from proctool.transplantation import TransplantOptions, plan_transplant, transplant, transplant_into
from proctool.transplantation.head_choice import choose_heads
from tests.conftest import Said
from tests.models.tiny import DENSE, VOCAB, tiny

GROUPED = {
    "vocab_size": VOCAB, "max_position_embeddings": 12, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "hidden_size": 16, "intermediate_size": 32, "pad_token_id": None,
}  # fmt: skip


def donor_of(folder: Path, model: torch.nn.Module) -> Path:
    """A donor whose every number differs from every fresh model's."""
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            draw = torch.Generator().manual_seed(100 + index)
            parameter.add_(0.1 + torch.rand(parameter.shape, generator=draw))
    save_model(folder / "donor.safetensors", model, {})
    return folder / "donor.safetensors"


@pytest.mark.parametrize("family", DENSE)
def test_exactly_the_rows_of_the_named_heads_change(tmp_path: Path, family: str) -> None:
    donor = open_model(donor_of(tmp_path, tiny(family, 1)))
    target, before, given = tiny(family, 2), tiny(family, 2), donor.weights()
    known = head_map(target)
    named = ["1.0", "1.1"] if known.group == 2 else ["1.1"]
    origins = {each.tensor: each for each in transplant_into(target, donor, ["attention"], heads=named)}
    changed = 0
    for name, parameter in target.named_parameters():
        old = dict(before.named_parameters())[name]
        rows = known.rows.get(name)
        if rows is None or rows.layer == 0:
            assert torch.equal(parameter, old), name
            assert origins[name].source == "fresh"
            continue
        size = 8  # of a head: two of them make the width of 16
        ours, theirs, fresh = (each.movedim(rows.axis, 0) for each in (parameter, given[name], old))
        for row in range(len(rows.role)):
            mine = known.group == 2 or rows.owner[row] == 1
            assert torch.equal(ours[row], (theirs if mine else fresh)[row]), (name, row)
            changed += mine
        assert origins[name].provenance.record()["heads"] == named
    assert changed >= 4 * size * len(named) / known.group


def test_the_rows_of_a_head_are_those_that_make_its_pattern(tmp_path: Path) -> None:
    """Independent of the table of names: another head's query and key leave a head's pattern as it is."""
    for family in ("gpt2", "gpt_neox", "bloom", "phi3", "mpt", "llama", "opt"):
        donor = open_model(donor_of(tmp_path, tiny(family, 1)))
        target = tiny(family, 2)
        ids = torch.arange(10)[None]
        with eager(target):
            before = patterns(target, ids)[0][0]
            transplant_into(target, donor, ["attention"], heads=["0.1"])
            after = patterns(target, ids)[0][0]
        torch.testing.assert_close(after[0, 0], before[0, 0])
        assert not torch.allclose(after[0, 1], before[0, 1], atol=1e-4), family


def test_heads_that_share_a_key_are_carried_together(tmp_path: Path) -> None:
    model = build_model(config_of("llama", GROUPED), 1)
    known = head_map(model)
    assert (known.heads, known.group) == (4, 2)
    with pytest.raises(OptionError, match=r"1\.2 shares a key and a value with 1\.3; give all of 1\.2 and 1\.3"):
        choose_heads(["1.2", "0.0", "0.1"], known, 0)
    donor = open_model(donor_of(tmp_path, model))
    target, before = build_model(config_of("llama", GROUPED), 2), build_model(config_of("llama", GROUPED), 2)
    transplant_into(target, donor, ["attention"], heads=["1.2", "1.3"])
    moved = {
        name: sorted({int(row) // 4 for row in (new != old).any(1).nonzero()})
        for (name, new), old in zip(target.named_parameters(), before.parameters(), strict=True)
        if "layers.1.self_attn" in name and "o_proj" not in name
    }
    assert {name.split(".")[-2]: rows for name, rows in moved.items()} == {
        "q_proj": [2, 3], "k_proj": [1], "v_proj": [1]
    }  # fmt: skip
    assert len(choose_heads(["random:2"], known, 3)) == 2
    with pytest.raises(OptionError, match="use a multiple"):
        choose_heads(["random:1"], known, 0)


def test_random_heads_are_the_seeds_and_never_those_left_out() -> None:
    known = head_map(tiny("gpt2"))
    drawn = [choose_heads(["random:2", "-1.1"], known, seed) for seed in range(20)]
    assert all(len(each) == 2 and (1, 1) not in each for each in drawn)
    assert len(set(drawn)) == 3
    assert drawn == [choose_heads(["random:2", "-1.1"], known, seed) for seed in range(20)]


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        (["2.0"], "heads: the model has no head 2.0; it has heads 0 to 1 in layers 0, 1"),
        (["1"], '"1" is not a head'),
        (["-1.0"], '"-1.0" is not a head'),
        (["1.0", "1.0"], "given twice"),
        (["random:4", "-0.0"], "only 3 heads are left"),
        (["random:0"], "is not a head"),
        ([], "no head is given"),
    ],
)
def test_heads_that_are_not_there_are_refused(heads: Sequence[str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        choose_heads(heads, head_map(tiny("gpt2")), 0)


def test_the_commands_carry_heads_and_say_so(proctool: Callable[..., Said], tmp_path: Path) -> None:
    donor_of(tmp_path, tiny("gpt2", 1))
    said = proctool("transplant", "--attention", "donor.safetensors", "--heads", "1.1,0.0", "--shuffle", "attention")
    assert said.code == 0, said.err
    assert "from donor.safetensors, only heads 0.0, 1.1; shuffled" in said.err
    made = open_artifact(tmp_path / "mixed.safetensors", "model")
    given, weights = open_model(tmp_path / "donor.safetensors").weights(), read_torch(made)
    origin = made.metadata["origins"]["transformer.h.1.attn.c_proj.weight"]
    assert origin["heads"] == ["0.0", "1.1"]
    old, new = (each["transformer.h.1.attn.c_proj.weight"] for each in (given, weights))
    assert torch.equal(old[8:].flatten().sort().values, new[8:].flatten().sort().values)  # its own rows, shuffled
    assert not torch.equal(old[8:], new[8:])
    small = ("eval", "haystack", "--pairs", 2, "--steps", 2, "--model", "2x2x16", "--init", "donor.safetensors")
    said = proctool(*small, "--ramp-steps", 1, "--components", "attention", "--heads", "0.1", "--dry-run", "--json")
    assert said.code == 0, said.err
    rows = [row for row in json.loads(said.out)["carried"] if row["component"] == "attention"]
    assert [row.get("heads") for row in rows if row["source"] == "altered"] == [["0.1"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": ("0.1",), "mlp": ("D",)}, "heads: attention is not carried"),
        ({"heads": ("0.1",), "attention": ("D",), "layers": ("1",)}, "heads: 0.1 is not in the carried layers"),
        ({"sharpen": "2", "mlp": ("D",)}, "sharpen: attention is not carried"),
        ({"sharpen": "0", "attention": ("D",)}, "attention: sharpen = 0: must be a factor above 0"),
        ({"sharpen": "more", "attention": ("D",)}, "sharpen: 'more' is not a number"),
        ({"sharpen": "match", "attention": ("D,E",)}, "match needs exactly one donor"),
    ],
)
def test_mistakes_are_told_before_anything_is_made(tmp_path: Path, options: dict, message: str) -> None:
    for seed, name in enumerate("DE"):
        save_model(tmp_path / name, tiny("gpt2", seed), {})
    paths = {
        key: tuple(",".join(str(tmp_path / each) for each in one.split(",")) for one in value)
        for key, value in options.items()
        if key in ("attention", "mlp")
    }
    with pytest.raises(OptionError, match=message):
        plan_transplant(TransplantOptions(**{**options, **paths}))


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "qwen2"])
def test_a_factor_multiplies_the_queries_and_nothing_else(tmp_path: Path, family: str) -> None:
    path = donor_of(tmp_path, tiny(family, 1))
    out = tmp_path / "out.safetensors"
    transplant(attention=str(path), base=str(path), sharpen="3", output=out)
    given, made, known = open_model(path).weights(), open_model(out).weights(), head_map(tiny(family))
    for name, value in given.items():
        factor = torch.ones_like(value)
        if name in known.rows:
            factor.movedim(known.rows[name].axis, 0)[torch.from_numpy(known.rows[name].role == QUERY)] = 3
        torch.testing.assert_close(made[name], value * factor)


def test_matched_sharpness_has_the_donors_entropy_head_by_head(tmp_path: Path) -> None:
    donor = tiny("gpt2", 1)
    with torch.no_grad():
        for layer, size in enumerate((2.0, 4.0)):
            donor.transformer.h[layer].attn.c_attn.weight[:, :32] *= size
            donor.transformer.h[layer].attn.c_attn.weight[:, 8:16] *= 2  # head 1 is sharper than head 0
    save_model(tmp_path / "donor.safetensors", donor, {})
    path = str(tmp_path / "donor.safetensors")
    found = {}
    for name, more in (("plain", {}), ("matched", {"sharpen": "match"})):
        options = TransplantOptions(
            base=path, attention=(path,), match_scale=("attention",), output=tmp_path / f"{name}.safetensors", **more
        )
        plan_transplant(options).write(options.output)
        found[name] = open_model(options.output).model()
    ids = torch.randint(VOCAB, (64, 12), generator=torch.Generator().manual_seed(9))
    entropy = {}
    for name, model in {"donor": donor, **found}.items():
        with eager(model):
            entropy[name] = np.array([entropies(each)[..., 1:].mean((0, 2)) for each in patterns(model, ids)[0]])
    assert np.abs(entropy["plain"] - entropy["donor"]).max() > 0.1
    np.testing.assert_allclose(
        entropy["matched"], entropy["donor"], atol=0.08
    )  # on other samples than it was matched on
    query = found["matched"].transformer.h[0].attn.c_attn.weight[:, :8]
    plain = found["plain"].transformer.h[0].attn.c_attn.weight[:, :8]
    ratio = query / plain
    torch.testing.assert_close(ratio, ratio[0, 0].expand_as(ratio))  # one factor for a head
    for part in ("h.0.attn.c_proj.weight", "h.1.mlp.c_fc.weight", "wte.weight"):
        assert torch.equal(*(each.get_parameter(f"transformer.{part}") for each in found.values()))


def test_where_queries_are_normalised_a_factor_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path / "m.safetensors", tiny("qwen3"), {})
    with pytest.raises(ModelError, match="normalise queries"):
        plan_transplant(TransplantOptions(attention=(str(tmp_path / "m.safetensors"),), sharpen="2"))
