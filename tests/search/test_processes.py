"""A real search, in processes of its own: killed, resumed, joined by another."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from tests.robustness.faults import forked
from tests.robustness.forked import Forked

from .conftest import TINY

pytest.importorskip("optuna")


def start(folder: Path, *words: str) -> Forked:
    return forked(folder, *TINY, "--corpus", "text", "--trials", "3", "--widths", "8", *words)


def after(process: Forked, line: str) -> None:
    """Wait until the process says `line`."""
    while not any(said.startswith(line) for said in process.said().splitlines()):
        assert process.poll() is None, f"it ended without {line!r}"
        time.sleep(0.01)


@pytest.mark.slow
def test_a_killed_search_goes_on_and_another_process_joins_it(tmp_path: Path, text: Path) -> None:
    first = start(tmp_path)
    after(first, "cold 2x2x8: 3 of 12")
    time.sleep(0.1)
    first.kill()
    first.communicate()
    second = start(tmp_path)
    after(second, "cold 2x2x8: 8 of 12")
    second.send_signal(signal.SIGTERM)
    _, err = second.communicate()
    assert second.returncode == 130
    assert "run the same command again" in err.splitlines()[-1]
    third = start(tmp_path, "--jobs", "2")  # it starts the other process
    out, err = third.communicate(timeout=400)
    assert third.returncode == 0, err
    other = (tmp_path / "search" / "worker-1.log").read_text()
    assert "trials" in err
    assert "trials" in other  # both ran some
    assert out.strip() in other  # both give the same answer
    found = json.loads((tmp_path / "search" / "answer.json").read_text())
    assert found["seeds"] == [1000, 1001, 1002]
    assert found["cold_cells"] >= 12
