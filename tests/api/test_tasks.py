"""Tasks from Python: by specification, as a list, as a `datasets.Dataset`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import proctool
from proctool.errors import OptionError
from proctool.procedural.mixture import parse_tasks
from proctool.procedural.registry import tasks

SPECS = ("set:inputs=6", "dyck:small", "shuffle(set:inputs=6)", "set:inputs=6*0.5 + union:inputs=8*0.5")


def test_importing_proctool_imports_nothing_heavy() -> None:
    code = (
        "import sys, proctool; "
        "assert not {'numpy', 'torch', 'transformers', 'datasets', 'rich', 'yaml'} & set(sys.modules); "
        "assert {'load_task', 'warm_up', 'torch', 'hf'} <= set(dir(proctool)); "
        "proctool.load_task('set').stream().read(0, 2); assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow  # it imports torch anew
def test_the_module_named_torch_does_not_stand_in_the_way_of_torch(tmp_path: Path) -> None:
    """Run by its path, Python puts the package's own folder first among those that it imports from."""
    package = Path(proctool.__file__).parent
    command = [sys.executable, str(package), "warmup", "--task", "set:inputs=4", "--model", "nothing"]
    paths = {**os.environ, "PYTHONPATH": str(package.parent)}
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=paths)
    assert ran.stderr.startswith('proctool: model "nothing" is neither'), ran.stderr


def test_every_name_of_the_api_is_there() -> None:
    for name in proctool._MODULES:
        assert getattr(proctool, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'load_tusk'"):
        _ = proctool.load_tusk  # type: ignore[attr-defined]


@pytest.mark.parametrize("spec", SPECS)
def test_a_task_is_described_shown_and_read(spec: str) -> None:
    task = proctool.load_task(spec)
    assert task == parse_tasks(spec)
    assert proctool.load_task(task) is task
    described = task.describe()
    assert described.startswith(task.spec)
    assert f"{task.vocab_size} tokens" in described
    assert f"length: {task.length}" in described
    assert "\n\n\n" not in described
    samples = task.stream(seed=3, split="validation").read(5, 7)
    assert samples.tokens.shape == samples.targets.shape == (2, task.length)
    shown = task.show(2, width=60)
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= 60
    assert "\x1b[1;32m" in task.show(1, colour=True)


def test_describe_gives_every_option_its_value_and_meaning() -> None:
    described = proctool.load_task("dyck:k=3,length=10").describe()
    assert "k = 3: Number of bracket types." in described
    assert "length = 10: " in described


@pytest.mark.parametrize("bad", ["sett", "set:input=3", "shuffle(set", "set*x"])
def test_a_specification_that_means_nothing_is_refused(bad: str) -> None:
    with pytest.raises(OptionError):
        proctool.load_task(bad)
    with pytest.raises(OptionError, match="at least 1"):
        proctool.load_task("set").show(0)


def test_the_list_has_every_task_with_what_it_is_made_for() -> None:
    rows = {row.name: row for row in proctool.list_tasks()}
    assert list(rows) == list(tasks())
    assert {name for name, row in rows.items() if row.kind == "diagnostic"} >= {"haystack", "addition", "sorting"}
    assert rows["set"].kind == rows["dyck"].kind == "warm-up"
    assert rows["set"].package == "proctool"
    assert [(option.name, option.default) for option in rows["dyck"].options] == [
        ("k", 64), ("length", 2048), ("p_open", 0.5)
    ]  # fmt: skip
    assert all(option.meaning for row in rows.values() for option in row.options)


@pytest.mark.parametrize("spec", SPECS)
def test_a_dataset_holds_the_stream(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proctool.api.tasks._AT_ONCE", 3)  # so that several tables are joined
    made = proctool.to_datasets(spec, samples=10, seed=2, split="test").with_format("numpy")
    read = proctool.load_task(spec).stream(2, "test").read(0, 10)
    assert made.column_names == ["input_ids", "labels"]
    assert np.array_equal(made["input_ids"][:], read.tokens)
    assert np.array_equal(made["labels"][:], np.where(read.targets, read.tokens.astype(int), -100))
    with pytest.raises(OptionError, match="samples = 0"):
        proctool.to_datasets(spec, samples=0)
