"""Files made to harm (tests/fuzz/hostile): each refused in one line that names it, nothing executed, nothing left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import hostile

_ROOT = Path(__file__).parents[2]


def _is_slow(name: str) -> bool:
    """Files of many megabytes, and variants of one configuration in another wrapping."""
    return "megabytes" in name or "million" in name or name.endswith(("_in_a_folder", "_as_a_shape"))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if _is_slow(name) else []) for name in hostile.CASES]
)
def test_a_hostile_file_is_refused_in_one_line(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PROCTOOL_CACHE", str(tmp_path))
    wrong, _, _, line = hostile.judged(name)
    assert not wrong, line


@pytest.mark.slow
def test_refusing_allocates_next_to_nothing() -> None:
    """All of them in a process whose address space may hardly grow."""
    found = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.hostile"],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert found.returncode == 0, "\n".join(line for line in found.stdout.splitlines() if not line.startswith("ok"))
    assert ", 0 not refused" in found.stdout


def test_every_good_counterpart_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes a case hostile is its one fault: the same file without it is read."""
    monkeypatch.setenv("PROCTOOL_CACHE", str(tmp_path / "cache"))
    model, folder, data = tmp_path / "m", tmp_path / "f", tmp_path / "d"
    for each in (model, folder, data):
        each.mkdir()
    with hostile.within(tmp_path):
        command = hostile.model_file(model, hostile.TINY, hostile.tiny_weights())
        assert hostile.outcome(command)[0] == 0
        command = hostile.model_folder(folder)
        assert hostile.outcome([*command, "--dry-run"])[0] == 0
        command = hostile.data_file(data, ("U16", bytes(10)), ("BOOL", b"\1" * 5))
        assert hostile.outcome([*command, "--ramp-steps", "0", "--dry-run"])[0] == 0
