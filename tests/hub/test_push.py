"""`export --push-to-hub` against a stub of the hub's API: huggingface_hub's own requests, regular files, one commit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Said
from tests.evaluation.foreign import save_llama
from tests.hub.stub import Repository, Stub, go_offline

PUSH = ("export", "source", "out", "--push-to-hub", "me/model")


@pytest.fixture(autouse=True)
def source(tmp_path: Path) -> Path:
    return save_llama(tmp_path / "source")


def test_a_push_makes_the_repository_and_sends_every_file(hub: Stub, proctool: Callable[..., Said]) -> None:
    said = proctool(*PUSH, "--private")
    assert said.code == 0, said.err
    assert f"uploaded: {hub.url}/me/model" in said.err
    made = hub.repositories["me/model"]
    assert made.private
    assert made.files == {path.name: path.read_bytes() for path in Path("out").iterdir()}
    assert sum("/commit/" in each for each in hub.asked) == 1


def test_a_push_replaces_the_weights_and_leaves_other_files(hub: Stub, proctool: Callable[..., Said]) -> None:
    kept = {"notes.md": b"mine", "lora/adapter.safetensors": b"mine"}
    old = {"model-00001-of-00002.safetensors": b"old", "model.safetensors.index.json": b"{}"}
    hub.repositories["me/model"] = Repository({**kept, **old})
    assert proctool(*PUSH).code == 0
    written = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    assert hub.repositories["me/model"].files == {**kept, **written}


def test_a_pushed_model_comes_back_by_its_id(hub: Stub, proctool: Callable[..., Said]) -> None:
    assert proctool(*PUSH).code == 0
    said = proctool("export", "me/model", "back")
    assert said.code == 0, said.err
    assert Path("back/model.safetensors").read_bytes() == Path("out/model.safetensors").read_bytes()


FAILURES: dict[str, tuple[Repository | None, bool, tuple[str, ...], str]] = {
    # name: (the repository that is there, whether the token may make one, more options, the line)
    "a dataset": (Repository(kind="dataset"), True, (), "the name is taken by a dataset; choose another name"),
    "a space": (Repository(kind="space"), True, (), "the name is taken by a space; choose another name"),
    "no rights to make": (None, False, (), "the hub refuses this token"),
    "no rights to write": (Repository(writable=False), True, (), "the hub refuses this token"),
    "is public": (
        Repository(),
        True,
        ("--private",),
        "exists and is public, but --private is only for new repositories",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_push_that_fails_is_one_line_and_keeps_the_folder(
    hub: Stub, proctool: Callable[..., Said], name: str
) -> None:
    there, hub.may_create, more, line = FAILURES[name]
    if there is not None:
        hub.repositories["me/model"] = there
    said = proctool(*PUSH, *more)
    assert said.code == 1
    last = said.err.splitlines()[-1]
    assert line in last
    assert "nothing was uploaded. out is complete; upload it with `hf upload me/model out`" in last
    assert Path("out/model.safetensors").exists()
    assert there is None or there.files == {}


def test_a_token_may_write_where_it_may_not_create(hub: Stub, proctool: Callable[..., Said]) -> None:
    hub.may_create, hub.repositories["me/model"] = False, Repository()
    assert proctool(*PUSH).code == 0
    assert "model.safetensors" in hub.repositories["me/model"].files


def test_an_upload_that_breaks_says_that_the_new_repository_is_empty(
    hub: Stub, proctool: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def broken(*_: object, **__: object) -> None:
        raise ConnectionError("connection reset")

    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", broken)
    last = proctool(*PUSH).err.splitlines()[-1]
    assert "the hub cannot be reached (connection reset); the new repository is empty" in last


@pytest.mark.parametrize(
    ("change", "repository", "line"),
    [
        ("offline", "me/model", "offline mode is on; unset HF_HUB_OFFLINE"),
        ("no token", "me/model", "no token; run `hf auth login`, or set HF_TOKEN"),
        ("", "model", "write OWNER/NAME"),
        ("", "a/b/c", "write OWNER/NAME"),
    ],
)
def test_what_is_sure_to_fail_is_refused_before_the_export(
    hub: Stub, proctool: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, change: str, repository: str, line: str
) -> None:
    if change == "offline":
        go_offline(monkeypatch)
    if change == "no token":
        monkeypatch.delenv("HF_TOKEN")
    assert line in proctool(*PUSH[:-1], repository).line
    assert not Path("out").exists()
    assert hub.asked == []


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--private",), "--private works only with --push-to-hub"),
        (("--format", "litgpt", "--license", "mit"), "--license works only with --format hf"),
        (("--format", "litgpt", "--push-to-hub", "a/b"), "--push-to-hub works only with --format hf"),
        (("--license", "my own"), "give an identifier of the hub"),
        (("--language", "English!"), "give a language code, such as en"),
    ],
)
def test_options_that_do_not_go_together(proctool: Callable[..., Said], options: tuple[str, ...], line: str) -> None:
    assert line in proctool("export", "source", "out", *options).line
    assert not Path("out").exists()
