"""`experiment.json`: what an experiment's folder says about itself, for reports without the recipe at hand."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from proctool import artifact, config
from proctool.errors import RunError, in_utf8
from proctool.evaluation.options import diagnostic_task
from proctool.experiment.execute import cores
from proctool.experiment.graph import ArmStages, Plan, warmups_of
from proctool.experiment.stage import Stage
from proctool.outputs import holds_nothing
from proctool.procedural.diagnostics import Haystack
from proctool.recipe import PlannedArm
from proctool.reporting.experiment import RECORD
from proctool.training.run_form import require_run_folder


def require_experiment_folder(plan: Plan) -> None:
    """Raise RunError unless the plan's folder is new, empty or an experiment's, and its stages' are runs' folders."""
    root = plan.root
    if root.exists() and not root.is_dir():
        raise RunError(f"{root}: is a file, so the experiment has no folder; choose another --runs")
    if not holds_nothing(root) and not _is_record(root / RECORD):
        raise RunError(
            f"{root}: exists, is not empty and is not the folder of an experiment; choose another --runs, "
            "or another name in the recipe"
        )
    for stage in plan.missing():
        if stage.trains:
            require_run_folder(stage.folder(root))


def _is_record(path: Path) -> bool:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and {"format", "recipe", "stages", "arms"} <= found.keys()


def write_record(plan: Plan, source: str, command: str) -> Path:
    """Write the record of a plan whose recipe was read from the text `source` and is run by `command`."""
    plan.root.mkdir(parents=True, exist_ok=True)
    path = plan.root / RECORD
    with artifact.replacing(path) as file:
        text = json.dumps(record(plan, source, command), indent=2, ensure_ascii=False) + "\n"
        file.write(in_utf8(text, backslash="\\\\").encode())
    return path


def record(plan: Plan, source: str, command: str) -> dict[str, Any]:
    """The record as JSON-ready values; folders are relative to the experiment's own.

    Of each stage `donor` is the first warm-up behind it and `warmups` are all of them (a weight mixture has several),
    whatever transplants lie between; `trains` tells whether it leaves metrics. Of each arm and seed `budgets` are the
    pretraining stages by share of the steps, and `pretrain` is the one with the largest; `about` says what each arm is.
    """
    recipe = plan.recipe
    return {
        "format": 1,
        "name": recipe.name,
        "title": recipe.title,
        "baseline": recipe.baseline,
        "setting": recipe.setting,
        "seeds": list(recipe.seeds),
        "recipe": config.plain(recipe),
        "published": config.plain(recipe.published),
        "source": source,
        "command": command,
        "environment": environment(),
        "stages": {stage.key: _stage(stage, plan.root) for stage in plan.stages},
        "chance": {name: share for name in recipe.diagnostics if (share := _chance(plan, name)) is not None},
        "about": {name: _about(arm, plan.arms[name]) for name, arm in plan.planned.items()},
        "arms": {
            arm: {
                str(seed): {
                    "pretrain": stages.pretrain.key if stages.pretrain else None,
                    "budgets": {f"{share:g}": stage.key for share, stage in stages.budgets.items()},
                    "diagnostics": {name: stage.key for name, stage in stages.diagnostics.items()},
                    "finetunes": {name: stage.key for name, stage in stages.finetunes.items()},
                }
                for seed, stages in by_seed.items()
            }
            for arm, by_seed in plan.arms.items()
        },
    }


def _stage(stage: Stage, root: Path) -> dict[str, Any]:
    warmups = [each.key for each in warmups_of(stage)]
    return {
        "name": stage.name,
        "folder": stage.folder(root).name,
        "command": ["proctool", *stage.argv(root)],
        "donor": warmups[0] if warmups else None,
        "warmups": warmups,
        "parents": [parent.key for parent in stage.parents],
        "trains": stage.trains,
        "artifact": stage.output,
        "steps": stage.steps,
        "tokens": stage.tokens,
        "eval_samples": getattr(stage.options, "eval_samples", None),
    }


def _about(arm: PlannedArm, by_seed: Mapping[int, ArmStages]) -> dict[str, Any]:
    """What an arm is: the one written that it is a form of, which control of which arms, its procedural tokens."""
    stages = next(iter(by_seed.values()))
    trained = stages.pretrain or next(iter(stages.diagnostics.values()))
    return {
        "made_from": arm.made_from,
        "control": arm.control,
        "of": list(arm.of),
        "procedural_tokens": sum(warmup.tokens for warmup in warmups_of(trained)),
    }


def _chance(plan: Plan, diagnostic: str) -> float | None:
    """The accuracy of guessing: for haystack, of naming any of the values shown without looking at the key."""
    task = diagnostic_task(diagnostic, plan.planned[plan.recipe.baseline].diagnostic(diagnostic))
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
