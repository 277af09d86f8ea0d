"""The tables of ladders and sweeps."""

from __future__ import annotations

import math

from proctool.reporting.interval import Estimate
from proctool.reporting.report import Report
from proctool.reporting.sheet import NONE, Sheet
from proctool.reporting.sweep import values_said
from proctool.reporting.verdict import with_interval
from proctool.units import format_count


def ladder(report: Report) -> Sheet:
    """The gain of each arm at each width, its change with size, and what is expected of the target."""
    rungs, target = report.experiment.rungs, report.experiment.record.target
    heads = ["arm", *(f"gain at {rung.width}" for rung in rungs), "per tenfold size"]
    heads += [f"expected at {target.model}"] if target else []
    rows = []
    for each in report.ladders:
        gains = {rung.width: nats(rung.gain) for rung in each.rungs}
        expected = [] if target is None else [NONE if each.expected is None else nats(each.expected)]
        rows.append((each.arm, *(gains.get(rung.width, NONE) for rung in rungs), nats(each.slope), *expected))
    sizes = ", ".join(f"{rung.width}: {format_count(rung.parameters)}" for rung in rungs)
    note = (
        f"Gains in nats per token over {report.baseline} at the same width, with the same corpus tokens per parameter. "
        f"Parameters without embeddings by width: {sizes}. Each seed has its own line in the logarithm of the size"
    )
    note += "; where all gains are positive, the expectation covers a power law too." if target else "."
    drop = (*heads[2 : len(rungs)], *heads[1:2])  # the middle first
    return Sheet("ladder", "Gain by size of the model", tuple(heads), tuple(rows), note, drop=drop)


def sweep(report: Report) -> Sheet:
    """The best cell of each arm, and how many cells were tried."""
    sweeps = report.experiment.sweeps
    tried = {name for each in sweeps.values() for name in each.winner.values}
    axes = [name for name in ("lr", "init_std", "dose") if name in tried]
    heads = ("arm", "cells tried", *(f"best {name}" for name in axes), "trial loss", "worst cell")
    rows = []
    for arm, each in sweeps.items():
        best = each.winner
        said = [values_said({name: best.values[name]}).removeprefix(f"{name} ") if name in best.values else NONE
                for name in axes]  # fmt: skip
        worst = max(cell.loss for cell in each.cells)
        last = f"{worst:.3f}" if math.isfinite(worst) else "diverged"
        rows.append((arm, str(len(each.cells)), *said, f"{best.loss:.3f}", last))
    note = "Controls of the baseline take its best cell, and the best dose of their arm."
    others = any(arm not in sweeps for arm in report.experiment.record.choices)
    return Sheet("sweep", "Best cells of the sweep", heads, tuple(rows), note if others else "", drop=("worst cell",))


def nats(found: Estimate) -> str:
    """A loss or a gain with its interval."""
    return with_interval(found, 1, 3, "")
