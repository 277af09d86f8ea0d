"""Without a home folder, or with caches that cannot be written, commands work or say in one line what to set."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from proctool import cache
from proctool.cache import cache_folder
from proctool.errors import OptionError

BUILD = ("corpus", "build", "--corpus", "text", "--tokenizer", "bytes", "--context", "16")
NO_HOME = {"HOME": "/proc/nowhere"}  # where not even root can make a folder


def proctool(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in (*cache._VARIABLES, "HOME")}
    environment = kept | {"TMPDIR": str(folder)} | variables
    command = [sys.executable, "-m", "proctool", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder where nothing can be made")
def test_without_a_home_caches_are_temporary_and_that_is_said(text: Path, tmp_path: Path) -> None:
    said = proctool(tmp_path, *BUILD, **NO_HOME)
    assert said.returncode == 0
    first, *_ = said.stderr.splitlines()
    place = tmp_path / f"proctool-{os.getuid()}"
    variables = "PROCTOOL_CACHE, HF_HOME, MPLCONFIGDIR"
    assert first == (f"proctool: ~/.cache is not writable; using {place} for caches (set {variables} to change this)")
    assert list((place / "proctool" / "tokens").iterdir())
    assert place.stat().st_mode & 0o077 == 0
    assert not (tmp_path / "~").exists()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder where nothing can be made")
def test_a_cache_that_cannot_be_made_is_one_line(text: Path, tmp_path: Path) -> None:
    said = proctool(tmp_path, *BUILD, PROCTOOL_CACHE="/proc/nowhere/cache", HOME=str(tmp_path))
    assert said.returncode == 1
    (line,) = said.stderr.splitlines()
    assert line.startswith("proctool: /proc/nowhere/cache/tokens/")
    assert line.endswith("set PROCTOOL_CACHE or --cache-dir to a writable folder")


def test_with_a_home_nothing_is_said(tmp_path: Path) -> None:
    said = proctool(tmp_path, "--version", HOME=str(tmp_path))
    assert (said.returncode, said.stderr) == (0, "")


def test_variables_of_the_user_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in cache._VARIABLES:
        monkeypatch.setenv(name, "mine")
    monkeypatch.setenv("HOME", "/proc/nowhere")
    cache.settle()
    assert {os.environ[name] for name in cache._VARIABLES} == {"mine"}


def test_a_temporary_folder_of_somebody_else_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in cache._VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/proc/nowhere")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    theirs = tmp_path / f"proctool-{os.getuid()}"
    theirs.mkdir()
    theirs.chmod(0o777)
    cache.settle()
    assert not set(cache._VARIABLES) & os.environ.keys()
    assert capsys.readouterr().err == ""


def test_an_unknown_home_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROCTOOL_CACHE", "~nobody-of-that-name/cache")
    with pytest.raises(OptionError, match="there is no user"):
        cache_folder()
