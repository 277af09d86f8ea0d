"""`~` means a home folder in every path that a user gives, and never ends in a traceback."""

from __future__ import annotations

import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from proctool import config
from proctool.corpora import open_corpus
from proctool.corpora.subwords import load_tokenizer
from proctool.errors import CorpusError, OptionError
from proctool.models.shapes import parse_model
from proctool.paths import is_path, user_path

SMALL = (
    "--model", "2x2x16", "--context", "16", "--steps", "2", "--batch-size", "2", "--eval-every", "2",
    "--eval-samples", "4",
)  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


def test_readers_of_paths_expand_them(home: Path) -> None:
    (home / "a.txt").write_text("text")
    (home / "config.json").write_text("{}")
    assert user_path("~/a.txt") == home / "a.txt"
    assert open_corpus("~/*.txt").stored_bytes == 4
    assert parse_model("~") == home / "config.json"
    assert config.convert("~/x", Path, "here") == home / "x"
    with pytest.raises(CorpusError, match=r"^~/none: no such file or folder$"):
        load_tokenizer("~/none")


def test_every_form_of_a_path_on_the_command_line(proctool: Callable[..., Any], home: Path, text: Path) -> None:
    text.rename(home / "text")
    (home / "options.yaml").write_text("output: ~/warm.safetensors\nrun_dir: ~/runs/warm\n")
    assert proctool("warmup", "--config", "~/options.yaml", "--task", "set:inputs=4", *SMALL).code == 0
    assert (home / "runs" / "warm").is_dir()
    said = proctool("pretrain", "--set", "corpus=~/text", "--init=~/warm.safetensors", *SMALL, "--dry-run", "--json")
    assert '"carried"' in said.out, said.err
    assert proctool("inspect", "~/warm.safetensors").code == 0
    (home / "r.yaml").write_text("name: x\nmodel: 2x2x16\ncorpus: ~/text\narms: {cold: {}}\n")
    said = proctool("run", "~/r.yaml", "--runs", "~/all", "--emit", "slurm")
    assert said.code == 0, said.err
    assert (home / "all" / "x" / "slurm" / "submit.sh").exists()
    assert not list(Path().glob("~*"))


@pytest.mark.parametrize(
    "words",
    [
        ("inspect", "~nobody-here/x"),
        ("run", "~nobody-here/r.yaml"),
        ("run", "r.yaml", "--runs", "~nobody-here"),
        ("pretrain", "--corpus", "~nobody-here", "--dry-run"),
        ("pretrain", "--set", "corpus=~nobody-here/x", "--dry-run"),
        ("pretrain", "--tokenizer", "~nobody-here", "--dry-run"),
        ("pretrain", "--init", "~nobody-here", "--dry-run"),
        ("pretrain", "--model", "~nobody-here", "--dry-run"),
        ("pretrain", "-o", "~nobody-here", "--dry-run"),
        ("transplant", "--mlp", "~nobody-here"),
        ("compare", "~nobody-here"),
        ("report", "~nobody-here"),
        ("corpus", "build", "--corpus", "mathematics:~nobody-here"),
        ("eval", "haystack", "--init", "~nobody-here"),
    ],
)
def test_a_user_that_there_is_not(proctool: Callable[..., Any], words: tuple[str, ...]) -> None:
    said = proctool(*words)
    assert said.code == 1
    assert 'there is no user "nobody-here"' in said.line


def test_nobody_has_a_home(
    proctool: Callable[..., Any], text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_: object) -> NoReturn:
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", missing)
    said = proctool("pretrain", "--corpus", "~/text", "--dry-run")
    assert "has no home folder; set HOME" in said.line
    assert proctool("pretrain", "--corpus", "text", *SMALL, "--dry-run").code == 0
    monkeypatch.delenv("PROCTOOL_CACHE")
    said = proctool("pretrain", "--corpus", "text", *SMALL, "--dry-run")
    assert said.code == 1
    assert "PROCTOOL_CACHE" in said.line


@pytest.mark.parametrize(
    "written", ["/none", "./none", "../none", "~/none", "there/none", "a/b/c", "none/", ".", "there"]
)
def test_what_looks_like_a_path_is_never_asked_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    assert is_path(written)
    with pytest.raises(CorpusError, match=r"no such file or folder|no tokenizer in this folder"):
        load_tokenizer(written)


@pytest.mark.parametrize("written", ["gpt2", "owner/name", "codeparrot/codeparrot"])
def test_names_of_the_hub_are_no_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert not is_path(written)


def test_a_name_that_begins_with_a_tilde_is_said_how_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~x").mkdir()
    with pytest.raises(OptionError, match=r"write \./~x"):
        user_path("~x")
    assert user_path("./~x").is_dir()
    assert user_path(user_path("./~x")).is_dir()
