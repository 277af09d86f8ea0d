"""`proctool sample`: the model's own next tokens, repeatable, within the context."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from proctool.evaluation.eval_model import open_subject
from tests.conftest import Said
from tests.evaluation.speakers import CONTEXT, save_speaker

Run = Callable[..., Said]


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(save_speaker(tmp_path / "model.safetensors", seed=1))


def test_at_temperature_0_each_token_is_the_likeliest(model: str, proctool: Run) -> None:
    said = proctool("sample", model, "--prompt", "the cat", "--tokens", "6", "--temperature", "0", "--json")
    assert said.code == 0, said.err
    subject = open_subject(Path(model), None)
    network, ids = subject.saved.model().eval(), [*subject.beginning.first, *b"the cat"]
    for _ in range(6):
        with torch.no_grad():
            ids.append(int(network(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == subject.tokenizer.eos_id:
            break
    [made] = json.loads(said.out)["samples"]
    assert made["text"] == subject.tokenizer.decode([each for each in ids[8:] if each != subject.tokenizer.eos_id])
    assert made["tokens"] + made["ended"] == len(ids) - 8


def test_a_seed_repeats_and_another_does_not(model: str, proctool: Run) -> None:
    def texts(*options: str) -> list[str]:
        said = proctool("sample", model, "--tokens", "20", "--samples", "3", "--json", *options)
        return [made["text"] for made in json.loads(said.out)["samples"]]

    first = texts("--seed", "1", "--temperature", "5")
    assert first == texts("--seed", "1", "--temperature", "5") != texts("--seed", "2", "--temperature", "5")
    assert len(set(first)) == 3
    assert texts("--seed", "1", "--top-k", "1") == texts("--seed", "2", "--temperature", "0")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--tokens", str(CONTEXT)), f"use at most {CONTEXT - 1}"),
        (("--tokens", "0"), "tokens = 0"),
        (("--temperature", "-1"), "temperature"),
        (("--top-p", "0"), "top_p"),
        (("--samples", "0"), "samples"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(model: str, options: tuple[str, str], words: str, proctool: Run) -> None:
    said = proctool("sample", model, *options)
    assert (said.code, len(said.err.splitlines())) == (1, 1)
    assert words in said.err


def test_a_model_without_a_tokenizer_says_what_to_do(proctool: Run, tmp_path: Path) -> None:
    said = proctool("sample", str(save_speaker(tmp_path / "bare.safetensors", metadata={})))
    assert said.code == 1
    assert "--tokenizer" in said.err
