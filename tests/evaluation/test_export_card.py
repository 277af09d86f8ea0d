"""Exported folders: a card that tells the lineage, and what the Hugging Face libraries do with the folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

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
    _, front, body = written.split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert metadata["library_name"] == "transformers"
    assert "procedural-pretraining" in metadata["tags"]
    metrics = metadata["model-index"][0]["results"][0]["metrics"]
    assert {each["type"]: each["value"] for each in metrics}["loss"] == found.metadata["metrics"]["loss"]
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
