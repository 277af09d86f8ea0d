"""Figures of gains: during training, and against the size of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from proctool.reporting.compare import ArmResult
from proctool.reporting.interval import Estimate, estimate
from proctool.reporting.looks import GREY, LINES, colour_of, legend, look_of, marker_of, whisker
from proctool.reporting.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def gain_curve(report: Report, result: ArmResult) -> list[tuple[float, Estimate]]:
    """The gain of an arm during training, at the measurements that all runs share: (corpus tokens, gain by seed)."""
    runs = [(report.experiment.runs[report.baseline][seed], report.experiment.runs[result.arm][seed])
            for seed in result.seeds]  # fmt: skip
    if not runs:
        return []
    last = min(run.curve.end for pair in runs for run in pair)
    first = max(float(run.curve.tokens[0]) for pair in runs for run in pair)
    at = [float(tokens) for tokens in runs[0][1].curve.tokens if max(first, 1) <= tokens <= last]
    return [
        (tokens, estimate([base.curve.loss_at(tokens) - arm.curve.loss_at(tokens) for base, arm in runs]))
        for tokens in at
    ]


def has_gains(report: Report) -> bool:
    """Whether an arm has gains at several points of training."""
    return any(len(gain_curve(report, each)) > 1 for each in report.results if not each.is_baseline)


def draw_gains(report: Report, panels: list[Axes]) -> None:
    """A line per arm: its gain during training, with the band of 95 % intervals over seeds."""
    (axes,) = panels
    shown = 0
    for result in report.results:
        curve = [] if result.is_baseline else gain_curve(report, result)
        if len(curve) < 2:
            continue
        shown += 1
        tokens, look = [at for at, _ in curve], _look(report, result.arm)
        axes.plot(tokens, [gain.value for _, gain in curve], label=result.arm, markevery=0.13, **look)
        banded = [(at, gain.low, gain.high) for at, gain in curve if gain.low is not None and gain.high is not None]
        if banded:
            at, low, high = (np.array(each) for each in zip(*banded, strict=True))
            axes.fill_between(at, low, high, color=look["color"], alpha=0.15, linewidth=0)
    axes.axhline(0, color=GREY, linestyle=":", linewidth=1)
    axes.set(xlabel="corpus tokens", ylabel=f"gain over {report.baseline} (nats per token)")
    axes.set_xlim(left=0)
    axes.ticklabel_format(axis="x", style="sci", scilimits=(0, 0), useMathText=True)
    legend(axes, shown)


def draw_ladder(report: Report, panels: list[Axes]) -> None:
    """A line per arm: its gain at each size of the model; the expectation at the target has a white marker."""
    (axes,) = panels
    target = report.experiment.record.target
    for place, each in enumerate(report.ladders):
        look = _look(report, each.arm)
        aside = 1.02 ** (place - (len(report.ladders) - 1) / 2)  # so that whiskers at the same size are all seen
        sizes = [aside * rung.parameters for rung in each.rungs]
        axes.plot(sizes, [rung.gain.value for rung in each.rungs], label=each.arm, **look)
        for size, rung in zip(sizes, each.rungs, strict=True):
            whisker(axes, rung.gain, size, across=False, scale=1.0, color=look["color"])
        if target is not None and each.expected is not None:
            at = aside * target.parameters
            ends: dict[str, Any] = {"color": look["color"], "linewidth": 0.8, "linestyle": ":"}
            axes.plot([sizes[-1], at], [each.rungs[-1].gain.value, each.expected.value], **ends)
            axes.plot(at, each.expected.value, **look | {"markerfacecolor": "white", "marker": look["marker"] or "o"})
            whisker(axes, each.expected, at, across=False, scale=1.0, color=look["color"])
    axes.axhline(0, color=GREY, linestyle=":", linewidth=1)
    axes.set_xscale("log")
    axes.set(xlabel="parameters without embeddings", ylabel=f"gain over {report.baseline} (nats per token)")
    legend(axes, len(report.ladders))


def _look(report: Report, arm: str) -> dict[str, Any]:
    look = {"color": colour_of(report, arm), "linestyle": look_of(LINES, report, arm), "linewidth": 1.5}
    return look | {"marker": marker_of(report, arm), "markersize": 4.5}
