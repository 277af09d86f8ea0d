"""`proctool plan`: estimate what a recipe or a run needs on given GPUs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proctool import config
from proctool.cli import tables
from proctool.cli.display import emit
from proctool.cli.options import Common, argument, with_values
from proctool.errors import OptionError
from proctool.experiment.plan_options import HardwareOptions, RunOptions
from proctool.experiment.planned_device import Cpu
from proctool.units import format_bytes, format_count, format_seconds

if TYPE_CHECKING:
    from proctool.corpora.size import CorpusSize
    from proctool.experiment.planning import ExperimentPlan


def _plan(given: list[Mapping[str, Any]], common: Common, recipe: Path | None) -> None:
    from proctool.cli.training import quiet_libraries
    from proctool.experiment.planning import plan_stages

    hardware_values, run_values = given
    hardware = config.build(HardwareOptions, hardware_values, "")
    size, processes, name = None, 1, None
    if recipe is None:
        run = config.build(RunOptions, run_values, "")
        quiet_libraries()
        size = _corpus(run)
        tokens = None if size is None else size.tokens
        stages = [run.stage(corpus_tokens=tokens, precision="fp32" if hardware.is_cpu else "bf16")]
    else:
        if run_values:
            flag = "--" + next(iter(run_values)).replace("_", "-")
            raise OptionError(
                f"{flag}: the recipe sets it; with a recipe, give only --gpu, --gpus, --mfu and --price-per-hour"
            )
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
        corpus = {} if size is None else {"corpus": dataclasses.asdict(size)}
        emit({"name": name, **corpus, **dataclasses.asdict(planned)})
    else:
        _show(planned, size)


def _corpus(run: RunOptions) -> CorpusSize | None:
    """The training tokens of the run's corpus, if it names one."""
    if run.corpus is None:
        return None
    from proctool.corpora.size import corpus_size

    size = corpus_size(run.corpus, run.own_tokenizer, text_field=run.text_field, end_of_text=run.end_of_text)
    if size.tokens is None and run.budget is None and run.steps is None:
        raise OptionError(f"{size.words()}; give --budget TOKENS or --steps N")
    return size


plan = with_values(
    (HardwareOptions, RunOptions),
    _plan,
    arguments=[argument("recipe", Path | None, "Recipe to plan, instead of one run given by flags.", None)],
    dry_run=False,
)


def _show(planned: ExperimentPlan, size: CorpusSize | None) -> None:
    _show_costs(planned)
    _show_memory(planned)
    tables.console().print("\n".join(_notes(planned, size)), highlight=False, markup=False, style="dim")


def _notes(planned: ExperimentPlan, size: CorpusSize | None) -> Iterator[str]:
    gpu, several = planned.gpu, sum(stage.stages for stage in planned.stages) > 1
    checkpoints = any(fit.gradient_checkpointing for stage in planned.stages for fit in stage.fits)
    if size is not None:
        yield size.words()
    is_cpu = isinstance(gpu, Cpu)
    speed = "(speed of a layer's largest product" if is_cpu else "(GPUs x peak"
    yield (
        f"Time: FLOPs / {speed} x MFU {planned.mfu:g}){'' if is_cpu else ', with linear scaling'}; without "
        "evaluations, checkpoints and tokenising."
        + (" Measured MFU on CPUs: 0.3 at a width of 64, 0.6 at 128, 0.85 at 384." if is_cpu else "")
    )
    yield from _floors(planned)
    yield (
        f"Samples: micro-batch size{'' if is_cpu else ' per GPU'} x micro-batches per step"
        + ("; * with gradient checkpointing." if checkpoints else ".")
    )
    threads = f"{gpu.threads} thread{'s' if gpu.threads > 1 else ''}, " if isinstance(gpu, Cpu) else ""
    yield f"{gpu.name}: {threads}{gpu.gigabytes} GB, of which a run can use {format_bytes(gpu.room)}; {gpu.source}"
    for total in planned.totals:
        if total.processes < total.gpus:
            yield f"{total.gpus} GPUs: a run uses {total.processes} of them" + (
                f"; {total.at_once} stages train at once." if several else "; the others stay idle."
            )
    priced = [(total, total.cost) for total in planned.totals if total.cost is not None]
    if costs := [f"{_money(cost)} on {total.gpus} x {gpu.name}" for total, cost in priced]:
        yield f"Cost{'' if is_cpu else ' of all GPUs for that time'}, in your currency: {', '.join(costs)}."
    for stage in planned.stages:
        if stage.tries > 1:
            yield redrawn(stage.name, stage.tries)


def _money(cost: float) -> str:
    """A cost with two decimals; a cost that they do not show is said to be below them."""
    return "< 0.01" if 0 < cost < 0.01 else f"{cost:,.2f}"


def _floors(planned: ExperimentPlan) -> Iterator[str]:
    """Which times are those of the floor, and from which size on they are those of the arithmetic."""
    found = [(stage, fit) for stage in planned.stages for fit in stage.fits if fit.at_floor]
    if not found:
        return
    names = list(dict.fromkeys(stage.name for stage, _ in found))
    some = f"{', '.join(names[:3])} and {len(names) - 3} more" if len(names) > 4 else ", ".join(names)
    counts = list(dict.fromkeys(str(fit.gpus) for _, fit in found))
    where = "" if len(counts) == len(planned.totals) else f" on {', '.join(counts)} GPUs"
    longest = max((fit for _, fit in found), key=lambda fit: fit.floor)
    device = "CPU" if isinstance(planned.gpu, Cpu) else "GPU"
    yield (
        f"Floor: {some}{where}: a step takes at least {1000 * longest.floor:.2g} ms to start its kernels, longer than "
        "its FLOPs take."
    )
    yield (
        f"Not calibrated below about {longest.flops_at_floor:.0e} FLOPs a step and {device}: smaller steps can take "
        "several times longer than this."
    )


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
    sizes = ("GPUs", "samples", "unsharded", "sharded")
    columns = {"peak memory per GPU": "left"} | dict.fromkeys(sizes, "right") | {f"on {planned.gpu.name}": "left"}
    if isinstance(planned.gpu, Cpu):
        columns = {"peak memory": "left", "samples": "right", "bytes": "right", "on CPU": "left"}
        rows = {(samples, size, fits): names for (_, samples, size, _, fits), names in rows.items()}
    tables.show(
        columns,
        [[names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else ""), *row] for row, names in rows.items()],
        drop=("samples", "sharded", "unsharded"),
    )
