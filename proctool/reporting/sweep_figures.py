"""Figures of a sweep: trial loss against the learning rate, and what an arm gains against its dose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from proctool.reporting.interval import Estimate, estimate
from proctool.reporting.looks import GREY, LINES, colour_of, legend, look_of, marker_of, whisker
from proctool.reporting.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class DoseCurve:
    """One arm: (procedural tokens, gain over the baseline in nats per token), rising in tokens."""

    arm: str
    points: tuple[tuple[float, Estimate], ...]


def has_rates(report: Report) -> bool:
    """Whether an arm has finite losses at several learning rates."""
    return any(len(sweep.along("lr")) > 1 for sweep in report.experiment.sweeps.values())


def draw_rates(report: Report, panels: list[Axes]) -> None:
    """A line per arm: the lowest trial loss at each learning rate. The chosen rate has a white marker."""
    (axes,) = panels
    shown = 0
    for arm, sweep in report.experiment.sweeps.items():
        points = sweep.along("lr")
        if len(points) < 2:
            continue
        shown += 1
        look = _look(report, arm)
        rates, losses = [rate for rate, _ in points], [cell.loss for _, cell in points]
        axes.plot(rates, losses, label=arm, **look)
        for rate, cell in points:
            if len(cell.losses) > 1:
                axes.plot([rate, rate], [min(cell.losses), max(cell.losses)], color=look["color"], linewidth=0.8)
        best = sweep.winner
        white: dict[str, Any] = {"markerfacecolor": "white", "markeredgewidth": 1.6, "zorder": 5}
        axes.plot(best.values["lr"], best.loss, **look | white | {"marker": marker_of(report, arm) or "o"})
    axes.set_xscale("log")
    axes.set(xlabel="peak learning rate", ylabel="loss of the trials (nats per token)")
    legend(axes, shown)


def dose_curves(report: Report) -> list[DoseCurve]:
    """Gains by dose: of arms with several amounts, and of the trials of arms that a sweep gave several doses."""
    return [each for each in (*_amounts(report), *_trials(report)) if len(each.points) > 1]


def has_doses(report: Report) -> bool:
    """Whether an arm has gains at several doses."""
    return bool(dose_curves(report))


def _amounts(report: Report) -> Iterator[DoseCurve]:
    gains = {each.arm: each.gain for each in report.results if not each.is_baseline}
    for curve in report.substitutions:
        points = tuple((point.procedural, gains[point.arm]) for point in curve.points if point.arm in gains)
        if points and all(tokens > 0 for tokens, _ in points):
            yield DoseCurve(curve.points[-1].arm, points)


def _trials(report: Report) -> Iterator[DoseCurve]:
    base = report.experiment.sweeps.get(report.baseline)
    if base is None:
        return
    for arm, sweep in report.experiment.sweeps.items():
        if sweep.seeds == base.seeds:
            losses = {dose: cell.losses for dose, cell in sweep.along("dose")}
            yield DoseCurve(
                arm,
                tuple(
                    (dose, estimate([alone - mine for alone, mine in zip(base.winner.losses, found, strict=True)]))
                    for dose, found in losses.items()
                ),
            )


def draw_doses(report: Report, panels: list[Axes]) -> None:
    """A line per arm: the gain over the baseline against procedural tokens; whiskers are 95 % intervals over seeds."""
    (axes,) = panels
    curves = dose_curves(report)
    for place, curve in enumerate(curves):
        look = _look(report, curve.arm)
        aside = 1.02 ** (place - (len(curves) - 1) / 2)  # so that whiskers at the same dose are all seen
        doses = [aside * dose for dose, _ in curve.points]
        axes.plot(doses, [gain.value for _, gain in curve.points], label=curve.arm, **look)
        for dose, (_, gain) in zip(doses, curve.points, strict=True):
            whisker(axes, gain, dose, across=False, scale=1.0, color=look["color"])
    axes.axhline(0, color=GREY, linestyle=":", linewidth=1)
    axes.set_xscale("log")
    axes.set(xlabel="procedural tokens", ylabel=f"gain over {report.baseline} (nats per token)")
    legend(axes, len(curves))


def _look(report: Report, arm: str) -> dict[str, Any]:
    look = {"color": colour_of(report, arm), "linestyle": look_of(LINES, report, arm), "linewidth": 1.5}
    return look | {"marker": marker_of(report, arm) or ".", "markersize": 4.5}
