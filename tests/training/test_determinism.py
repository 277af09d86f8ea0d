"""--deterministic: what it switches on and off again, and what it does to a run's settings."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from proctool.errors import RunError
from proctool.training import environment
from proctool.training.determinism import deterministic
from proctool.training.environment import CUBLAS_WORKSPACE, DETERMINISTIC_WORKSPACE
from proctool.training.warmup import warmup_job
from tests.conftest import Said
from tests.training.runs import contents, options


def state() -> tuple[bool, bool, bool, bool]:
    cudnn = torch.backends.cudnn
    algorithms = torch.are_deterministic_algorithms_enabled()
    return algorithms, torch.is_deterministic_algorithms_warn_only_enabled(), cudnn.deterministic, cudnn.benchmark


def test_algorithms_are_deterministic_in_the_run_alone(tmp_path: Path) -> None:
    before, seen = state(), []
    job = warmup_job(options(tmp_path, "asked", deterministic=True))
    job.listeners = [lambda event: seen.append(state())]
    job.run()
    assert set(seen) == {(True, False, True, False)}
    assert state() == before
    job = warmup_job(options(tmp_path, "plain"))
    job.listeners = [lambda event: seen.append(state())]
    job.run()
    assert seen[-1] == before
    assert contents(tmp_path / "plain.safetensors") == contents(tmp_path / "asked.safetensors")  # a CPU repeats anyway


def test_it_is_a_setting_that_older_runs_need_not_have(tmp_path: Path) -> None:
    warmup_job(options(tmp_path)).run()
    settings = tmp_path / "run" / "config.json"
    kept = json.loads(settings.read_text())
    assert kept.pop("deterministic", None) is None
    settings.write_text(json.dumps(kept))
    assert warmup_job(options(tmp_path, deterministic=False)).run().step == 12
    with pytest.raises(RunError, match="deterministic"):
        warmup_job(options(tmp_path, deterministic=True)).run()


def test_an_operation_without_such_an_algorithm_is_one_line() -> None:
    before = state()
    with (
        pytest.raises(
            RunError,
            match=r"^deterministic: torch has no deterministic algorithm for put_ .*; leave --deterministic out$",
        ),
        deterministic(True),
    ):
        torch.zeros(3).put_(torch.tensor([0]), torch.ones(1))
    assert state() == before
    with pytest.raises(RuntimeError, match="other"), deterministic(True):
        raise RuntimeError("other")


@pytest.mark.parametrize(
    ("found", "is_used", "left", "refused"),
    [
        (None, False, DETERMINISTIC_WORKSPACE, None),
        (":16:8", True, ":16:8", None),
        (None, True, None, "already uses CUDA"),
        (":0:0", False, ":0:0", "not with --deterministic"),
    ],
)
def test_cublas_has_its_workspace_before_cuda_starts(
    found: str | None, is_used: bool, left: str | None, refused: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: is_used)
    monkeypatch.setenv(CUBLAS_WORKSPACE, found or "")
    if found is None:
        del os.environ[CUBLAS_WORKSPACE]
    if refused:
        with pytest.raises(RunError, match=refused), deterministic(True):
            pass
    else:
        with deterministic(True):
            assert os.environ[CUBLAS_WORKSPACE] == left
    assert os.environ.get(CUBLAS_WORKSPACE) == left
    said = environment.found("fp32", compiles=False, deterministic=True).recorded
    assert (CUBLAS_WORKSPACE in said) == (left not in (None, DETERMINISTIC_WORKSPACE))


def test_the_command_takes_it(proctool: Callable[..., Said]) -> None:
    said = proctool("warmup", "--task", "set:inputs=5,symbols=9", "--model", "1x1x8", "--steps", 1, "--deterministic")
    assert said.code == 0, said.err
    assert json.loads(Path("warm.run/config.json").read_text())["deterministic"] is True
