"""A dry run says what a real run would do with the run that is in its folder, and changes nothing there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proctool.locks import take
from tests.conftest import Said

COMMANDS: dict[str, tuple[Path, tuple[object, ...]]] = {
    "warmup": (Path("m.run"), ("warmup", "--task", "set:inputs=4", "--model", "1x1x8", "-o", "m.safetensors")),
    "pretrain": (
        Path("m.run"),
        ("pretrain", "--corpus", "text", "--context", 16, "--model", "1x1x8", "-o", "m.safetensors"),
    ),
    "diagnostic": (Path("runs/eval-sorting"), ("eval", "sorting", "--items", 4, "--model", "1x1x8", "--final-lr", 0.1)),
}
SMALL = ("--steps", 3, "--batch-size", 2, "--eval-samples", 2, "--ramp-steps", 0)


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize("name", COMMANDS)
def test_it_says_what_a_real_run_does(
    proctool: Callable[..., Said], text: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("proctool.cli.training._seconds_at_least", lambda *_: 0.0)  # it takes most of the time
    folder, command = COMMANDS[name]
    words = (*command, *SMALL)

    def outlook(*more: object) -> dict[str, Any]:
        said = proctool(*words, *more, "--dry-run", "--json")
        assert said.code == 0, said.err
        return {key: value for key, value in json.loads(said.out)["run"].items() if value is not None}

    assert outlook() == outlook("--resume", "never") == {"action": "begin"}
    assert not folder.exists()
    with monkeypatch.context() as stopped:
        stopped.setattr("proctool.training.loop.agreed_to_stop", lambda *_: True)
        assert proctool(*words).code == 130
    before = files(folder)
    assert outlook() == {"action": "resume", "step": 1}
    assert "  run         resumes from step 1\n" in proctool(*words, "--dry-run").err
    assert outlook("--resume", "never") == {"action": "discard"}
    with take(folder / ".lock"):  # type: ignore[union-attr]
        refused = outlook()
        assert refused["action"] == "refuse"
        assert refused["reason"].partition(", for")[0] == proctool(*words).line[10:].partition(", for")[0]
    assert outlook("--lr", 0.5) == {"action": "refuse", "reason": proctool(*words, "--lr", 0.5).line[10:]}
    (checkpoint,) = (folder / "checkpoints").iterdir()
    checkpoint.write_bytes(before[checkpoint][:-1])
    assert outlook() == {"action": "restart"}
    checkpoint.write_bytes(before[checkpoint])
    assert files(folder) == before

    assert proctool(*words).code == 0
    before = files(folder)
    assert outlook() == {"action": "complete", "step": 3}
    assert outlook("--steps", 5, "--extend") == {"action": "extend", "step": 3}
    assert outlook("--steps", 5) == {"action": "refuse", "reason": proctool(*words, "--steps", 5).line[10:]}
    next(folder.glob("state-*")).unlink()
    refused = outlook("--steps", 5, "--extend")
    assert refused == {"action": "refuse", "reason": proctool(*words, "--steps", 5, "--extend").line[10:]}
    assert {path: content for path, content in before.items() if "state" not in path.name} == files(folder)
