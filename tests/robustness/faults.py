"""What the tests of faults share: commands as processes, and what a folder must look like after any fault."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from benchmarks.kills import contents as whole
from benchmarks.kills import temporary
from tests.robustness.forked import Forked

__all__ = ["TASK", "TRAIN", "done", "ended", "forked", "ranks", "start", "temporary", "whole"]

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


def forked(folder: Path, *arguments: object, module: str = "proctool", **more: str) -> Forked:
    """As `start`, without the seconds that imports take."""
    environment = {**os.environ, "PROCTOOL_CACHE": str(folder / "cache"), **more}
    return Forked(folder, [module, *map(str, arguments)], environment)


def ranks(folder: Path, *arguments: object, module: str = "proctool", **more: str) -> list[Forked]:
    """Two processes of one run without a launcher, which would end the other by itself."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared |= {"ACCELERATE_USE_CPU": "true", **more}
    return [
        forked(folder, *arguments, module=module, **shared, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(2)
    ]


def ended(process: Forked | subprocess.Popen[str]) -> tuple[int, str]:
    """The exit code and standard error. A process that never ends fails the test."""
    try:
        _, said = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"hangs: {process.args}") from None
    return process.returncode, said


def done(folder: Path, *arguments: object) -> None:
    code, said = ended(forked(folder, *arguments))
    assert code == 0, said
