"""Figures of gains: at the end, during training, and against the size of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from proctool.reporting.compare import ArmResult, gains_by_seed
from proctool.reporting.interval import Estimate, estimate
from proctool.reporting.looks import COLOURS, GREY, LINES, colour_of, legend, look_of, marker_of, whisker
from proctool.reporting.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_CURVES = 8
"""Curves in a figure; more cannot be told apart."""


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


def ranked(report: Report) -> list[ArmResult]:
    """The arms with a gain at the end, the highest gain first; arms with more corpus instead of a warm-up have none."""
    found = [each for each in report.results if not each.is_baseline and _kind(report, each.arm) != "longer"]
    return sorted(found, key=lambda each: -each.gain.value)


def draw_arms(report: Report, panels: list[Axes]) -> None:
    """A row per arm: its gain at the end with its interval, and a dot per seed; controls are white squares."""
    (axes,) = panels
    runs, shown = report.experiment.runs, ranked(report)
    for place, result in enumerate(shown):
        control = _kind(report, result.arm) is not None
        colour = COLOURS[2] if control else COLOURS[1]
        gains = list(gains_by_seed(runs[report.baseline], runs[result.arm]).values())
        axes.plot(gains, [place] * len(gains), ".", color=GREY, markersize=3, alpha=0.7)
        look: dict[str, Any] = {"color": colour, "markerfacecolor": "white" if control else colour, "markersize": 5.5}
        whisker(axes, result.gain, place, across=True, scale=1.0, color=colour)
        axes.plot(result.gain.value, place, "s" if control else "o", label="control" if control else "warm-up", **look)
    axes.axvline(0, color=GREY, linestyle=":", linewidth=1)
    axes.set_yticks(range(len(shown)), [each.arm for each in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlabel(f"gain over {report.baseline} at the end (nats per token; right: better)")
    handles, labels = axes.get_legend_handles_labels()
    entries = dict(zip(labels, handles, strict=True))
    if len(entries) > 1:
        axes.legend(entries.values(), entries.keys(), fontsize=8)


def _kind(report: Report, arm: str) -> str | None:
    start = report.experiment.starts.get(arm)
    return start.control if start else None


def draw_gains(report: Report, panels: list[Axes]) -> None:
    """A line per arm: its gain during training, with the band of 95 % intervals over seeds."""
    (axes,) = panels
    shown = 0
    for result in in_curves(report):
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


def in_curves(report: Report) -> list[ArmResult]:
    """The arms that figures of curves show: all, or of many the baseline and those with the highest gains."""
    if len(report.results) <= MOST_CURVES:
        return report.results
    best = {each.arm for each in ranked(report)[: MOST_CURVES - 1]}
    return [each for each in report.results if each.is_baseline or each.arm in best]


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
