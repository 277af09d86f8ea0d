"""`proctool run RECIPE --dry-run`: the stages of an experiment and what they cost."""

from __future__ import annotations

import shlex
from typing import Any

from rich.console import Console
from rich.table import Table

from proctool.cli.display import emit
from proctool.cli.plan import redrawn
from proctool.experiment.cost import flops
from proctool.experiment.graph import Plan
from proctool.experiment.launch import written
from proctool.experiment.stage import Stage
from proctool.units import format_count


def show_plan(planned: Plan, as_json: bool) -> None:
    """A table, the totals and the command lines of what is not done; or all of it as JSON."""
    stages = [(stage, stage.state(planned.root)) for stage in planned.stages]
    if as_json:
        emit(
            {
                "name": planned.recipe.name,
                "folder": str(planned.root),
                "stages": [_as_json(*each, planned) for each in stages],
            }
        )
        return
    console = Console(soft_wrap=True)
    table = Table(header_style="bold", border_style="dim")
    for head in ("stage", "key", "state"):
        table.add_column(head, no_wrap=True)
    for head in ("steps", "tokens", "FLOPs"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("starts from", no_wrap=True)
    for stage, state in stages:
        table.add_row(
            *(stage.name, stage.key[:8], state),
            *((str(stage.steps), format_count(stage.tokens), _operations(flops(stage))) if stage.trains else ("",) * 3),
            ", ".join(parent.name for parent in stage.parents) or "fresh weights",
            style="dim" if state == "done" else "",
        )
    console.print(table)
    todo = [stage for stage, state in stages if state != "done"]
    tokens = format_count(sum(stage.tokens for stage in todo))
    total = f"about {_operations(sum(map(flops, todo)))} floating-point operations"
    console.print(
        f"{len(todo)} of {len(stages)} stages to run, {tokens} tokens and {total} in all; nothing was run",
        highlight=False,
    )
    for name, tries in {stage.label.group: stage.tries for stage in todo if stage.tries > 1}.items():
        console.print(redrawn(name, tries), highlight=False)
    for stage in todo:
        print(shlex.join(written(stage, planned.root, planned.recipe.launch)))


def _operations(number: float) -> str:
    return f"{number:.1e}"


def _as_json(stage: Stage, state: str, planned: Plan) -> dict[str, Any]:
    return {
        "name": stage.name,
        "key": stage.key,
        "state": state,
        "steps": stage.steps,
        "tokens": stage.tokens,
        "flops": flops(stage),
        "tries": stage.tries,
        "parents": [parent.key for parent in stage.parents],
        "folder": str(stage.folder(planned.root)),
        "command": written(stage, planned.root, planned.recipe.launch),
    }
