"""Static figures with matplotlib (the extra `[report]`): for papers and slides.

Arms differ in colour (Okabe and Ito's palette, safe for colour-blind readers), line style and marker, so that a figure
printed in grey is readable. Bands show the range over seeds; whiskers are 95 % intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from proctool.errors import OptionError, naming
from proctool.outputs import FIGURE_METADATA
from proctool.reporting.gain_figures import draw_arms, draw_gains, draw_ladder, has_gains, in_curves, ranked
from proctool.reporting.interval import Estimate
from proctool.reporting.looks import (
    COLOURS,
    GREY,
    HATCHES,
    LEGEND_INSIDE,
    LINES,
    MARKERS,
    colour_of,
    legend,
    look_of,
    marker_of,
    whisker,
)
from proctool.reporting.report import Report
from proctool.reporting.substitution import Substitution
from proctool.reporting.sweep_figures import draw_doses, draw_rates, has_doses, has_rates

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    Draw = Callable[[list[Axes]], None]

KINDS = ("png", "svg", "pdf")
_STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # text stays text
    "svg.fonttype": "none",
    "svg.hashsalt": "proctool",  # the same numbers give the same file
    "hatch.linewidth": 0.6,
}


def figures_available() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def figure_kinds(written: str | None) -> tuple[str, ...]:
    """The kinds in `png,svg,pdf` or `none`; by default png if matplotlib is installed. Raises OptionError."""
    if written is None:
        return ("png",) if figures_available() else ()
    kinds = tuple(dict.fromkeys(each.strip().lower() for each in written.split(",")))
    if kinds == ("none",):
        return ()
    for kind in kinds:
        if kind not in KINDS:
            raise OptionError(f'figures: unknown format "{kind}"; use {", ".join(KINDS)} or none')
    if not figures_available():
        raise OptionError('figures: matplotlib is not installed; run pip install "proctool[report]"')
    return kinds


def figure_paths(report: Report, folder: Path, kinds: Sequence[str]) -> list[Path]:
    """The files that `write_figures` writes."""
    return [folder / f"{name}.{kind}" for name in (_drawings(report) if kinds else ()) for kind in kinds]


def write_figures(report: Report, folder: Path, kinds: Sequence[str] = ("png",)) -> list[Path]:
    """Write curves, savings, the substitutive curve and diagnostics in each of the formats `kinds`; returns the paths.

    Raises OptionError without matplotlib, OSError.
    """
    if not kinds:
        return []
    if not figures_available():
        raise OptionError('figures: matplotlib is not installed; run pip install "proctool[report]"')
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with pyplot.rc_context(_STYLE):
        for name, (panels, size, draw) in _drawings(report).items():
            figure, axes = pyplot.subplots(1, panels, figsize=size, layout="constrained", sharey=True, squeeze=False)
            draw(list(axes[0]))
            for kind in kinds:
                path = folder / f"{name}.{kind}"
                with naming(path):
                    figure.savefig(path, dpi=180, metadata=FIGURE_METADATA.get(kind))
                written.append(path)
            pyplot.close(figure)
    return written


def _drawings(report: Report) -> dict[str, tuple[int, tuple[float, float], Draw]]:
    """By file name: the number of panels side by side, width and height in inches, and the drawing function."""
    many = len(report.experiment.arms) > LEGEND_INSIDE
    curves = (7.4, 3.8) if many else (5.6, 3.6)
    drawings: dict[str, tuple[int, tuple[float, float], Draw]] = {}
    others = [each for each in report.results if not each.is_baseline]
    if report.results:
        drawings["loss"] = (1, curves, partial(_draw_loss, report))
    if len(ranked(report)) > 1:
        drawings["arms"] = (1, (5.6, 1.1 + 0.25 * len(ranked(report))), partial(draw_arms, report))
    if any(each.saved is not None for each in others):
        drawings["savings"] = (1, (5.6, 1.1 + 0.3 * len(others)), partial(_draw_savings, report))
    if _exchanges(report):
        drawings["substitution"] = (1, (5.6, 3.6), partial(_draw_substitution, report))
    if report.diagnostics:
        panels = len(report.diagnostics)
        arms = len({each.arm for group in report.diagnostics for each in group})
        size = (1.6 + 2.4 * max(panels, 1.5), 1.0 + 0.3 * arms)
        drawings["diagnostics"] = (panels, size, partial(_draw_diagnostics, report))
    if has_gains(report):
        drawings["gain"] = (1, curves, partial(draw_gains, report))
    if report.ladders:
        drawings["ladder"] = (1, curves, partial(draw_ladder, report))
    if has_rates(report):
        drawings["rate-sensitivity"] = (1, curves, partial(draw_rates, report))
    if has_doses(report):
        drawings["dose-response"] = (1, curves, partial(draw_doses, report))
    for results in report.diagnostics:
        name = results[0].diagnostic
        drawings[f"curve-{name}"] = (1, curves, partial(_draw_accuracy, report, name))
    return drawings


def _draw_loss(report: Report, panels: list[Axes]) -> None:
    (axes,) = panels
    arms = {
        each.arm: [(run.curve.tokens, run.curve.loss) for run in report.experiment.runs[each.arm].values()]
        for each in in_curves(report)
    }
    _draw_curves(axes, arms, report)
    target = report.results[0].target_loss
    axes.axhline(target, color=GREY, linestyle=":", linewidth=1)
    for result in in_curves(report):
        look: dict[str, Any] = {"marker": marker_of(report, result.arm), "color": colour_of(report, result.arm)}
        budgets = [run.by_budget for run in report.experiment.runs[result.arm].values() if run.by_budget is not None]
        if budgets and not result.is_baseline:
            axes.plot(budgets[0].tokens, np.mean([each.loss for each in budgets], axis=0), linestyle="", **look)
        if result.tokens is not None and not result.is_baseline:
            axes.plot(result.tokens.value, target, markerfacecolor="white", markeredgewidth=1.6, zorder=5, **look)
    last = max(float(x[-1]) for lines in arms.values() for x, _ in lines)
    seen = np.concatenate([y[x >= last / 4] for lines in arms.values() for x, y in lines])
    room = 0.06 * float(np.ptp(seen) or 1)
    axes.set(
        xlabel="corpus tokens", ylabel="validation loss (nats per token)", ylim=(seen.min() - room, seen.max() + room)
    )
    axes.set_xlim(left=0)


def _draw_accuracy(report: Report, name: str, panels: list[Axes]) -> None:
    (axes,) = panels
    scores = report.experiment.scores[name]
    arms = {
        arm: [(np.array(score.tokens, float), 100 * np.array(score.accuracy)) for score in scores[arm].values()]
        for arm in report.experiment.arms
        if arm in scores
    }
    _draw_curves(axes, arms, report)
    chance = report.experiment.chance.get(name)
    if chance is not None:
        axes.axhline(100 * chance, color=GREY, linestyle=":", linewidth=1)
        axes.annotate("guessing", (0.01, 100 * chance), xycoords=("axes fraction", "data"), ha="left", va="bottom",
                      color=GREY, fontsize=8)  # fmt: skip
    axes.set(xlabel="diagnostic tokens", ylabel=f"{name} accuracy (%)", ylim=(0, 102))


def _draw_curves(
    axes: Axes, arms: Mapping[str, Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]], report: Report
) -> None:
    """The mean over seeds with the band of all seeds; separate lines if seeds were measured at different tokens."""
    for arm, lines in arms.items():
        colour = colour_of(report, arm)
        look: dict[str, Any] = {"color": colour, "linestyle": look_of(LINES, report, arm), "linewidth": 1.5}
        marker = marker_of(report, arm) or ("." if any(len(x) == 1 for x, _ in lines) else None)  # a point is no line
        look |= {"marker": marker, "markersize": 3.5, "markevery": 0.13}
        first = lines[0][0]
        if all(len(x) == len(first) and np.array_equal(x, first) for x, _ in lines):
            values = np.stack([y for _, y in lines])  # (seeds, n)
            axes.plot(first, values.mean(0), label=arm, **look)
            if len(lines) > 1:
                axes.fill_between(first, values.min(0), values.max(0), color=colour, alpha=0.18, linewidth=0)
        else:
            for number, (x, y) in enumerate(lines):
                axes.plot(x, y, label=arm if number == 0 else None, **look)
    legend(axes, len(arms))
    axes.ticklabel_format(axis="x", style="sci", scilimits=(0, 0), useMathText=True)


def _draw_savings(report: Report, panels: list[Axes]) -> None:
    (axes,) = panels
    others = [each for each in report.results if not each.is_baseline]
    for place, result in enumerate(others):
        saved = result.saved
        if saved is None:
            count = f" in {result.reached} of {len(result.seeds)} seeds"
            axes.text(0, place, f" reached{count}" if result.reached else " never reached", va="center")
            continue
        _bar(axes, report, result.arm, place, 100 * saved.value)
        whisker(axes, saved, place, across=True)
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set_yticks(range(len(others)), [each.arm for each in others])
    axes.set_ylim(len(others) - 0.5, -0.5)
    given = report.results[0].given_loss
    target = f"a loss of {report.results[0].target_loss:.3f}" if given else f"{report.baseline}'s final loss"
    axes.set_xlabel(f"corpus tokens saved to {target} (%)")


def _draw_diagnostics(report: Report, panels: list[Axes]) -> None:
    """A panel for each diagnostic, a bar for each arm; the dotted line is guessing."""
    measured = {each.arm for group in report.diagnostics for each in group}
    arms = [arm for arm in report.experiment.arms if arm in measured]
    for axes, results in zip(panels, report.diagnostics, strict=True):
        for found in results:
            at = arms.index(found.arm)
            _bar(axes, report, found.arm, at, 100 * found.accuracy.value)
            whisker(axes, found.accuracy, at, across=True)
        if results[0].chance is not None:
            axes.axvline(100 * results[0].chance, color="black", linestyle=":", linewidth=1)
        axes.set(xlabel=f"{results[0].diagnostic} accuracy (%)", xlim=(0, 102))
    panels[0].set_yticks(range(len(arms)), arms)
    panels[0].set_ylim(len(arms) - 0.5, -0.5)


def _bar(axes: Axes, report: Report, arm: str, at: float, value: float) -> None:
    look: dict[str, Any] = {
        "color": colour_of(report, arm),
        "hatch": look_of(HATCHES, report, arm),
        "edgecolor": "black",
    }
    axes.barh(at, value, height=0.7, linewidth=0.6, alpha=0.85, **look)
    if abs(value) < 0.5:  # too short to be seen
        axes.text(0, at, f" {value:.2g} %", va="center", fontsize=8)


def _exchanges(report: Report) -> list[tuple[Substitution, list[tuple[float, Estimate]]]]:
    """Each curve of several lengths with (procedural tokens, corpus tokens needed) where the loss was reached."""
    curves = [
        (curve, [(point.procedural, point.corpus) for point in curve.points if point.corpus is not None])
        for curve in report.substitutions
        if curve.has_lengths
    ]
    return [(curve, points) for curve, points in curves if points]


def _draw_substitution(report: Report, panels: list[Axes]) -> None:
    """Corpus tokens needed against procedural tokens spent, from the baseline's point on."""
    (axes,) = panels
    curves = _exchanges(report)
    for index, (curve, points) in enumerate(curves):
        look = {"color": COLOURS[1 + index % 7], "linestyle": LINES[1 + index % 5], "linewidth": 1.5}
        x = [0.0, *(at for at, _ in points)]
        y = [curve.corpus_alone.value, *(corpus.value for _, corpus in points)]
        axes.plot(x, y, marker=MARKERS[1 + index % 9], markersize=5, label=curve.points[-1].arm, **look)
        for at, corpus in points:
            whisker(axes, corpus, at, across=False, scale=1.0)
        axes.axhline(curve.corpus_alone.value, color=GREY, linestyle=":", linewidth=1)
    axes.set(xlabel="procedural tokens", ylabel="corpus tokens needed for the same loss", ylim=(0, None))
    axes.ticklabel_format(style="sci", scilimits=(0, 0), useMathText=True)
    legend(axes, len(curves))
