"""Every Python example of docs/api.md runs, section by section; and the scripts in examples/."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import proctool
from tests.api.test_evaluate import RECIPE

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text()
SECTIONS = {
    title: re.findall(r"```python\n(.*?)```", body, re.DOTALL)
    for title, body in (section.split("\n", 1) for section in PAGE.split("\n## ")[1:])
}


@pytest.mark.parametrize("title", SECTIONS)
def test_the_examples_of_a_section_run(
    title: str, tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("demo.yaml").write_text(RECIPE)
    assert text == tmp_path / "text"
    names: dict[str, object] = {}
    for number, block in enumerate(SECTIONS[title]):
        exec(compile(block, f"docs/api.md, {title}, block {number + 1}", "exec"), names)
    assert SECTIONS[title]
    said = capsys.readouterr().out
    for line in re.findall(r"print\(task\.spec.*# (.*)", PAGE) if title == "Tasks" else ():
        assert line in said


def test_the_page_names_the_whole_api() -> None:
    functions = {name for name in proctool._MODULES if name[0].islower()}
    assert functions <= set(re.findall(r"`(\w+)`", PAGE))


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_an_example_runs_as_printed(script: Path, tmp_path: Path) -> None:
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, cwd=tmp_path, env=surroundings)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "warm" / "model.safetensors").exists()
    losses = [float(each) for each in re.findall(r"loss'?:? '?(\d+\.\d+)", ran.stdout)]
    assert losses[-1] < losses[0] / 1.2, ran.stdout
    if script.stem != "plain_loop":  # both say the same
        return
    command = [sys.executable, "-m", "proctool", *ran.stdout.split("with: proctool ")[1].split()]
    hinted = subprocess.run([*command, "--dry-run"], capture_output=True, text=True, cwd=tmp_path, env=surroundings)
    assert hinted.returncode == 0, hinted.stderr
