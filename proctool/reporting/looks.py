"""How arms look in figures: colour, line style, marker and hatch, so that they differ in print too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from proctool.reporting.interval import Estimate
from proctool.reporting.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#5b6470", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#a03c3c")
GREY = COLOURS[0]
# Cycles of different lengths, so that arms after the eighth differ too; the baseline has the first of each.
LINES: tuple[Any, ...] = ("--", "-", "-.", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 1)))
MARKERS = ("", "o", "s", "^", "D", "v", "P", "X", "<", "*")
HATCHES = ("", "///", "...", "xxx", "\\\\\\", "++", "oo", "---", "|||")
LEGEND_INSIDE = 5
"""With more arms than this, the legend is below the axes, in columns."""
_LEGEND_FONT, _LEGEND_LINE, _LEGEND_SAMPLE = 7.5, 0.17, 0.75
"""Points; inches of a line, and of the sample before a name with the space around both."""


def legend(axes: Axes, entries: int) -> None:
    """A legend. With many entries it is below the axes, in as many columns as fit, and the figure grows by it."""
    if entries <= LEGEND_INSIDE:
        axes.legend(handlelength=3)
        return
    figure: Any = axes.figure
    handles, labels = axes.get_legend_handles_labels()
    column = _LEGEND_SAMPLE + 0.6 * _LEGEND_FONT / 72 * max(map(len, labels))
    columns = max(1, int(figure.get_figwidth() / column))
    figure.set_figheight(figure.get_figheight() + _LEGEND_LINE * (1 + -(-len(labels) // columns)))
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, fontsize=_LEGEND_FONT, handlelength=3
    )  # fmt: skip


def whisker(axes: Axes, found: Estimate, at: float, across: bool, scale: float = 100.0, color: str = "black") -> None:
    """The interval of an estimate at a place of the other axis; nothing without an interval."""
    if found.low is None or found.high is None:
        return
    ends = [scale * found.low, scale * found.high]
    axes.plot(
        ends if across else [at, at], [at, at] if across else ends, color=color, linewidth=1.2,
        marker="|" if across else "_", markersize=5,
    )  # fmt: skip


def look_of(cycle: Sequence[Any], report: Report, arm: str) -> Any:
    """The arm's entry of a cycle; the first entry is only for the baseline."""
    known = list(dict.fromkeys([*report.experiment.arms, *report.experiment.sweeps]))
    place = known.index(arm)
    return cycle[0] if arm == report.baseline else cycle[1 + (place - 1) % (len(cycle) - 1)]


def colour_of(report: Report, arm: str) -> str:
    """The arm's colour."""
    return str(look_of(COLOURS, report, arm))


def marker_of(report: Report, arm: str) -> str:
    """The arm's marker; none for the baseline."""
    return str(look_of(MARKERS, report, arm))
