"""Small models, corpora and a command-line runner shared by the tests. Nothing here reaches the network."""

from __future__ import annotations

import os
import signal

# Before torch is imported anywhere: tiny models are fastest, and repeatable, on one thread.
os.environ["OMP_NUM_THREADS"] = "1"  # whatever the shell says
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

# Under nohup and in the background of a script, signals are ignored, here and in all that tests start: proctool would
# obey that, and wait for ever for a signal that a test sends.
for _number in ("SIGHUP", "SIGTERM", "SIGUSR1", "SIGUSR2"):
    signal.signal(getattr(signal, _number), signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass
class Said:
    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The single line of an error."""
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        return lines[0]


@pytest.fixture
def proctool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """Run the command line in this process, in an empty folder, with a token cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PROCTOOL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("COLUMNS", raising=False)  # it decides the width of tables

    def run(*arguments: object) -> Said:
        from proctool.cli import main

        out, err = io.StringIO(), io.StringIO()
        monkeypatch.setattr("sys.argv", ["proctool", *map(str, arguments)])
        code = 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main.main()
            except SystemExit as left:
                code = int(left.code or 0)
        return Said(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages run in this process: to start one for each takes seconds."""
    from proctool.cli import run

    monkeypatch.setattr(run, "execute_stages", lambda planned, *_: run._try_out(planned))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A folder of small, regular text files, large enough for a few hundred rows of 16 tokens."""
    folder = tmp_path / "text"
    folder.mkdir()
    for number in range(60):
        body = "".join(f"line {(number * line) % 7} of {number}\n" for line in range(12))
        (folder / f"{number:02}.txt").write_text(body)
    return folder
