"""What worker processes owe their parent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from proctool.workers import usable_cores

SCRIPT = """
import multiprocessing, os, signal, threading
from proctool.workers import end_with_parent

def work(started):
    end_with_parent()
    started.set()
    threading.Event().wait()

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    context.Process(target=work, args=(started,)).start()
    started.wait()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_worker_ends_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(SCRIPT)
    # The worker holds the standard output, so that this comes back once it has gone too.
    ended = subprocess.run([sys.executable, script], stdout=subprocess.PIPE, timeout=60)
    assert ended.returncode == -9


def test_cores_are_counted_where_the_system_does_not_say_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1
