"""Reuse finished stages of other experiments in the same folder.

A warm-up does not depend on the corpus, so recipes for several corpora share their warm-ups.
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
    """Reuse stages of the plan that neighbouring experiments have finished; return these stages.

    Their files appear in the plan's own folder. Artifacts are hard links where the file system supports them, so either
    folder can be deleted.
    """
    wanted = {stage.key: stage for stage in plan.missing() if not stage.folder(plan.root).exists()}
    if not wanted:
        return []
    adopted = []
    for root, key in _done_elsewhere(plan.root, wanted):
        stage = wanted.get(key)
        if stage is not None and stage.is_done(root):  # the other experiment may not have run it yet
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
            continue  # a damaged record of another experiment is not an error here
    return found


def _take(source: Path, target: Path) -> None:
    """Copy a stage's folder atomically."""
    half = target.with_name(f".{target.name}.half")
    shutil.rmtree(half, ignore_errors=True)
    shutil.copytree(source, half, copy_function=_link_or_copy)
    half.rename(target)


def _link_or_copy(source: str, target: str) -> None:
    if source.endswith(".safetensors"):  # a link is safe: artifacts are replaced, never changed in place
        try:
            os.link(source, target)
            return
        except OSError:
            pass
    shutil.copy2(source, target)
