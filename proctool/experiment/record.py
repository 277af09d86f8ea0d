"""`experiment.json`: the description of an experiment in its folder, so that reports need no recipe."""

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
from proctool.experiment.graph import ArmStages, Plan, Rung, warmups_of
from proctool.experiment.selection import Choice
from proctool.experiment.stage import ChooseOptions, Stage
from proctool.outputs import RUN_FILES, holds_nothing, reads_of, require_apart
from proctool.procedural.diagnostics import Haystack
from proctool.recipe import PlannedArm
from proctool.recipe.ladder import body_parameters, rung_model, target_parameters
from proctool.reporting.record import (
    RECORD,
    ArmRecord,
    CellRecord,
    ChoiceRecord,
    ExperimentRecord,
    LadderTarget,
    RungRecord,
    SeedRecord,
    StageRecord,
    rung_name,
)
from proctool.reporting.stopped import STOPPED
from proctool.training.run_form import read_form, require_run_folder
from proctool.untrusted import parse_json


def require_experiment_folder(plan: Plan, option: str = "--runs") -> None:
    """Raise RunError unless the plan's folder is new, empty or an experiment, and its stages are run folders.

    `option` is the flag that names the folder.
    """
    root = plan.root
    if root.exists() and not root.is_dir():
        raise RunError(f"{root}: is a file, but the experiment needs a folder; choose another {option}")
    # A damaged or lost record is written again, if the folder has a run of this experiment.
    known = is_record(root / RECORD) or any(read_form(stage.folder(root)) is not None for stage in plan.stages)
    if not holds_nothing(root) and not known:
        other = ", or another name in the recipe" if option == "--runs" else ""
        what = "damaged" if (root / RECORD).exists() else "missing"
        raise RunError(
            f"{root}: is not empty and is not the folder of this experiment ({RECORD} is {what}, and no run in it has "
            f"these settings); choose another {option}{other}"
        )
    for stage in plan.missing():
        reads = reads_of(stage.options)
        require_apart(root, (RECORD, STOPPED, "report.html"), option, reads)
        require_apart(stage.folder(root), RUN_FILES, option, reads)
        if stage.trains:
            require_run_folder(stage.folder(root))


def is_record(path: Path) -> bool:
    """Whether a file is the record of an experiment, of any version."""
    try:
        found = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and {"format", "recipe", "stages", "arms"} <= found.keys()


def write_record(plan: Plan, source: str, command: str, *, smoke: bool = False) -> Path:
    """Write the record of a plan.

    `source` is the recipe's text, `command` the command that runs it, `smoke` whether the recipe was shrunk.
    """
    plan.root.mkdir(parents=True, exist_ok=True)
    path = plan.root / RECORD
    with artifact.replacing(path) as file:
        text = json.dumps(config.plain(record(plan, source, command, smoke=smoke)), indent=2, ensure_ascii=False) + "\n"
        file.write(in_utf8(text, backslash="\\\\").encode())
    return path


def record(plan: Plan, source: str, command: str, *, smoke: bool = False) -> ExperimentRecord:
    """The record of a plan; paths are relative to the experiment's folder."""
    recipe = plan.recipe
    return ExperimentRecord(
        name=recipe.name,
        title=recipe.title,
        asks=recipe.asks,
        baseline=recipe.baseline,
        setting=recipe.setting,
        seeds=recipe.seeds,
        recipe=config.plain(recipe),
        published=recipe.published,
        source=source,
        command=command,
        smoke=smoke,
        environment=environment(),
        stages={stage.key: _stage(stage, plan.root) for stage in plan.stages},
        chance={name: share for name in recipe.diagnostics if (share := _chance(plan, name)) is not None},
        **_measured(plan, max(plan.rungs, default=None)),
        rungs={
            str(width): RungRecord(parameters=body_parameters(rung_model(recipe, width)), **_measured(rung, width))
            for width, rung in plan.rungs.items()
        },
        target=(
            LadderTarget(model=recipe.extrapolate, parameters=parameters)
            if recipe.extrapolate is not None and (parameters := target_parameters(recipe)) is not None
            else None
        ),
    )


def _measured(plan: Plan | Rung, width: int | None) -> dict[str, Any]:
    """The arms of a plan, or of one width of its ladder: what each is, its stages, and what a sweep decides."""
    suffix = "" if width is None else rung_name("", width)
    return {
        "choices": {name: _choice(choice, suffix) for name, choice in plan.choices.items()},
        "about": {name: _about(arm, plan.arms[name]) for name, arm in plan.planned.items()},
        "arms": {
            arm: {
                str(seed): SeedRecord(
                    pretrain=stages.pretrain.key if stages.pretrain else None,
                    budgets={f"{share:g}": stage.key for share, stage in stages.budgets.items()},
                    diagnostics={name: stage.key for name, stage in stages.diagnostics.items()},
                    finetunes={name: stage.key for name, stage in stages.finetunes.items()},
                    tasks={
                        name: {task: each.key for task, each in by_task.items()}
                        for name, by_task in stages.tasks.items()
                    },
                    evaluations={name: stage.key for name, stage in stages.evaluations.items()},
                    repeats={name: tuple(each.key for each in more) for name, more in stages.repeats.items() if more},
                )
                for seed, stages in by_seed.items()
            }
            for arm, by_seed in plan.arms.items()
        },
    }


def _stage(stage: Stage, root: Path) -> StageRecord:
    warmups = tuple(each.key for each in warmups_of(stage))
    return StageRecord(
        name=stage.name,
        folder=stage.folder(root).name,
        command=("proctool", *stage.argv(root)),
        donor=warmups[0] if warmups else None,
        warmups=warmups,
        parents=tuple(parent.key for parent in stage.parents),
        trains=stage.trains,
        artifact=stage.output,
        steps=stage.steps,
        tokens=stage.tokens,
        eval_samples=getattr(stage.options, "eval_samples", None),
    )


def _choice(choice: Choice, suffix: str) -> ChoiceRecord:
    assert isinstance(choice.stage.options, ChooseOptions)
    return ChoiceRecord(
        stage=choice.stage.key,
        groups={
            arm.removesuffix(suffix): tuple(
                CellRecord(values=cell.values, trials={str(seed): stage.key for seed, stage in trials.items()})
                for cell, trials in cells.items()
            )
            for arm, cells in choice.groups.items()
        },
        combinations=choice.stage.options.combinations,
        files=choice.stage.options.files,
    )


def _about(arm: PlannedArm, by_seed: Mapping[int, ArmStages]) -> ArmRecord:
    stages = next(iter(by_seed.values()))
    trained = stages.pretrain or next(iter(stages.diagnostics.values()))
    warmups = warmups_of(trained)
    return ArmRecord(
        made_from=arm.made_from,
        control=arm.control,
        of=tuple(arm.of),
        procedural_tokens=sum(each.tokens for each in warmups if each.task is not None)
        + (0 if stages.pretrain is None else stages.pretrain.procedural_tokens),
        text_tokens=sum(each.tokens for each in warmups if each.task is None),
    )


def _chance(plan: Plan, diagnostic: str) -> float | None:
    """The accuracy of guessing; for haystack: of answering with any shown value, without using the key."""
    task = diagnostic_task(diagnostic, plan.planned[plan.recipe.baseline].diagnostic(diagnostic))
    if isinstance(task, Haystack):
        return fmean(1 / shown for shown in range(1, task.pairs + 1))
    return None


def environment() -> dict[str, Any]:
    """The machine of the run: versions, processor, cores."""
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
