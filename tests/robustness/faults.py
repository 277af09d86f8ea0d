"""What the tests of faults share: commands as processes, and what a folder must look like after any fault."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.kills import contents as whole
from benchmarks.kills import temporary

__all__ = ["TASK", "TRAIN", "done", "ended", "start", "temporary", "whole"]

TASK = "set:inputs=5,symbols=9"
TRAIN = ["--model", "2x2x16", "--batch-size", "8", "--eval-samples", "20", "--eval-every", "10", "--log-every", "1"]
TRAIN += ["--checkpoint-every", "5", "--ramp-steps", "1"]


def start(
    folder: Path, *arguments: object, program: tuple[str, ...] = ("-m", "proctool"), **more: str
) -> subprocess.Popen[str]:
    """A command at work in `folder`."""
    environment = {**os.environ, "PROCTOOL_CACHE": str(folder / "cache"), **more}
    command = [sys.executable, *program, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit code and standard error. A process that never ends fails the test."""
    try:
        _, said = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"hangs: {process.args}") from None
    return process.returncode, said


def done(folder: Path, *arguments: object) -> None:
    code, said = ended(start(folder, *arguments))
    assert code == 0, said
