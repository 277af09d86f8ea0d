"""Standard output and error that are closed, full, read no further, or in an encoding without a symbol."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROCTOOL = f"{sys.executable} -m proctool"
SHOWN = ["--help", "generate dyck --help", "generate dyck --show 2 --length 16", "run --schema", "inspect made"]
FULL = Path("/dev/full")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small artifact."""
    found = tmp_path_factory.mktemp("streams")
    assert shell("generate dyck --length 16 --samples 10 -o made", found).returncode == 0
    return found


def shell(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """What bash makes of `proctool COMMAND`; the exit codes of a pipe's parts are the last line it prints."""
    script = f"{PROCTOOL} {command}"
    return subprocess.run(
        ["bash", "-c", script], cwd=folder, capture_output=True, timeout=100, env={**os.environ, **environment}
    )


@pytest.mark.parametrize(
    "encoding", ["ascii", *(pytest.param(each, marks=pytest.mark.slow) for each in ("latin-1", "cp437"))]
)
@pytest.mark.parametrize("command", SHOWN)
def test_any_encoding_shows_every_symbol(command: str, encoding: str, folder: Path) -> None:
    said = shell(command, folder, PYTHONIOENCODING=encoding)
    assert (said.returncode, said.stderr) == (0, b"")
    text = said.stdout.decode(encoding)
    assert text.strip()
    assert "\\u" not in text
    assert "?" not in text or "help" in command or "schema" in command


def test_a_plain_locale_is_enough(folder: Path) -> None:
    for command in SHOWN[:3]:
        said = shell(command, folder, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
        assert (said.returncode, said.stderr) == (0, b"")
        assert said.stdout.isascii()


def test_a_name_keeps_its_bytes_and_errors_stay_one_line(folder: Path) -> None:
    said = shell("inspect 'n\N{EN DASH}\N{SNOWMAN}'", folder, PYTHONIOENCODING="ascii")
    assert said.returncode == 1
    assert said.stderr.startswith(b"proctool: n-\\u2603: ")
    assert len(said.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["--help", "inspect made", "generate dyck --length 16 --show 100000"])
def test_a_reader_that_has_gone_ends_a_command_well(command: str, folder: Path) -> None:
    said = shell(f"{command} | head -n 1 >/dev/null; echo ${{PIPESTATUS[0]}}", folder)
    assert (said.stdout, said.stderr) == (b"0\n", b"")


@pytest.mark.parametrize("command", ["--help", "--version", "inspect made", "generate dyck --show 2 --length 16"])
@pytest.mark.parametrize("where", [">&-", ">/dev/full"])
def test_results_that_cannot_be_written_are_one_line(where: str, command: str, folder: Path) -> None:
    if "full" in where and not FULL.exists():
        pytest.skip("no /dev/full here")
    said = shell(f"{command} {where}", folder)
    reason = b"closed; send it to" if where == ">&-" else b"no room left to write"
    assert said.returncode == 1
    assert said.stderr.startswith(b"proctool: standard output: " + reason)
    assert len(said.stderr.splitlines()) == 1


@pytest.mark.parametrize("where", ["2>&-", "2>/dev/full", "2>&1 >/dev/null | true"])
def test_messages_that_nobody_reads_stop_nothing(where: str, folder: Path) -> None:
    said = shell(f"generate dyck --length 16 --samples 20 -o unheard {where}; echo ${{PIPESTATUS[0]}}", folder)
    assert (said.stdout, said.stderr) == (b"0\n", b"")
    assert (folder / "unheard").is_file()
    (folder / "unheard").unlink()


def test_files_do_not_take_the_place_of_closed_streams(folder: Path) -> None:
    """A file opened as descriptor 1 or 2 would receive what libraries print."""
    for _ in range(2):
        said = shell("generate dyck --length 16 --samples 10 -o closed <&- >&- 2>&-", folder)
        assert (said.returncode, said.stdout, said.stderr) == (0, b"", b"")
        assert (folder / "closed").read_bytes() == (folder / "made").read_bytes()


def test_an_error_of_a_pipe_within_is_no_success(folder: Path) -> None:
    code = "from proctool import errors\nwith errors.reported():\n    raise BrokenPipeError(32, 'Broken pipe')\n"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert (said.returncode, said.stderr) == (1, b"proctool: Broken pipe\n")
