"""`experiment.json`: what an experiment's folder says about itself, for reports without the recipe at hand."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from proctool import artifact, config
from proctool.experiment.execute import cores
from proctool.experiment.graph import Plan, Stage
from proctool.procedural.diagnostics import Haystack
from proctool.recipe import Recipe, diagnostic_task
from proctool.reporting.experiment import RECORD


def write_record(plan: Plan, source: str, command: str) -> Path:
    """Write the record of a plan whose recipe was read from the text `source` and is run by `command`."""
    plan.root.mkdir(parents=True, exist_ok=True)
    path = plan.root / RECORD
    with artifact.replacing(path) as file:
        file.write((json.dumps(record(plan, source, command), indent=2) + "\n").encode())
    return path


def record(plan: Plan, source: str, command: str) -> dict[str, Any]:
    """The record as JSON-ready values; folders are relative to the experiment's own."""
    recipe = plan.recipe
    return {
        "format": 1,
        "name": recipe.name,
        "title": recipe.title,
        "baseline": recipe.baseline,
        "seeds": list(recipe.seeds),
        "recipe": config.plain(recipe),
        "source": source,
        "command": command,
        "environment": environment(),
        "stages": {stage.key: _stage(stage, plan.root) for stage in plan.stages},
        "chance": {name: share for name in recipe.diagnostics if (share := _chance(recipe, name)) is not None},
        "arms": {
            arm: {
                str(seed): {
                    "pretrain": stages.pretrain.key if stages.pretrain else None,
                    "diagnostics": {name: stage.key for name, stage in stages.diagnostics.items()},
                }
                for seed, stages in by_seed.items()
            }
            for arm, by_seed in plan.arms.items()
        },
    }


def _stage(stage: Stage, root: Path) -> dict[str, Any]:
    return {
        "name": stage.name,
        "folder": stage.folder(root).name,
        "command": ["proctool", *stage.argv(root)],
        "donor": stage.donor.key if stage.donor else None,
        "steps": stage.steps,
        "tokens": stage.tokens,
        "eval_samples": stage.options.eval_samples,
    }


def _chance(recipe: Recipe, diagnostic: str) -> float | None:
    """The accuracy of guessing: for haystack, of naming any of the values shown without looking at the key."""
    options = recipe.diagnostic_options(diagnostic, recipe.baseline, recipe.seeds[0])
    task = diagnostic_task(diagnostic, options)
    if isinstance(task, Haystack):
        return fmean(1 / shown for shown in range(1, task.pairs + 1))
    return None


def environment() -> dict[str, Any]:
    """Where it is run: versions, processor, cores."""
    return {
        **artifact.versions(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": cores(),
        "started": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or os.uname().machine
