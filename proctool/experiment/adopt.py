"""Reuse finished stages of other experiments in the same folder.

A warm-up does not depend on the corpus, so recipes for several corpora share their warm-ups.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from proctool.errors import RunError
from proctool.experiment.graph import Plan
from proctool.experiment.stage import Stage
from proctool.reporting.record import RECORD


def adopt(plan: Plan) -> list[Stage]:
    """Reuse stages of the plan that neighbouring experiments have finished; return these stages.

    Their files appear in the plan's own folder. Artifacts are hard links where the file system supports them, so either
    folder can be deleted.
    """
    found = done_elsewhere(plan)
    for stage, root in found.items():
        _take(stage.folder(root), stage.folder(plan.root))
    return list(found)


def done_elsewhere(plan: Plan) -> dict[Stage, Path]:
    """The stages that `adopt` takes, each with the folder of the experiment that has finished it."""
    wanted = [stage for stage in plan.missing() if not stage.folder(plan.root).exists()]
    if not wanted:
        return {}
    # Not only the stages that their records name: a changed recipe leaves stages behind that are as good.
    others = [record.parent for record in sorted(plan.root.parent.glob(f"*/{RECORD}")) if record.parent != plan.root]
    found: dict[Stage, Path] = {}
    for root in others:
        found |= {stage: root for stage in wanted if stage not in found and _is_done(stage, root)}
    return found


def _is_done(stage: Stage, root: Path) -> bool:
    with contextlib.suppress(RunError, OSError):  # what is damaged in another experiment is no error here
        return stage.is_done(root)
    return False


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
