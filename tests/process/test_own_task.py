"""The page "Your own task" works as printed, and the identity of such a task includes its code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from proctool.experiment.stage import Label, Stage
from proctool.procedural.contract import broken_rules
from proctool.procedural.mixture import parse_tasks
from proctool.procedural.registry import tasks
from proctool.procedural.task_code import task_code
from proctool.training.options import WarmupOptions
from proctool.training.sources import TaskSource

PAGE = (Path(__file__).parents[2] / "docs" / "your-own-task.md").read_text()
CODE, PYPROJECT, COMMANDS = (re.findall(rf"```{kind}\n(.*?)```", PAGE, re.S)[0] for kind in ("python", "toml", "sh"))
WARMUP = "warmup --task echo:inputs=4 --model 1x2x8 --steps 2 --batch-size 4 --eval-samples 8 -o warm.safetensors"


def installed(site: Path, code: str = CODE, version: str = "1.0") -> Path:
    """The package of the page in `site`, as an installer leaves it."""
    project = tomllib.loads(PYPROJECT)["project"]
    (entry, module), *_ = project["entry-points"]["proctool.tasks"].items()
    information = site / "my_tasks-1.0.dist-info"
    information.mkdir(exist_ok=True)
    (site / f"{module}.py").write_text(code)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {version}\n")
    (information / "entry_points.txt").write_text(f"[proctool.tasks]\n{entry} = {module}\n")
    return site


def python(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, *arguments], cwd=site, env={**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip


def proctool(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return python(site, "-m", "proctool", *arguments)


@pytest.mark.slow
def test_the_page_works_as_printed(tmp_path: Path) -> None:
    import shlex

    installed(tmp_path)
    for line in COMMANDS.splitlines():
        program, *words = shlex.split(line)
        assert program == "proctool"
        done = proctool(tmp_path, *words)
        assert done.returncode == 0, done.stderr
    header = proctool(tmp_path, "inspect", "warm.safetensors", "--json")
    (code,) = json.loads(header.stdout)["about"]["code"]
    assert (code["task"], code["package"], code["version"]) == ("echo:inputs=8,symbols=50", "my-tasks", "1.0")


BROKEN = {
    "shapes": ("2 * self.inputs + 1", "2 * self.inputs + 2"),
    "layout": ("range(self.symbols), ", "range(1, self.symbols), "),
    "options": ('    """Size of the alphabet."""\n', ""),
    "determinism": ("rng.integers", "np.random.default_rng().integers"),
    "splits": ("np.log2(self.symbols)", "1000"),
    "growth": ("2 * self.inputs + 1", "33"),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_check_names_a_broken_rule(rule: str, tmp_path: Path) -> None:
    old, new = BROKEN[rule]
    assert old in CODE
    code = CODE.replace(old, new)
    if rule == "splits":
        code = code.replace("rng.integers(0, self.symbols,", "rng.integers(0, 1,")
    done = proctool(installed(tmp_path, code), "generate", "echo", "--check")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    assert all(line.startswith("proctool: echo: ") for line in lines)
    assert any(line.startswith(f"proctool: echo: {rule}: ") for line in lines), lines


EDITED = CODE.replace("symbols[:, ::-1]", "symbols")


@pytest.mark.slow
def test_an_edited_task_does_not_give_the_old_warm_up(tmp_path: Path) -> None:
    installed(tmp_path)
    first = proctool(tmp_path, *WARMUP.split())
    assert first.returncode == 0, first.stderr
    assert "already complete" in proctool(tmp_path, *WARMUP.split()).stderr
    installed(tmp_path, EDITED)
    refused = proctool(tmp_path, *WARMUP.split())
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert "belongs to a run whose task had other code (my-tasks 1.0, samples " in line
    assert "; now my-tasks 1.0, samples " in line


@pytest.mark.slow
def test_a_file_of_other_code_is_refused(tmp_path: Path) -> None:
    installed(tmp_path)
    done = proctool(tmp_path, "generate", "echo + set:small", "--samples", "20", "-o", "made.safetensors")
    assert done.returncode == 0, done.stderr
    installed(tmp_path, EDITED)
    refused = proctool(tmp_path, *WARMUP.replace("--task echo:inputs=4", "--data made.safetensors").split())
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert "the installed my-tasks 1.0 makes other samples of echo:" in line


KEYS = """
from proctool.experiment.stage import Label, Stage
from proctool.procedural.mixture import parse_tasks
from proctool.training.options import WarmupOptions
for spec in ("echo", "shuffle(echo)", "set*1 + echo*2", "set"):
    task = parse_tasks(spec)
    options = WarmupOptions(task=(spec,), steps=1)
    print(Stage(Label("warmup"), ("warmup",), options, {}, None, task.length, task).key)
"""


def test_stages_of_an_edited_task_run_again_and_others_do_not(tmp_path: Path) -> None:
    keys = []
    for code, version in ((CODE, "1.0"), (EDITED, "1.0"), (CODE, "1.1")):
        done = python(installed(tmp_path, code, version), "-c", KEYS)
        assert done.returncode == 0, done.stderr
        keys.append(done.stdout.split())
    *foreign, built_in = zip(*keys, strict=True)
    assert all(len(set(each)) == 3 for each in foreign)
    assert len(set(built_in)) == 1


BUILT_IN = [*(f"{name}:small" for name in tasks()), "shuffle(set)", "set*1 + union*2"]


@pytest.mark.parametrize("spec", BUILT_IN)
def test_built_in_tasks_are_recorded_as_ever(spec: str) -> None:
    task: Any = parse_tasks(spec)
    assert task_code(task) == []
    assert TaskSource(task, 3).metadata() == {"task": task.spec, "seed": 3, "split": "train"}


def test_keys_of_built_in_tasks_stay() -> None:
    task = parse_tasks("set:inputs=8*1 + dyck:small*1")
    options = WarmupOptions(task=("set:inputs=8", "dyck:small"), steps=7)
    with_task, without = (
        Stage(Label("warmup"), ("warmup",), options, {}, None, task.length, each) for each in (task, None)
    )
    assert with_task.key == without.key


def test_what_a_foreign_task_raises_is_a_broken_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    task = parse_tasks("set:small")
    monkeypatch.setattr(type(task), "sample", lambda self, rng, n: 1 / 0)
    assert {str(each) for each in broken_rules(task)} >= {"shapes: raises ZeroDivisionError: division by zero"}
