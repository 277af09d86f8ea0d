"""A stand-in for the training commands: deterministic metrics at once, no torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from proctool.experiment.execute import Progress
from proctool.experiment.graph import Plan, plan
from proctool.recipe import build_recipe

FAKE = Path(__file__).with_name("fake_proctool.py")
COMMAND = (sys.executable, "-S", str(FAKE))


def values(**changes: Any) -> dict[str, Any]:
    """A small recipe as YAML would give it."""
    return {
        "name": "tiny",
        "model": "2x2x16",
        "corpus": "python",
        "context": 64,
        "warmup": {"steps": 20, "batch_size": 4},
        "pretrain": {"steps": 40, "batch_size": 4, "eval_every": 10},
        "arms": {"cold": {}, "set": {"warmup": {"task": "set:inputs=8"}}},
    } | changes


def planned(root: Path, **changes: Any) -> Plan:
    return plan(build_recipe(values(**changes)), root)


class Silent:
    """A display that keeps what it was last shown."""

    def __init__(self) -> None:
        self.shown: list[tuple[int, int]] = []
        self.last: Progress | None = None

    def update(self, progress: Progress) -> None:
        self.last = progress
        self.shown.append((len(progress.running), len(progress.done)))
