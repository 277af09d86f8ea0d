"""Exported folders: a card that tells the lineage, and what the Hugging Face libraries do with the folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from proctool.export.folder import export
from proctool.models.build import build_model, model_config
from proctool.models.saved import open_model, save_model
from tests.conftest import Said

SMALL = ("--model", "2x2x16", "--steps", "4", "--batch-size", "4", "--eval-every", "2", "--eval-samples", "8")


@pytest.fixture
def exported(proctool: Callable[..., Said], text: Path) -> Path:
    """A model pretrained from a model warmed up on a file, exported."""
    for command in (
        ("generate", "set", "--inputs", 5, "--symbols", 9, "--samples", 64, "-o", "set.safetensors"),
        ("warmup", "--data", "set.safetensors", *SMALL, "-o", "warm.safetensors"),
        ("pretrain", "--corpus", text, "--init", "warm.safetensors", "--context", 16, *SMALL, "-o", "m.safetensors"),
        ("export", "m.safetensors", "hf"),
    ):
        said = proctool(*command)
        assert said.code == 0, said.err
    return Path("hf").absolute()


def test_the_card_tells_what_the_model_came_from_and_how_it_did(exported: Path) -> None:
    from proctool import artifact

    found = artifact.read_header(Path("m.safetensors"))
    written = (exported / "README.md").read_text()
    read = ModelCard.load(exported / "README.md")
    data, body = read.data, read.text
    assert data.library_name == "transformers"
    assert {"proctool", "procedural-pretraining"} <= set(data.tags)
    assert (data.license, data.language, data.base_model, data.datasets) == (None, None, None, None)
    assert data.model_name == "hf"
    results = {each.metric_type: each for each in data.eval_results}
    assert results["loss"].metric_value == found.metadata["metrics"]["loss"]
    assert set(results) == {"loss", "perplexity", "accuracy"}
    assert {(each.dataset_type, each.dataset_name, each.dataset_split) for each in results.values()} == {
        ("local", "text", "validation")
    }
    steps = [line for line in body.splitlines() if line[:2] in ("1.", "2.", "3.")]
    assert [("Generated `set:" in steps[0]), ("Warmed up on `set:" in steps[1]), ("corpus" in steps[2])] == [True] * 3
    assert "| attention | carried |" in body
    lineage = body[body.index("## Lineage") :]
    for name in ("m.safetensors", "warm.safetensors", "set.safetensors"):
        assert name in lineage
        assert artifact.read_header(Path(name)).content[:12] in lineage
    assert str(Path.cwd()) not in written  # nothing of this machine


def test_the_hugging_face_libraries_take_the_folder(exported: Path) -> None:
    from transformers import GenerationConfig, pipeline

    settings = GenerationConfig.from_pretrained(exported)
    assert (settings.bos_token_id, settings.eos_token_id, settings.pad_token_id) == (256, 256, 256)
    write = pipeline("text-generation", model=str(exported), device="cpu")
    said = write("line 3", max_new_tokens=4)[0]["generated_text"]
    assert said.startswith("line 3")
    assert write("line 3", max_new_tokens=4)[0]["generated_text"] == said  # greedy


def test_a_model_of_procedural_data_says_that_it_reads_no_text(proctool: Callable[..., Said]) -> None:
    proctool("warmup", "--task", "set:inputs=5,symbols=9", *SMALL, "-o", "warm.safetensors")
    assert proctool("export", "warm.safetensors", "hf").code == 0
    written = Path("hf/README.md").read_text()
    assert "not text" in written
    assert "AutoTokenizer" not in written
    assert "Warmed up on `set:" in written


def test_what_the_user_states_is_in_the_card(proctool: Callable[..., Said]) -> None:
    proctool("warmup", "--task", "set:inputs=5,symbols=9", *SMALL, "-o", "warm.safetensors")
    stated = ("--license", "apache-2.0", "--language", "en", "--language", "de")
    assert proctool("export", "warm.safetensors", "hf", *stated).code == 0
    data = ModelCard.load("hf/README.md").data
    assert (data.license, data.language) == ("apache-2.0", ["en", "de"])
    assert {each.dataset_type for each in data.eval_results} == {"procedural"}
    assert data.eval_results[0].dataset_name == "set:inputs=5,symbols=9"


C4, WIKI = "allenai/c4", "Salesforce/wikitext"
TRAINED: dict[str, tuple[dict[str, Any], list[dict[str, Any]], Any, Any, str]] = {
    # what: (about of the model, its parents, datasets, language, dataset of its results)
    "c4": ({"corpus": "c4"}, [], C4, "en", C4),
    "local files of its schema": ({"corpus": "c4:files"}, [], None, None, "local"),
    "recorded": ({"corpus": "org/data", "datasets": ["org/data"]}, [], "org/data", None, "org/data"),
    "hub:": ({"corpus": "hub:org/data:small"}, [], "org/data", None, "org/data"),
    "a folder": ({"corpus": "org/data"}, [], None, None, "local"),
    "an ancestor": ({"corpus": "text"}, [{"about": {"corpus": "wikitext"}}], WIKI, "en", "local"),
    "another for validation": ({"corpus": "c4", "training": {"validation": "text"}}, [], C4, "en", "local"),
}


@pytest.mark.parametrize("what", TRAINED)
def test_datasets_are_those_of_the_hub_alone(tmp_path: Path, what: str) -> None:
    about, parents, datasets, language, result = TRAINED[what]
    model = build_model(model_config("1x2x16", vocab_size=257, context=16), seed=0)
    parents = [{"name": "old", "kind": "model", "content": None, "parents": [], **each} for each in parents]
    save_model(tmp_path / "m", model, {**about, "tokenizer": "bytes", "metrics": {"loss": 2.0}}, parents)
    export(open_model(tmp_path / "m"), tmp_path / "out")
    data = ModelCard.load(tmp_path / "out" / "README.md").data
    assert (data.datasets, data.language) == ([datasets] if datasets else None, language)
    assert {each.dataset_type for each in data.eval_results} == {result}
