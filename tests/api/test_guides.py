"""Every block of the guides for people who train with proctool or HF Trainer runs as printed, at sizes for a test."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from tests.conftest import Said
from tests.foreign.test_guides import DOCS, blocks, run

TRAINER = {
    '"hidden_size": 768': '"hidden_size": 16',
    '"intermediate_size": 2048': '"intermediate_size": 32',
    '"num_hidden_layers": 12': '"num_hidden_layers": 2',
    '"num_attention_heads": 12': '"num_attention_heads": 2',
    "steps, batch = 2500, 64": "steps, batch = 4, 8",
    "vocab_size=32000": "vocab_size=40",
    'task("set:inputs=24")': 'task("set:inputs=4,symbols=9")',
    "every=250, samples=256": "every=2, samples=8",
}
DATA = {
    "4x4x64": "2x2x16",
    "--context 128": "--context 32",
    "--steps 400": "--steps 2 --batch-size 4 --eval-samples 8",
    "set:inputs=24": "set:inputs=4,symbols=9",
    "--steps 600": "--steps 2 --batch-size 4 --eval-samples 8",
}
WHICH = {"proctool run mine.yaml\n": "proctool run mine.yaml --dry-run\n"}


def test_hf_trainer(proctool: Callable[..., Said]) -> None:
    names = run("guides/hf-trainer.md", proctool, {}, TRAINER)
    warm, model, control = (dict(names[each].named_parameters()) for each in ("warm", "model", "control"))
    query = "model.layers.1.self_attn.q_proj.weight"
    assert torch.equal(model[query], warm[query])
    assert not torch.equal(control[query], warm[query])


@pytest.mark.slow
def test_your_own_data(proctool: Callable[..., Said]) -> None:
    run("guides/your-own-data.md", proctool, {}, DATA)
    data = ModelCard.load("my-model/README.md").data
    assert (data.license, data.language) == ("apache-2.0", "en")


@pytest.mark.slow
def test_which_task(proctool: Callable[..., Said], in_process: None) -> None:
    making = next(text for language, text in blocks("guides/your-own-data.md") if language == "python")
    exec(compile(making, "your-own-data.md", "exec"), {})
    run("guides/which-task.md", proctool, {}, WHICH)
    assert list(Path("runs/mine-smoke").glob("report.html"))


def test_the_figures_of_which_task_are_those_of_the_results() -> None:
    results = " ".join((DOCS / "results.md").read_text(encoding="utf-8").split())
    for figure in ("0.032 nats", "0.019", "144 %", "3 of 12", "**47 %**", "**46 %**", "**29 %**", "**33 %**", "87.3 %"):
        assert figure in results
    page = (DOCS / "guides" / "which-task.md").read_text(encoding="utf-8")
    known = {*re.findall(r"\d+ %", results), "87 %", "9 %", "11 %"}  # rounded: 87.3, 9.3, 11.4 %
    assert set(re.findall(r"\d+ %", page)) <= known
