"""`proctool run RECIPE --dry-run`: the stages of an experiment and what they cost."""

from __future__ import annotations

import dataclasses
import shlex
from typing import Any

from proctool.cli import tables
from proctool.cli.display import emit, line, say
from proctool.cli.plan import redrawn
from proctool.cli.training import quiet_libraries
from proctool.experiment.adopt import done_elsewhere
from proctool.experiment.cost import flops, least_seconds
from proctool.experiment.graph import Plan
from proctool.experiment.hopeless import decide, finished
from proctool.experiment.inputs import corpora_read
from proctool.experiment.launch import written
from proctool.experiment.stage import ChooseOptions, Stage
from proctool.units import counted, format_count, format_seconds

_MOST_COMMANDS = 24
_LONG = 3600
"""Seconds from which a warning follows."""


def show_plan(planned: Plan, as_json: bool) -> None:
    """Print the stages, the totals and, of few unfinished stages, the commands; or all of it as JSON."""
    quiet_libraries()
    elsewhere = done_elsewhere(planned)
    left_out = decide(planned, finished(planned, elsewhere)).left_out
    stages = [
        (stage, state if state in ("done", "reused") or stage.key not in left_out else "left out")
        for stage in planned.stages
        for state in ["reused" if stage in elsewhere else stage.state(planned.root)]
    ]
    todo = [stage for stage, state in stages if state not in ("done", "left out", "reused")]
    seconds = sum(least_seconds(stage, planned.recipe.launch.processes) for stage in todo)
    readings = corpora_read(todo)
    if as_json:
        emit(
            {
                "name": planned.recipe.name,
                "folder": str(planned.root),
                "seconds_at_least": round(seconds, 1),
                "corpora": [dataclasses.asdict(each) for each in readings],
                "stages": [_as_json(*each, planned) for each in stages],
            }
        )
        return
    columns = dict.fromkeys(("stage", "key", "state"), "left") | dict.fromkeys(("steps", "tokens", "FLOPs"), "right")
    rows = [
        (
            *(stage.name, stage.key[:8], state),
            *((str(stage.steps), format_count(stage.tokens), _operations(flops(stage))) if stage.trains else ("",) * 3),
            _origin(stage),
        )
        for stage, state in stages
    ]
    tables.show({**columns, "starts from": "left"}, rows, drop=("key", "FLOPs", "starts from", "tokens"))
    if len(todo) > _MOST_COMMANDS:
        line(f"--json and --emit make print the {len(todo)} commands", hanging=0)
    else:
        for stage in todo:  # commands to copy, so never broken into lines
            print(shlex.join(written(stage, planned.root, planned.recipe.launch)))
    tokens = format_count(sum(stage.tokens for stage in todo))
    total = f"about {_operations(sum(map(flops, todo)))} FLOPs"
    if planned.recipe.stop_hopeless:
        line("stop_hopeless: from the third on, seeds of an arm that loses are left out")
    costs = f"{tokens} tokens and {total} in total"
    line(f"{len(todo)} of {len(stages)} stages to run, {costs}; nothing was run", hanging=0)
    if todo:
        line(f"training takes at least {format_seconds(seconds)} on this machine", hanging=0)
    for reading in readings:
        line(reading.words(), hanging=0)
    if elsewhere:
        line(
            f"{counted(len(elsewhere), 'stage')} of other experiments in {planned.root.parent} will be reused: "
            "`proctool run` copies them first, and the commands above may need them",
            hanging=0,
        )
    for name, tries in {stage.label.group: stage.tries for stage in todo if stage.tries > 1}.items():
        line(redrawn(name, tries), hanging=0)
    if seconds > _LONG:
        say("run: this takes over an hour; `proctool plan` estimates GPUs, and --smoke tries the recipe in a minute")


def _origin(stage: Stage) -> str:
    if isinstance(stage.options, ChooseOptions):
        return f"{counted(len(stage.parents), 'trial')}"
    return ", ".join(parent.name for parent in stage.parents) or "fresh weights"


def _operations(number: float) -> str:
    return f"{number:.1e}"


def _as_json(stage: Stage, state: str, planned: Plan) -> dict[str, Any]:
    return {
        "name": stage.name,
        "key": stage.key,
        "state": state,
        "steps": stage.steps,
        "tokens": stage.tokens,
        "procedural_tokens": stage.procedural_tokens,
        "flops": flops(stage),
        "tries": stage.tries,
        "parents": [parent.key for parent in stage.parents],
        "folder": str(stage.folder(planned.root)),
        "command": written(stage, planned.root, planned.recipe.launch),
    }
