"""Hugging Face folders: one truth about head and tensors, and no tensor that disappears without a line."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import proctool as package
from proctool import artifact
from proctool.errors import ArtifactError, Notice, ProctoolError
from proctool.export.folder import export
from proctool.models import hashes
from proctool.models.build import build_model, config_of, model_config
from proctool.models.saved import open_model, save_model
from proctool.transplantation import plan_transplant, transplant_into
from proctool.transplantation.options import TransplantOptions
from tests.conftest import Said
from tests.models.folders import Weights, configure, rewrite, stored, write_folder
from tests.models.tiny import EACH_FAMILY, EXPERTS, tiny

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
TOKENS = torch.arange(8)[None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "hf"


def notices(path: Path) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        open_model(path)
    return [str(each.message) for each in caught if each.category is Notice]


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(TOKENS).logits


# -- the head --


def test_a_head_of_its_own_wins_over_a_configuration_that_ties_it(folder: Path, tmp_path: Path) -> None:
    weights = write_folder(folder, tie_word_embeddings=False)
    expected = logits(open_model(folder).model())
    assert notices(folder) == []
    configure(folder, tie_word_embeddings=True)
    (said,) = notices(folder)
    assert HEAD in said
    assert str(folder) in said
    saved = open_model(folder)
    assert torch.equal(logits(saved.model()), expected)
    package.transplant(
        base=str(folder), attention=[str(folder)], embeddings="copy", embeddings_from=str(folder), output=tmp_path / "t"
    )
    copied = open_model(tmp_path / "t")
    assert torch.equal(logits(copied.model()), expected)
    assert torch.equal(copied.weights()[HEAD], weights[HEAD])
    assert copied.artifact.parents[0]["oddities"]["own_head"] == HEAD
    target = build_model(model_config(str(folder), vocab_size=saved.config.vocab_size, context=8), 0)
    transplant_into(target, saved, embeddings="copy")
    assert torch.equal(logits(target), expected)
    export(saved, tmp_path / "exported")
    assert torch.equal(logits(open_model(tmp_path / "exported").model()), expected)
    assert notices(tmp_path / "exported") == []  # its configuration tells the truth


def test_a_tie_within_a_text_configuration_gives_way_too(folder: Path) -> None:
    """Its files also call tensors otherwise than the model does."""
    settings = config_of(
        "gemma3",
        {
            "text_config": {
                "vocab_size": 23, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
                "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8,
            },
            "vision_config": {
                "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
                "image_size": 28, "patch_size": 14,
            },
        },
    )  # fmt: skip
    build_model(settings, 0).save_pretrained(folder)
    weights = stored(folder)
    embedding = next(name for name in weights if name.endswith("embed_tokens.weight"))
    rewrite(folder, weights | {HEAD: 2 * weights[embedding]})
    (said,) = notices(folder)
    assert HEAD in said
    saved = open_model(folder)
    assert not saved.config.get_text_config().tie_word_embeddings
    assert torch.equal(saved.model().get_output_embeddings().weight, 2 * weights[embedding])


@pytest.mark.parametrize("stored_as", [torch.float32, torch.bfloat16])
def test_a_head_that_is_the_embeddings_again_stays_tied(folder: Path, stored_as: torch.dtype) -> None:
    weights = write_folder(folder, tie_word_embeddings=True)
    rows = weights[EMBEDDING].bfloat16()
    rewrite(folder, weights | {EMBEDDING: rows.float(), HEAD: rows.to(stored_as)})
    assert notices(folder) == []
    model = open_model(folder).model()
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_a_tied_head_may_stand_for_the_embeddings(folder: Path) -> None:
    weights = write_folder(folder, tie_word_embeddings=True)
    expected = logits(open_model(folder).model())
    rewrite(folder, {HEAD if name == EMBEDDING else name: tensor for name, tensor in weights.items()})
    assert torch.equal(logits(open_model(folder).model()), expected)


def test_an_untied_configuration_without_a_head_is_an_error_that_says_how_to_tie_it(folder: Path) -> None:
    write_folder(folder, tie_word_embeddings=True)
    configure(folder, tie_word_embeddings=False)
    with pytest.raises(ArtifactError, match=f"tensor {HEAD} is missing.*tie_word_embeddings to true"):
        open_model(folder)


def test_an_artifact_with_a_head_of_its_own_keeps_it_too(tmp_path: Path, folder: Path) -> None:
    weights = write_folder(folder, tie_word_embeddings=False)
    model = open_model(folder).model()
    expected = logits(model)
    model.config.tie_word_embeddings = True  # what it records is wrong
    save_model(tmp_path / "m", model, {})
    (said,) = notices(tmp_path / "m")
    assert HEAD in said
    assert torch.equal(logits(open_model(tmp_path / "m").model()), expected)
    assert torch.equal(open_model(tmp_path / "m").weights()[HEAD], weights[HEAD])


def test_inspect_tells_what_a_folder_makes(proctool: Callable[..., Said], folder: Path) -> None:
    write_folder(folder, tie_word_embeddings=False)
    configure(folder, tie_word_embeddings=True)
    told = proctool("inspect", folder, "--json")
    found = json.loads(told.out)
    assert (found["content"], found["tied"], found["own_head"]) == (open_model(folder).content, False, HEAD)
    assert HEAD in told.err
    assert HEAD in proctool("inspect", folder, "--tensors").out


# -- every tensor --


@pytest.mark.parametrize("family", EACH_FAMILY)
def test_of_a_sound_folder_every_tensor_is_used_and_its_content_is_that_of_its_file(
    family: str, folder: Path, tmp_path: Path
) -> None:
    model = tiny(family, 1)
    model.save_pretrained(folder)
    assert notices(folder) == []
    saved = open_model(folder)
    assert torch.equal(logits(saved.model()), logits(model))
    if saved.folder.tensors.keys() == dict(model.named_parameters()).keys():
        assert save_model(tmp_path / "m", model, {}).content == saved.content


_EXTRA: dict[str, Weights] = {
    "layers beyond the configuration's": {"model.layers.7.mlp.up_proj.weight": torch.ones(64, 16)},
    "biases that the model lacks": {"model.layers.0.self_attn.q_proj.bias": torch.ones(16)},
    "norms that the model lacks": {"model.layers.0.self_attn.q_norm.weight": torch.ones(8)},
    "biases that are called like masks": {"model.layers.0.attn.bias": torch.ones(16)},
    "scales": {"model.layers.0.mlp.up_proj.weight_scale": torch.ones(1)},
}


@pytest.mark.parametrize("what", _EXTRA)
def test_tensors_that_the_model_lacks_are_named_and_recorded(what: str, folder: Path, tmp_path: Path) -> None:
    weights = write_folder(folder)
    rewrite(folder, weights | _EXTRA[what])
    (name,) = _EXTRA[what]
    (said,) = notices(folder)
    assert "1 tensor" in said
    assert name in said
    assert open_model(folder).oddities() == {"unused_tensors": 1, "first_unused": [name]}
    written = package.transplant(attention=[str(folder)], output=tmp_path / "t")
    assert written.parents[0]["oddities"] == {"unused_tensors": 1, "first_unused": [name]}


def test_tensors_that_a_family_always_drops_are_named_too(folder: Path) -> None:
    model = tiny("qwen3_next", 1)
    model.save_pretrained(folder)
    rewrite(folder, stored(folder) | {"mtp.fc.weight": torch.ones(16, 32)})
    (said,) = notices(folder)
    assert "mtp.fc.weight" in said


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("llama", {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}),
        (
            "gpt2",
            {"transformer.h.0.attn.bias": torch.ones(1, 1, 4, 4), "transformer.h.0.attn.masked_bias": torch.ones(())},
        ),
        ("gpt2", {"transformer.h.0.attn.bias": torch.ones(1, 1, 4, 4, dtype=torch.uint8)}),
        ("gpt_neox", {"gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 4, 4, dtype=torch.bool)}),
    ],
)
def test_tables_that_are_computed_anew_are_no_news(family: str, more: Weights, folder: Path) -> None:
    weights = write_folder(folder, family)
    rewrite(folder, weights | more)
    assert notices(folder) == []


def _quantised(weights: Weights, kind: torch.dtype) -> Weights:
    return {name: tensor.to(kind) if "up_proj" in name else tensor for name, tensor in weights.items()}


def _renamed(weights: Weights, old: str, new: str) -> Weights:
    return {name.replace(old, new): tensor for name, tensor in weights.items()}


_BROKEN: dict[str, tuple[Callable[[Weights], Weights], str]] = {
    "a missing tensor": (
        lambda weights: {name: each for name, each in weights.items() if name != "model.norm.weight"},
        "tensor model.norm.weight is missing",
    ),
    "another vocabulary": (
        lambda weights: weights | {EMBEDDING: torch.ones(30, 16)},
        rf"tensor {EMBEDDING} has shape \(30, 16\), but config.json needs \(23, 16\); set vocab_size to 30",
    ),
    "another width": (
        lambda weights: weights | {"model.norm.weight": torch.ones(5)},
        r"tensor model.norm.weight has shape \(5,\)",
    ),
    **{
        f"quantised as {kind}": (
            lambda weights, kind=kind: _quantised(weights, kind),
            "2 tensors .*layers.0.mlp.up_proj.weight.* values, so the weights are quantised",
        )
        for kind in (torch.int8, torch.uint8, torch.float8_e4m3fn, torch.float8_e5m2)
    },
    "quantised with scales": (
        lambda weights: _quantised(weights, torch.int8) | {"model.layers.0.mlp.up_proj.SCB": torch.ones(64)},
        "layers.0.mlp.up_proj.weight.* have I8 values, so the weights are quantised",
    ),
    "packed": (
        lambda weights: _renamed(_quantised(weights, torch.int32), "up_proj.weight", "up_proj.qweight"),
        "up_proj.qweight.* have I32 values, so the weights are quantised",
    ),
    "another family": (
        lambda weights: _renamed(weights, "mlp", "feed"),
        "6 tensors .*are missing; the files have model.layers.0.feed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", _BROKEN)
def test_what_the_model_needs_and_lacks_is_named(what: str, folder: Path) -> None:
    change, said = _BROKEN[what]
    weights = write_folder(folder)
    rewrite(folder, change(weights))
    with pytest.raises(ProctoolError, match=said):
        open_model(folder)


def test_an_expert_of_another_shape_is_named(folder: Path) -> None:
    weights = write_folder(folder, EXPERTS[0])
    odd = next(name for name in weights if "experts.1." in name)
    rewrite(folder, weights | {odd: torch.ones(5, 5)})
    with pytest.raises(ArtifactError, match=rf"tensor {odd} has shape \(5, 5\)"):
        open_model(folder)


# -- names with a prefix --


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "wrapped.inner."])
@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
def test_a_prefix_is_named_and_stripped_on_request(
    prefix: str, family: str, proctool: Callable[..., Said], folder: Path
) -> None:
    weights = write_folder(folder, family)
    expected = logits(open_model(folder).model())
    rewrite(folder, {prefix + name: each for name, each in weights.items()})
    refused = proctool("export", folder, "new")
    assert refused.code == 1
    assert f"start with {prefix}" in refused.line
    assert f"--strip-prefix {prefix}" in refused.line
    assert proctool("export", folder, "new", "--strip-prefix", prefix).code == 0
    assert torch.equal(logits(open_model(Path("new")).model()), expected)


def test_prefixes_come_off_one_after_the_other(folder: Path) -> None:
    weights = write_folder(folder)
    rewrite(folder, {f"module._orig_mod.{name}": each for name, each in weights.items()})
    saved = open_model(folder, ["module.", "_orig_mod."])
    assert saved.folder.tensors.keys() == weights.keys()
    with pytest.raises(ArtifactError, match=r"starts with 'other\.'"):
        open_model(folder, ["other."])


# -- files --


def test_shards_are_one_model_and_the_files_beside_them_are_named(folder: Path) -> None:
    weights = write_folder(folder, shards="4KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    saved = open_model(folder)
    assert saved.folder.tensors.keys() == weights.keys()
    save_file({"x": torch.ones(1)}, folder / "consolidated.safetensors")
    (said,) = notices(folder)
    assert "consolidated.safetensors" in said
    assert open_model(folder).oddities() == {"stray_files": ["consolidated.safetensors"]}


def _both(folder: Path) -> None:
    save_file(stored(folder), folder / "model.safetensors")


def _twice(folder: Path) -> None:
    one, other, *_ = sorted(folder.glob("model-*"))
    other.write_bytes(one.read_bytes())


def _adapter(folder: Path) -> None:
    save_file({"x": torch.ones(1)}, folder / "adapter_model.safetensors")


def _remove(folder: Path) -> None:
    sorted(folder.glob("model-*"))[1].unlink()


def _break(folder: Path) -> None:
    shard = sorted(folder.glob("model-*"))[1]
    shard.unlink()
    shard.symlink_to("gone.safetensors")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_both, "two sets of weights, model.safetensors and the"),
        (_twice, "is in both model-00001-.* and model-00002-"),
        (_adapter, "an adapter"),
        (_remove, "of which model-00002-of-.* is missing"),
        (_break, "model-00002-of-.*: is a broken link to gone.safetensors"),
    ],
)
def test_files_that_do_not_make_one_model_are_refused(spoil: Callable[[Path], None], said: str, folder: Path) -> None:
    write_folder(folder, shards="4KB")
    spoil(folder)
    with pytest.raises(ArtifactError, match=said):
        open_model(folder)


def test_an_index_without_its_files_leaves_the_one_file(folder: Path) -> None:
    weights = write_folder(folder, shards="4KB")
    rewrite(folder, weights)
    for shard in folder.glob("model-*"):
        shard.unlink()
    assert open_model(folder).folder.tensors.keys() == weights.keys()


@pytest.mark.parametrize("absolute", [True, False])
def test_a_folder_of_links_is_the_model_it_links_to(absolute: bool, tmp_path: Path) -> None:
    write_folder(tmp_path / "far", shards="4KB")
    linked = tmp_path / "snapshots" / "main"
    linked.mkdir(parents=True)
    for path in (tmp_path / "far").iterdir():
        (linked / path.name).symlink_to(path if absolute else Path("../../far") / path.name)
    (tmp_path / "whole").symlink_to("snapshots/main")
    contents = {open_model(tmp_path / name).content for name in ("far", "snapshots/main", "whole")}
    assert len(contents) == 1
    assert torch.equal(logits(open_model(linked).model()), logits(open_model(tmp_path / "far").model()))


# -- the content hash --


def _result(proctool: Callable[..., Said], text: Path, **more: str) -> Said:
    options = [word for key, value in more.items() for word in (f"--{key}", value)]
    return proctool(
        "pretrain", "--corpus", text, "--model", "hf", "--context", 12, "--steps", 1, "--batch-size", 2,
        "--eval-samples", 4, "--init", "hf", *options,
    )  # fmt: skip


def test_a_changed_folder_is_another_run_and_stands_in_the_lineage(
    proctool: Callable[..., Said], text: Path, folder: Path
) -> None:
    weights = write_folder(folder, vocab_size=257)
    assert _result(proctool, text).code == 0
    (parent,) = artifact.read_header(Path("model.safetensors")).parents
    assert parent["content"] == open_model(folder).content
    assert "already complete" in _result(proctool, text).err
    rewrite(folder, {name: 2 * each for name, each in weights.items()})
    refused = _result(proctool, text)
    assert refused.code == 1
    assert f"from other weights ({parent['content'][:12]} instead of {open_model(folder).content[:12]})" in refused.line
    planned = plan_transplant(TransplantOptions(attention=(str(folder),)))
    assert planned.donors[0].content == open_model(folder).content != parent["content"]
    rewrite(folder, weights)
    assert "already complete" in _result(proctool, text).err
    configure(folder, hidden_act="relu")
    assert "model.content" in _result(proctool, text).line


def test_hashes_of_large_files_are_remembered_until_the_file_changes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    monkeypatch.setenv("PROCTOOL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hashes, "REMEMBERED_FROM", 1)
    weights = write_folder(folder)
    rewrite(folder, weights)  # as it is written again below: of the same size
    fresh = open_model(folder).content
    assert not (tmp_path / "cache").exists()  # a file of this very moment may change again within the clock's step
    os.utime(folder / "model.safetensors", (1, 1))
    assert open_model(folder).content == fresh
    counted: list[Any] = []
    real = hashes._hashed
    monkeypatch.setattr(hashes, "_hashed", lambda path: counted.append(path) or real(path))
    assert open_model(folder).content == fresh
    assert not counted
    rewrite(folder, {name: 2 * each for name, each in weights.items()})
    os.utime(folder / "model.safetensors", (1, 1))  # the same size and the same time
    assert open_model(folder).content != fresh
    assert counted
