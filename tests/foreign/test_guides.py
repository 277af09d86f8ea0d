"""Every block of the guides runs as printed, at sizes for a test, on the rebuilt classes."""

from __future__ import annotations

import json
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from proctool.errors import Notice
from proctool.models.saved import open_model, save_model
from tests.conftest import Said
from tests.foreign import litgpt, nanogpt, torchtitan
from tests.foreign.test_whole import source

DOCS = Path(__file__).parents[2] / "docs"
SMALLER = {
    '"n_layer": 6, "n_head": 6, "n_embd": 384': '"n_layer": 2, "n_head": 2, "n_embd": 16',
    "--task set": "--task set:inputs=4,symbols=9",
    "--steps 2500": "--steps 2 --batch-size 4 --eval-samples 8",
    "12x12x768": "2x2x16",
    "n_layer=12": "n_layer=2",
    "n_head=12": "n_head=2",
    "n_embd=768": "n_embd=16",
    "intermediate_size=3072": "intermediate_size=64",
    "vocab_size=32000": "vocab_size=40",
    "vocab_size=50304": "vocab_size=64",
}


def blocks(page: str) -> list[tuple[str, str]]:
    """The language and text of each fenced block."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def run(
    page: str, proctool: Callable[..., Said], names: dict[str, Any], smaller: Mapping[str, str] = SMALLER
) -> dict[str, Any]:
    """Run the blocks in order. A name that only a reader's own code has is made when a block first uses it.

    A recipe is written to the file that its name says.
    """
    for language, text in blocks(page):
        for printed, small in smaller.items():
            text = text.replace(printed, small)
        if language == "yaml":
            Path(f"{yaml.safe_load(text)['name']}.yaml").write_text(text)
            continue
        if language == "sh":
            for line in text.splitlines():
                said = proctool(*shlex.split(line)[1:])
                assert said.code == 0, f"{line}\n{said.err}"
            continue
        if "titan" in text and "titan" not in names:
            sizes = json.loads(Path("warm-titan/model_config.json").read_text())
            names["titan"] = torchtitan.Llama(torchtitan.Sizes(**sizes), "split")
        exec(compile(text, page, "exec"), names)
    return names


def test_nanogpt(proctool: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "model", nanogpt)
    names = run("guides/nanogpt.md", proctool, {})
    given = open_model(Path("warm.safetensors")).weights()
    model = names["model"]
    assert torch.equal(model.transformer.wte.weight, given["transformer.wte.weight"])
    assert torch.equal(model.transformer.h[1].mlp.c_fc.weight, given["transformer.h.1.mlp.c_fc.weight"].T)


def test_torchtitan_and_litgpt(proctool: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "litgpt", litgpt)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=Notice)
        names = run("guides/torchtitan-litgpt.md", proctool, {})
    model, titan = names["model"], names["titan"]
    given = open_model(Path("warm.safetensors")).weights()
    assert torch.equal(model.transformer.wte.weight, given["model.embed_tokens.weight"])
    written = load_file("warm-titan/model.safetensors")
    assert all(torch.equal(value, written[name]) for name, value in titan.state_dict().items())


def test_a_class_of_your_own(proctool: Callable[..., Said], tmp_path: Path) -> None:
    from torch import nn

    class Mine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = nanogpt.GPTConfig(n_head=4)
            self.blocks = nn.ModuleList()
            for _ in range(2):
                block = nn.Module()
                block.attention = nn.ModuleDict({"qkv": nn.Linear(32, 96, False), "out": nn.Linear(32, 32, False)})
                block.mlp = nn.ModuleDict({"gate_up": nn.Linear(32, 80, False), "down": nn.Linear(40, 32, False)})
                block.norm_a = nn.ParameterDict({"gain": torch.ones(32)})
                self.blocks.append(block)
            self.embed, self.head = nn.Embedding(23, 32), nn.Linear(32, 23, bias=False)

    donor, model = source("llama", num_key_value_heads=4), Mine()
    save_model(tmp_path / "llama.safetensors", donor, {})
    found = [text for language, text in blocks("transplant.md") if language == "python" and "ModelMapping(" in text]
    assert len(found) == 1
    exec(compile(f"import proctool\n{found[0]}", "transplant.md", "exec"), {"model": model})
    assert torch.equal(model.blocks[1].mlp["down"].weight, donor.model.layers[1].mlp.down_proj.weight)
    assert torch.equal(model.blocks[0].attention["qkv"].weight[64:], donor.model.layers[0].self_attn.v_proj.weight)
