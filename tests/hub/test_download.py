"""Models of the hub by their ids, against a stub of its API: what is downloaded, what is recorded, what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from proctool import artifact
from proctool.hub import ModelId, model_id
from tests.conftest import Said
from tests.evaluation.foreign import save_llama
from tests.hub.stub import Stub, go_offline, point_at

SMALL = ("--context", 16, "--steps", 1, "--batch-size", 2, "--eval-samples", 4)
FOREIGN = ("modeling_llama.py", "pytorch_model.bin", "training_args.bin", "notes.txt", "onnx/model.safetensors")


@pytest.fixture
def llama(hub: Stub, tmp_path: Path) -> Path:
    """A model of the hub, beside files that are never to be read; and the same folder here."""
    folder = save_llama(tmp_path / "source")
    for name in FOREIGN:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"never read")
    hub.add("org/llama", folder)
    return folder


def test_a_model_is_exported_from_its_id_without_code_and_pickles(
    hub: Stub, llama: Path, proctool: Callable[..., Said]
) -> None:
    said = proctool("export", "org/llama", "out")
    assert said.code == 0, said.err
    assert hub.repositories["org/llama"].commit in said.err
    assert not set(hub.sent) & {Path(name).name for name in FOREIGN[:4]}
    assert hub.sent.count("model.safetensors") == 1
    came, left = (load_file(each / "model.safetensors") for each in (llama, Path("out")))
    assert all(torch.equal(came[name], left[name]) for name in came)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (llama / name).read_bytes() == Path("out", name).read_bytes()
    assert ModelCard.load("out/README.md").data.base_model == "org/llama"


def test_lineage_and_card_name_the_commit_and_the_base_model(
    hub: Stub, llama: Path, proctool: Callable[..., Said], text: Path
) -> None:
    commit = hub.repositories["org/llama"].commit
    for command in (
        ("pretrain", "--corpus", text, "--model", "org/llama", "--init", f"org/llama@{commit}", "--tokenizer", llama,
         "--embeddings", "copy", *SMALL, "-o", "m"),
        ("transplant", "--base", "org/llama", "--attention", "m", "-o", "t"),
        ("export", "t", "out"),
    ):  # fmt: skip
        said = proctool(*command)
        assert said.code == 0, said.err
    (parent,) = artifact.read_header(Path("m")).parents
    assert (parent["name"], parent["repository"]) == ("org/llama", {"id": "org/llama", "commit": commit})
    data = ModelCard.load("out/README.md").data
    assert data.base_model == "org/llama"
    assert data.datasets is None
    assert "org/llama" in ModelCard.load("out/README.md").text
    assert str(Path.cwd()) not in Path("out/README.md").read_text()


def test_a_configuration_alone_is_asked_for_by_model(hub: Stub, llama: Path, proctool: Callable[..., Said]) -> None:
    said = proctool("warmup", "--task", "set:inputs=5,symbols=9", "--model", "org/llama", "--steps", 1, "--dry-run")
    assert said.code == 0, said.err
    assert hub.sent == ["config.json"]


def test_the_cache_serves_offline_and_follows_the_hub_online(
    hub: Stub, llama: Path, proctool: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert proctool("export", "org/llama", "one").code == 0
    sent = len(hub.sent)
    go_offline(monkeypatch)
    assert proctool("export", "org/llama", "two").code == 0
    go_offline(monkeypatch, offline=False)
    hub.repositories["org/llama"].files["generation_config.json"] = json.dumps({"max_new_tokens": 7}).encode()
    assert proctool("export", "org/llama", "three").code == 0
    assert hub.sent[sent:] == ["generation_config.json"]
    assert json.loads(Path("three/generation_config.json").read_text())["max_new_tokens"] == 7


def test_a_local_path_wins(hub: Stub, llama: Path, proctool: Callable[..., Said]) -> None:
    save_llama(Path("org/llama"))
    assert proctool("export", "org/llama", "out").code == 0
    assert hub.asked == []
    assert ModelCard.load("out/README.md").data.base_model is None


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ("org/none", "org/none: no such file or folder here, and no such model on the hub"),
        ("org/llama@v2", 'the hub has no revision "v2" of this model'),
        ("org/gated", "the hub refuses access; ask for access"),
        ("org/empty", "org/empty: has no config.json on the hub"),
        ("org/pickled", "has no model.safetensors; proctool reads only safetensors"),
    ],
)
@pytest.mark.parametrize("command", ["export", "init"])
def test_what_the_hub_refuses_is_one_line(
    hub: Stub, llama: Path, proctool: Callable[..., Said], text: Path, command: str, asked: str, line: str
) -> None:
    hub.add("org/gated", llama).readable = False
    hub.add("org/empty", text)
    hub.add("org/pickled", llama).files.pop("model.safetensors")
    train = ("pretrain", "--corpus", text, "--model", "1x2x16", *SMALL, "-o", "m", "--init", asked)
    said = proctool(*(train if command == "init" else ("export", asked, "out")))
    assert said.code == 1
    assert line in said.err.splitlines()[-1]
    assert not Path("out").exists()
    assert not Path("m").exists()


def test_offline_without_the_model_is_one_line(
    hub: Stub, llama: Path, proctool: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    go_offline(monkeypatch)
    assert "offline mode is on; unset HF_HUB_OFFLINE" in proctool("export", "org/llama", "out").line
    # A configuration alone is not the whole model.
    go_offline(monkeypatch, offline=False)
    shape = ("warmup", "--task", "set:inputs=5,symbols=9", "--model", "org/llama", "--steps", 1, "--dry-run")
    assert proctool(*shape).code == 0
    go_offline(monkeypatch)
    assert proctool(*shape).code == 0
    assert "does not have all of its files" in proctool("export", "org/llama", "out").line


def test_no_answer_is_one_line(proctool: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at(monkeypatch, "http://127.0.0.1:9", tmp_path / "hub-cache")
    assert (
        "org/llama: no such file or folder here, and the hub cannot be reached"
        in proctool("export", "org/llama", "out").line
    )


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("org/name", ModelId("org/name")),
        ("org/name@v1.0", ModelId("org/name", "v1.0")),
        ("org/name@refs/pr/1", ModelId("org/name", "refs/pr/1")),
        *dict.fromkeys(
            (
                "name",
                "./org/name",
                "/org/name",
                "a/b/c",
                "runs/m.safetensors",
                "~/m",
                "org/",
                "here/name",
                "here/name@v1",
                "a b/c",
            )
        ).items(),
    ],
)
def test_what_is_an_id(written: str, found: ModelId | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("here").mkdir()
    assert model_id(written) == found


@pytest.mark.slow
def test_the_hubs_own_variables_are_obeyed(hub: Stub, llama: Path, tmp_path: Path) -> None:
    surroundings = {
        **os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }  # fmt: skip
    command = [sys.executable, "-m", "proctool", "export", "org/llama", "out"]
    ran = subprocess.run(command, cwd=tmp_path, env=surroundings, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "home" / "hub" / "models--org--llama").is_dir()
    again = subprocess.run(
        [*command[:-1], "two"], cwd=tmp_path, env={**surroundings, "HF_HUB_OFFLINE": "1"}, capture_output=True
    )
    assert again.returncode == 0, again.stderr
