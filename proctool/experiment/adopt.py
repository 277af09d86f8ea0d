"""Stages that an experiment beside this one has done: taken over instead of computed again.

A warm-up does not depend on the corpus, so recipes for several corpora share theirs.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from proctool.experiment.graph import Plan
from proctool.experiment.stage import Stage
from proctool.reporting.record import RECORD
from proctool.untrusted import parse_json


def adopt(plan: Plan) -> list[Stage]:
    """Take over what experiments in folders beside the plan's have done of it; the stages that were.

    Their files appear in the plan's own folder: artifacts as further links to the same bytes where the file system
    has such, so that either folder can be deleted.
    """
    wanted = {stage.key: stage for stage in plan.missing() if not stage.folder(plan.root).exists()}
    if not wanted:
        return []
    adopted = []
    for root, key in _done_elsewhere(plan.root, wanted):
        stage = wanted.get(key)
        if stage is not None and stage.is_done(root):  # others may only have planned it
            del wanted[key]
            _take(stage.folder(root), stage.folder(plan.root))
            adopted.append(stage)
    return adopted


def _done_elsewhere(own: Path, wanted: Iterable[str]) -> list[tuple[Path, str]]:
    """Other experiments' folders with the keys that their records name."""
    found = []
    for record in sorted(own.parent.glob(f"*/{RECORD}")):
        if record.parent == own:
            continue
        try:
            stages = parse_json(record.read_bytes())["stages"]
            found += [(record.parent, key) for key in wanted if key in stages]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # not ours to complain about
    return found


def _take(source: Path, target: Path) -> None:
    """Copy a stage's folder, complete or not at all."""
    half = target.with_name(f".{target.name}.half")
    shutil.rmtree(half, ignore_errors=True)
    shutil.copytree(source, half, copy_function=_link_or_copy)
    half.rename(target)


def _link_or_copy(source: str, target: str) -> None:
    if source.endswith(".safetensors"):  # never changed in place: replaced as a whole
        try:
            os.link(source, target)
            return
        except OSError:
            pass
    shutil.copy2(source, target)
