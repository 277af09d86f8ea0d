"""Commands in processes that begin with torch and transformers imported, which takes a new process four seconds.

A server imports them once, then forks for each command. The forked process has the folder, environment, signals, exit
code and end of an interpreter that runs `python -m proctool`; only its imports are done. What a test says about the
imports themselves, or about variables that Python reads when it starts, needs a process of its own: `faults.start`.
Libraries do not bear forks everywhere: on other systems than Linux the forked process becomes a new interpreter.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, cast

ROOT = Path(__file__).parents[2]
FORKS = sys.platform == "linux"
IMPORTED = (
    "transformers.models.gpt2.modeling_gpt2", "proctool.cli.main", "proctool.cli.training", "proctool.cli.diagnostics",
    "proctool.training.pretrain", "proctool.evaluation.acceptance", "proctool.transplantation.engine",
)  # fmt: skip


class Forked:
    """The part of `subprocess.Popen` that tests use."""

    def __init__(self, folder: Path, command: list[str], environment: dict[str, str]) -> None:
        self.args, self.returncode = command, cast("int | None", None)
        self._said = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(server())
        asked = json.dumps([str(folder), command, environment]).encode()
        socket.send_fds(self._server, [len(asked).to_bytes(8)], [each.fileno() for each in self._said])
        self._server.sendall(asked)
        self.pid = self._number()

    def _number(self) -> int:
        told = self._server.recv(8)
        assert len(told) == 8, "the server has ended"
        return int.from_bytes(told, signed=True)

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._server], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = self._number()
            self._server.close()
        return self.returncode

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        out, err = (_read(each) for each in self._said)
        return out, err

    def said(self) -> str:
        """Its standard error so far."""
        return _read(self._said[1])


def _read(file: IO[bytes]) -> str:
    """The whole of a file that another process writes, whose position both share."""
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode(errors="replace")


@functools.cache
def server() -> str:
    """The address of the server, which ends with this process. A test that measures time starts it first."""
    folder = tempfile.TemporaryDirectory()
    address = str(Path(folder.name) / "forked")
    command = [sys.executable, "-m", "tests.robustness.forked", address]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PROCTOOL_CACHE": folder.name}
    started = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, cwd=ROOT)
    _kept.append((started, folder))
    while not os.path.exists(address):
        assert started.poll() is None, "it cannot start"
        time.sleep(0.01)
    return address


_kept: list[tuple[subprocess.Popen[bytes], tempfile.TemporaryDirectory[str]]] = []
"""The server ends when its standard input is closed."""


def serve(address: str) -> None:
    """Fork for each connection until standard input is closed. Returns in the forked processes, as their command."""
    if FORKS:
        for name in IMPORTED:
            importlib.import_module(name)
        importlib.import_module("proctool.models.small_heads").kernel()  # compiled for each cache folder otherwise
        gc.collect()
        gc.freeze()  # forked processes would copy all memory to collect its garbage
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system removes processes that have ended
    with socket.socket(socket.AF_UNIX) as calls:
        calls.bind(address + ".partial")
        calls.listen()
        os.rename(address + ".partial", address)
        while True:
            ready, _, _ = select.select([calls, sys.stdin], [], [])
            if sys.stdin in ready:
                return
            asked, _ = calls.accept()
            if not os.fork():
                break
            asked.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, said, *_ = socket.recv_fds(asked, 8, 2)
    body = b""
    while len(body) < int.from_bytes(size):
        body += asked.recv(1 << 16)
    if child := os.fork():
        asked.sendall(child.to_bytes(8, signed=True))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        asked.sendall(code.to_bytes(8, signed=True))
        os._exit(0)
    asked.close()
    for stream, number in zip((os.open(os.devnull, os.O_RDONLY), *said), range(3), strict=True):
        os.dup2(stream, number)
        os.close(stream)
    folder, (module, *arguments), environment = json.loads(body)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if not FORKS:
        os.execve(sys.executable, [sys.executable, "-m", module, *arguments], environment)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    serve(sys.argv[1])
