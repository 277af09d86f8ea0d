"""A package whose tasks cannot be loaded is named in one line, and costs nobody else's tasks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.procedural.test_contract import THIRD_PARTY

BROKEN = {
    "fails to import": ("import nowhere_to_be_found\n", "No module named 'nowhere_to_be_found'"),
    "raises": ("raise RuntimeError('not today\\nnor tomorrow')\n", "RuntimeError: not today nor tomorrow"),
    "is no Python": ("def (\n", "SyntaxError"),
    "leaves": ("import sys\nsys.exit('bye')\n", "SystemExit: bye"),
    "registers nothing": ("x = 1\n", "it registers no task"),
    "takes a name": (THIRD_PARTY.replace('"alternating"', '"set"'), "task 'set' is already registered as proctool."),
    "takes a name with its class's": (
        THIRD_PARTY.replace('"alternating"', '"set"').replace("class Alternating", "class Set"),
        "already registered as",
    ),
    "registers no task class": (
        "from proctool.procedural.registry import task\n@task('odd')\nclass Odd: pass\n", "is not a subclass of Task",
    ),
    "is not frozen": (THIRD_PARTY.replace("(frozen=True)", ""), "is not a frozen dataclass"),
    "has no size": (THIRD_PARTY.replace('size_option = "length"', ""), "must define size_option"),
    "has no default": (THIRD_PARTY.replace("length: int", "more: int\n    length: int"), "option more has no default"),
    "has a strange name": (THIRD_PARTY.replace('"alternating"', '"a b"'), "a name may have only lower-case letters"),
    "fails after a task": (THIRD_PARTY + "\n1 / 0\n", "ZeroDivisionError"),
}  # fmt: skip


def package(site: Path, name: str, code: str, points: str) -> None:
    (site / f"{name}.py").write_text(code)
    information = site / f"{name}-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[proctool.tasks]\n{points}\n")


def proctool(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "proctool", *arguments],
        env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True, timeout=100,
    )  # fmt: skip


@pytest.mark.parametrize(
    "fault", [pytest.param(each, marks=pytest.mark.slow) if place > 2 else each for place, each in enumerate(BROKEN)]
)
def test_a_broken_package_is_named_and_costs_its_own_tasks_alone(fault: str, tmp_path: Path) -> None:
    code, reason = BROKEN[fault]
    package(tmp_path, "broken_one", code, "mine = broken_one")
    package(tmp_path, "sound_one", THIRD_PARTY.replace('"alternating"', '"sound"'), "sound = sound_one")
    said = proctool(tmp_path, "generate", "sound", "--show", "1")
    assert said.returncode == 0
    assert said.stdout.strip()
    (line,) = said.stderr.splitlines()
    assert line.startswith('proctool: the package broken_one offers tasks "mine" that cannot be loaded')
    assert reason in line


@pytest.mark.slow
def test_commands_that_use_a_broken_task_say_so(tmp_path: Path) -> None:
    package(tmp_path, "broken_one", "import nowhere_to_be_found\n", "mine = broken_one")
    for command in (("generate", "mine", "--show", "1"), ("generate", "mine", "-o", str(tmp_path / "x"))):
        said = proctool(tmp_path, *command)
        assert said.returncode == 1
        assert said.stderr.splitlines()[-1].startswith('proctool: task "mine": the package broken_one offers tasks')
        assert "Traceback" not in said.stderr
    for command in (("--help",), ("generate", "--help"), ("generate", "set", "--help")):
        said = proctool(tmp_path, *command)
        assert said.returncode == 0
        assert "Usage" in said.stdout


def test_what_a_package_prints_is_no_result(tmp_path: Path) -> None:
    package(tmp_path, "loud", "print('hello')\n" + THIRD_PARTY, "alternating = loud")
    quiet = tmp_path / "quiet"
    quiet.mkdir()
    package(quiet, "still", THIRD_PARTY, "alternating = still")
    command = ("generate", "alternating", "--show", "1")
    assert proctool(tmp_path, *command).stdout == proctool(quiet, *command).stdout


def test_damaged_metadata_hides_no_other_package(tmp_path: Path) -> None:
    package(tmp_path, "damaged", "", "no equals sign")
    package(tmp_path, "sound_one", THIRD_PARTY, "alternating = sound_one")
    said = proctool(tmp_path, "generate", "alternating", "--show", "1")
    assert said.returncode == 0
    assert "damaged" in said.stderr
    assert len(said.stderr.splitlines()) == 1
