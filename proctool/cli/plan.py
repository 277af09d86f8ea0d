"""`proctool plan`: estimate what a recipe or a run needs on given GPUs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proctool import config
from proctool.cli import tables
from proctool.cli.display import emit
from proctool.cli.options import Common, argument, with_values
from proctool.errors import OptionError
from proctool.experiment.planning import HardwareOptions, RunOptions
from proctool.units import format_bytes, format_count, format_seconds

if TYPE_CHECKING:
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
            raise OptionError(f"{flag}: the recipe sets it; with a recipe, give only --gpu, --gpus and --mfu")
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
    arguments=[argument("recipe", Path | None, "Recipe to plan, instead of one run given by flags.", None)],
    dry_run=False,
)


def _show(planned: ExperimentPlan) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:  # nothing is cut off in a file
        console = Console(width=160)
    several = sum(stage.stages for stage in planned.stages) > 1
    _show_costs(planned)
    _show_memory(planned)
    gpu = planned.gpu
    checkpoints = any(fit.gradient_checkpointing for stage in planned.stages for fit in stage.fits)
    lines = [
        f"Time: FLOPs / (GPUs x peak x MFU {planned.mfu:g}), with linear scaling; without evaluations, checkpoints and "
        "tokenising.",
        "Samples: micro-batch size per GPU x micro-batches per step"
        + ("; * with gradient checkpointing." if checkpoints else "."),
        f"{gpu.name}: {gpu.gigabytes} GB, of which a run can use {format_bytes(gpu.room)}; {gpu.source}",
    ]
    lines += [
        f"{total.gpus} GPUs: a run uses {total.processes} of them"
        + (f"; {total.at_once} stages train at once." if several else "; the others stay idle.")
        for total in planned.totals
        if total.processes < total.gpus
    ]
    lines += [redrawn(stage.name, stage.tries) for stage in planned.stages if stage.tries > 1]
    console.print("\n".join(lines), highlight=False, style="dim")


def redrawn(name: str, tries: int) -> str:
    """A note for a stage that trains donors until one is accepted."""
    return f"{name}: the cost of one donor and its probe; up to {tries} donors are trained until one is accepted."


def _show_costs(planned: ExperimentPlan) -> None:
    known = any(stage.epochs is not None for stage in planned.stages)
    heads = ("params", "tokens", *(("epochs",) if known else ()), "FLOPs")
    times = [f"{total.gpus} x {planned.gpu.name}" for total in planned.totals]
    rows = []
    for stage in planned.stages:
        epochs = "" if stage.epochs is None else f"{stage.epochs:.3g}"
        rows.append(
            [
                stage.name + (f" x{stage.stages}" if stage.stages > 1 else ""),
                *(format_count(stage.parameters), format_count(stage.tokens), *((epochs,) if known else ())),
                *(f"{stage.flops:.1e}", *(format_seconds(fit.seconds) for fit in stage.fits)),
            ]
        )
    if sum(stage.stages for stage in planned.stages) > 1:
        totals = [format_seconds(total.seconds) for total in planned.totals]
        rows.append(
            ["all", "", format_count(planned.tokens), *([""] if known else []), f"{planned.flops:.1e}", *totals]
        )
    columns = {"stage": "left"} | dict.fromkeys((*heads, *times), "right")
    tables.show(columns, rows, drop=("epochs", "params", "FLOPs", "tokens"))


def _show_memory(planned: ExperimentPlan) -> None:
    """A row for each distinct need of memory; stages with the same need share it."""
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
    columns = {"peak memory per GPU": "left"}
    columns |= dict.fromkeys(("GPUs", "samples", "unsharded", "sharded"), "right") | {f"on {planned.gpu.name}": "left"}
    tables.show(
        columns,
        [[names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else ""), *row] for row, names in rows.items()],
        drop=("samples", "sharded", "unsharded"),
    )
