"""`proctool plan`: what a recipe or a run takes on named GPUs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proctool import config
from proctool.cli.display import emit
from proctool.cli.options import Common, argument, with_values
from proctool.errors import OptionError
from proctool.experiment.planning import HardwareOptions, RunOptions
from proctool.units import format_bytes, format_count, format_seconds

if TYPE_CHECKING:
    from rich.table import Table

    from proctool.experiment.planning import ExperimentPlan


def _plan(given: list[Mapping[str, Any]], common: Common, recipe: Path | None) -> None:
    from proctool.cli.training import quiet_libraries
    from proctool.experiment.planning import plan_stages

    hardware_values, run_values = given
    hardware = config.build(HardwareOptions, hardware_values, "")
    if recipe is None:
        stages, processes, name = [config.build(RunOptions, run_values, "").stage()], 1, None
    else:
        if run_values:
            flag = "--" + next(iter(run_values)).replace("_", "-")
            raise OptionError(f"{flag}: the recipe says that; with a recipe give --gpu, --gpus and --mfu alone")
        from proctool.experiment.graph import plan
        from proctool.recipe import load_recipe
        from proctool.recipe.library import recipe_path

        loaded = load_recipe(recipe_path(recipe))
        stages, processes, name = (
            list(plan(loaded, Path("runs") / loaded.name).stages),
            loaded.launch.processes,
            loaded.name,
        )
    quiet_libraries()
    planned = plan_stages(stages, hardware, processes)
    if common.json:
        emit({"name": name, **dataclasses.asdict(planned)})
    else:
        _show(planned)


plan = with_values(
    (HardwareOptions, RunOptions),
    _plan,
    arguments=[argument("recipe", Path | None, "An experiment to plan, instead of one run by flags.", None)],
    dry_run=False,
)


def _show(planned: ExperimentPlan) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:  # nothing is cut off in a file
        console = Console(width=160)
    several = sum(stage.stages for stage in planned.stages) > 1
    console.print(_costs(planned))
    console.print(_memory(planned))
    gpu = planned.gpu
    checkpoints = any(fit.gradient_checkpointing for stage in planned.stages for fit in stage.fits)
    lines = [
        f"Hours: operations / (GPUs x peak x MFU {planned.mfu:g}), scaling linearly; evaluations, checkpoints and "
        "tokenising are not in them.",
        "Samples: at once on a GPU x micro-batches of a step"
        + ("; * with gradient checkpointing." if checkpoints else "."),
        f"{gpu.name}: {gpu.gigabytes} GB, of which a run is given {format_bytes(gpu.room)}; {gpu.source}",
    ]
    lines += [
        f"{total.gpus} GPUs: batches spread over {total.processes} of them"
        + (f"; {total.at_once} stages train at once." if several else "; the rest is left over.")
        for total in planned.totals
        if total.processes < total.gpus
    ]
    lines += [redrawn(stage.name, stage.tries) for stage in planned.stages if stage.tries > 1]
    console.print("\n".join(lines), highlight=False, style="dim")


def redrawn(name: str, tries: int) -> str:
    """What a plan says of a stage that trains donors until one is accepted."""
    return f"{name}: the cost of one donor and its probe; up to {tries} are trained until one is accepted."


def _costs(planned: ExperimentPlan) -> Table:
    known = any(stage.epochs is not None for stage in planned.stages)
    heads = ("params", "tokens", *(("epochs",) if known else ()), "FLOPs")
    table = _table("stage", (*heads, *(f"{total.gpus} x {planned.gpu.name}" for total in planned.totals)))
    for stage in planned.stages:
        epochs = "" if stage.epochs is None else f"{stage.epochs:.3g}"
        table.add_row(
            stage.name + (f" x{stage.stages}" if stage.stages > 1 else ""),
            *(format_count(stage.parameters), format_count(stage.tokens), *((epochs,) if known else ())),
            *(f"{stage.flops:.1e}", *(format_seconds(fit.seconds) for fit in stage.fits)),
        )
    if sum(stage.stages for stage in planned.stages) > 1:
        table.add_section()
        table.add_row(
            *("all", "", format_count(planned.tokens), *(("",) if known else ()), f"{planned.flops:.1e}"),
            *(format_seconds(total.seconds) for total in planned.totals),
        )
    return table


def _memory(planned: ExperimentPlan) -> Table:
    """Stages that need the same share a row."""
    table = _table("peak memory of a GPU", ("GPUs", "samples", "whole", "sharded"))
    table.add_column(f"on {planned.gpu.name}", overflow="fold")
    rows: dict[tuple[str, ...], list[str]] = {}
    for stage in planned.stages:
        for fit in stage.fits:
            again = " *" if fit.gradient_checkpointing else ""
            row: tuple[str, ...] = (
                f"{fit.processes}", f"{fit.micro_batch} x {fit.accumulate}{again}", format_bytes(fit.plain),
                format_bytes(fit.sharded) if fit.processes > 1 else "", fit.advice or "fits",
            )  # fmt: skip
            names = rows.setdefault(row, [])
            if stage.name not in names:
                names.append(stage.name)
    for row, names in rows.items():
        table.add_row(names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else ""), *row)
    return table


def _table(first: str, heads: tuple[str, ...]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, header_style="bold", border_style="dim", pad_edge=False)
    table.add_column(first, no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right", overflow="fold")
    return table
