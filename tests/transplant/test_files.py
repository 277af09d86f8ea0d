"""Models built from parts of others: which tensor comes from where, controls, embeddings, depth, and what is kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import proctool
from proctool import artifact
from proctool.errors import ModelError, OptionError
from proctool.models.build import build_model, model_config
from proctool.models.components import components
from proctool.models.saved import open_model
from proctool.transplantation import TransplantOptions, plan_transplant
from tests.transplant.donors import CONTEXT, VOCAB, save_donor, weights

Weights = dict[str, torch.Tensor]


@pytest.fixture
def donors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Weights]:
    monkeypatch.chdir(tmp_path)
    return {name: save_donor(Path(f"{name}.safetensors"), seed) for seed, name in enumerate(("a", "b", "c"), start=1)}


def build(**options: Any) -> Weights:
    proctool.transplant(output="out.safetensors", force=True, **options)
    return weights(Path("out.safetensors"))


def places() -> dict[str, str]:
    model = build_model(model_config("2x2x16", vocab_size=VOCAB, context=CONTEXT), 0)
    return {name: place.component for name, place in components(model).items()}


def test_each_component_comes_from_its_own_donor_and_the_rest_from_the_seed(donors: dict[str, Weights]) -> None:
    mixed = build(attention="a.safetensors", mlp="b.safetensors", positions="c.safetensors")
    again = build(attention="a.safetensors", mlp="b.safetensors", positions="c.safetensors")
    other = build(attention="a.safetensors", mlp="b.safetensors", positions="c.safetensors", seed=1)
    sources = {"attention": donors["a"], "mlp": donors["b"], "positions": donors["c"]}
    for name, component in places().items():
        assert torch.equal(mixed[name], again[name])
        if component in sources:
            assert torch.equal(mixed[name], sources[component][name])
            assert torch.equal(mixed[name], other[name])
        else:
            assert not any(torch.equal(mixed[name], each[name]) for each in donors.values())
    assert not torch.equal(mixed["transformer.wte.weight"], other["transformer.wte.weight"])
    assert torch.equal(mixed["transformer.ln_f.weight"], torch.ones(16))


def test_the_artifact_is_a_model_whose_head_is_tied_and_every_origin_listed(donors: dict[str, Weights]) -> None:
    build(attention="a.safetensors", mlp="b.safetensors", embeddings="mean", embeddings_from="c.safetensors")
    saved = open_model(Path("out.safetensors"))
    model = saved.model()
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    origins = saved.metadata["origins"]
    assert origins.keys() == saved.artifact.tensors.keys()
    for name, component in places().items():
        letter = {"attention": "a", "mlp": "b", "embeddings": "c"}.get(component)
        assert origins[name]["from"] == ([{"donor": f"{letter}.safetensors", "tensor": name}] if letter else []), name
        assert (origins[name]["source"] == "fresh") == (letter is None)
    heads = {f"{name}.safetensors": artifact.read_header(Path(f"{name}.safetensors")).content for name in "abc"}
    assert {parent["name"]: parent["content"] for parent in saved.artifact.parents} == heads
    assert saved.metadata["donors"] == heads


def test_a_base_gives_everything_that_is_not_carried(donors: dict[str, Weights]) -> None:
    mixed = build(base="c.safetensors", attention="a.safetensors", layers=["1"])
    for name, component in places().items():
        moved = component == "attention" and name.startswith("transformer.h.1.")
        assert torch.equal(mixed[name], donors["a" if moved else "c"][name]), name
    redrawn = build(base="c.safetensors", attention="a.safetensors", embeddings="fresh")
    assert not torch.equal(redrawn["transformer.wte.weight"], donors["c"]["transformer.wte.weight"])
    assert torch.equal(redrawn["transformer.ln_f.weight"], donors["c"]["transformer.ln_f.weight"])


@pytest.mark.parametrize("way", ["scale", "mean", "sample", "copy"])
def test_embedding_starts(donors: dict[str, Weights], way: str) -> None:
    size = VOCAB if way == "copy" else 41
    given = donors["a"]["transformer.wte.weight"]
    plain = build(mlp="a.safetensors", vocab_size=size)["transformer.wte.weight"]
    rows = build(mlp="a.safetensors", vocab_size=size, embeddings=way)["transformer.wte.weight"]
    assert rows.shape == (size, 16)
    if way == "scale":
        torch.testing.assert_close(rows / rows.std() * plain.std(), plain)
        torch.testing.assert_close(rows.std(), given.std())
    elif way == "mean":
        torch.testing.assert_close(rows, given.mean(0).expand(size, -1))
    elif way == "copy":
        assert torch.equal(rows, given)
    else:
        assert all((row == given).all(1).any() for row in rows)
        assert len(rows.unique(dim=0)) > 10


def test_sampled_rows_of_an_untied_head_belong_to_the_same_tokens(tmp_path: Path) -> None:
    given = save_donor(tmp_path / "d.safetensors", 1, family="llama")
    out = tmp_path / "out.safetensors"
    proctool.transplant(mlp=tmp_path / "d.safetensors", embeddings="sample", vocab_size=41, output=out)
    made = weights(out)
    for row in range(41):
        token = (given["model.embed_tokens.weight"] == made["model.embed_tokens.weight"][row]).all(1).nonzero()[0, 0]
        assert torch.equal(made["lm_head.weight"][row], given["lm_head.weight"][token])


def test_shuffled_tensors_keep_their_values_and_lose_their_order(donors: dict[str, Weights]) -> None:
    mixed = build(attention="a.safetensors", mlp="a.safetensors", shuffle=["mlp"])
    for name, component in places().items():
        given, made = donors["a"][name], mixed[name]
        if component == "mlp":
            assert torch.equal(made.flatten().sort().values, given.flatten().sort().values), name
            assert not torch.equal(made, given), name
        elif component == "attention":
            assert torch.equal(made, given)


def test_each_tensor_is_shuffled_in_its_own_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def twin_layers(model: torch.nn.Module) -> None:
        model.transformer.h[1].load_state_dict(model.transformer.h[0].state_dict())

    save_donor(Path("twins.safetensors"), 1, change=twin_layers)
    mixed = build(mlp="twins.safetensors", shuffle=["mlp"])
    first, second = (mixed[f"transformer.h.{layer}.mlp.c_fc.weight"] for layer in (0, 1))
    assert not torch.equal(first, second)
    assert torch.equal(first.flatten().sort().values, second.flatten().sort().values)


def test_matched_scale_keeps_the_deviation_only(donors: dict[str, Weights]) -> None:
    mixed = build(attention="a.safetensors", norms="a.safetensors", match_scale=["attention", "norms"])
    plain = build(mlp="a.safetensors")
    for name, component in places().items():
        given, made = donors["a"][name], mixed[name]
        if component not in ("attention", "norms"):
            continue
        if plain[name].std() > 0:  # drawn: the fresh tensor at another scale
            torch.testing.assert_close(made.std(), given.std(), rtol=1e-3, atol=1e-6)
            correlation = torch.corrcoef(torch.stack([made.flatten(), plain[name].flatten()]))[0, 1]
            assert correlation > 0.999, name
        else:  # starts as a constant: Gaussian about it, of the donor's deviation
            assert 0.4 < made.std() / given.std() < 1.8, name
            assert abs(made.mean() - plain[name].mean()) < given.std(), name
        assert not torch.equal(made, given)


@pytest.mark.parametrize("ratio", [0.1, 2.0])
def test_noise_has_the_size_asked_for(donors: dict[str, Weights], ratio: float) -> None:
    mixed = build(attention="a.safetensors", mlp="a.safetensors", noise=[f"mlp={ratio}"])
    for name, component in places().items():
        given, noise = donors["a"][name], mixed[name] - donors["a"][name]
        if component == "attention":
            assert noise.abs().max() == 0
        elif component == "mlp" and given.numel() > 500:
            found = noise.square().mean().sqrt() / given.square().mean().sqrt()
            assert found == pytest.approx(ratio, rel=0.1)
            assert abs(torch.corrcoef(torch.stack([noise.flatten(), given.flatten()]))[0, 1]) < 0.15


def test_alpha_interpolates_from_the_start_to_the_donor(donors: dict[str, Weights]) -> None:
    ends = [build(mlp="a.safetensors", alpha=[alpha]) for alpha in ("0", "1")]
    half = build(mlp="a.safetensors", alpha=["mlp=0.25"])
    based = build(mlp="a.safetensors", base="c.safetensors", alpha=["0.25"])
    for name, component in places().items():
        if component == "mlp":
            assert torch.equal(ends[1][name], donors["a"][name])
            assert not torch.equal(ends[0][name], ends[1][name])
            torch.testing.assert_close(half[name], 0.75 * ends[0][name] + 0.25 * ends[1][name])
            torch.testing.assert_close(based[name], 0.75 * donors["c"][name] + 0.25 * donors["a"][name])


def test_several_donors_are_averaged(donors: dict[str, Weights]) -> None:
    mixed = build(mlp="a.safetensors,b.safetensors,c.safetensors", attention="a.safetensors")
    for name, component in places().items():
        if component == "mlp":
            torch.testing.assert_close(mixed[name], sum(each[name] for each in donors.values()) / 3)


@pytest.mark.parametrize(
    ("way", "layers", "expected"),
    [
        ("repeat", 5, [0, 1, 0, 1, 0]),
        ("stretch", 5, [0, 0, 0, 1, 1]),
        ("first", 5, [0, 1, None, None, None]),
        ("repeat", 1, [0]),
    ],
)
def test_depth_maps(donors: dict[str, Weights], way: str, layers: int, expected: list[int | None]) -> None:
    options = {"attention": "a.safetensors", "norms": "a.safetensors", "model": f"{layers}x2x16"}
    with pytest.raises(ModelError, match=f"has 2 layers, but the target has {layers}.*--depth-map"):
        build(**options)
    mixed = build(**options, depth_map=way)
    for layer, source in enumerate(expected):
        for part in ("attn.c_attn.weight", "ln_2.weight"):
            made = mixed[f"transformer.h.{layer}.{part}"]
            theirs = [torch.equal(made, donors["a"][f"transformer.h.{each}.{part}"]) for each in (0, 1)]
            assert theirs == [each == source for each in (0, 1)]
    assert torch.equal(mixed["transformer.ln_f.weight"], donors["a"]["transformer.ln_f.weight"])


def test_ten_layers_are_not_confused_with_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = save_donor(Path("deep.safetensors"), 1, model="11x1x4")
    mixed = build(attention="deep.safetensors", layers=["1"])
    for layer in range(11):
        name = f"transformer.h.{layer}.attn.c_attn.weight"
        assert torch.equal(mixed[name], given[name]) == (layer == 1)


def test_donors_with_files_named_alike_are_told_apart(tmp_path: Path) -> None:
    for seed, run in enumerate(("set", "eca")):
        (tmp_path / run).mkdir()
        save_donor(tmp_path / run / "warm.safetensors", seed)
    planned = plan_transplant(
        TransplantOptions(
            attention=(str(tmp_path / "set" / "warm.safetensors"),),
            mlp=(str(tmp_path / "eca" / "warm.safetensors"),),
            output=tmp_path / "out.safetensors",
        )
    )
    reasons = {origin.component: origin.provenance.words() for origin in planned.origins}
    assert reasons["attention"] == "from set/warm.safetensors"
    assert reasons["mlp"] == "from eca/warm.safetensors"


def test_the_tokenizer_comes_with_copied_embeddings_only(tmp_path: Path) -> None:
    save_donor(tmp_path / "d.safetensors", 1, metadata={"tokenizer": "bytes"})
    for way, expected in (("copy", "bytes"), ("mean", None)):
        made = proctool.transplant(
            mlp=tmp_path / "d.safetensors", embeddings=way, output=tmp_path / f"{way}.safetensors"
        )
        assert made.metadata.get("tokenizer") == expected


def test_a_hugging_face_folder_is_a_donor(donors: dict[str, Weights]) -> None:
    open_model(Path("a.safetensors")).model().save_pretrained("hf")
    mixed = build(attention="hf", mlp="b.safetensors")
    for name, component in places().items():
        if component == "attention":
            assert torch.equal(mixed[name], donors["a"][name])


def test_a_plan_reads_no_weights(donors: dict[str, Weights]) -> None:
    raw = bytearray(Path("a.safetensors").read_bytes())
    raw[-100] ^= 1  # only reading the weights would notice
    Path("a.safetensors").write_bytes(raw)
    planned = plan_transplant(TransplantOptions(attention=("a.safetensors",), mlp=("a.safetensors",)))
    assert len(planned.origins) == len(places())


def test_copied_tensors_are_those_that_would_be_made(donors: dict[str, Weights]) -> None:
    """What goes from file to file unchanged is what the same plan makes in memory, tensor by tensor."""
    options = {"attention": ("a.safetensors",), "mlp": ("b.safetensors",), "embeddings": "copy", "layers": ("mlp=0",)}
    planned = plan_transplant(
        TransplantOptions(**options, base="c.safetensors", embeddings_from="a.safetensors", alpha=("attention=0.5",))
    )
    copied = {step.origin.tensor for step in planned.steps if step.same}
    altered = {origin.tensor for origin in planned.origins if origin.source == "altered"}
    assert altered == {name for name, component in places().items() if component == "attention"}
    assert copied == places().keys() - altered
    planned.write(Path("out.safetensors"))
    written = weights(Path("out.safetensors"))
    for name, made in planned.values():
        assert torch.equal(written[name], made), name


def test_donors_in_half_precision_are_carried_at_their_values(donors: dict[str, Weights]) -> None:
    saved = artifact.read_header(Path("a.safetensors"))
    half = {name: tensor.bfloat16() for name, tensor in donors["a"].items()}
    artifact.write(Path("half.safetensors"), half, kind="model", metadata=saved.metadata)
    mixed = build(mlp="half.safetensors", attention="a.safetensors")
    for name, component in places().items():
        if component == "mlp":
            assert mixed[name].dtype == torch.float32
            assert torch.equal(mixed[name], half[name].float())


def test_importing_proctool_does_not_import_torch() -> None:
    code = "import proctool, sys; assert 'torch' not in sys.modules; assert callable(proctool.transplant)"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import proctool.transplantation, proctool; assert callable(proctool.transplant)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_options_of_the_function_are_refused() -> None:
    with pytest.raises(OptionError, match='did you mean "attention"'):
        proctool.transplant(atention="a.safetensors")
