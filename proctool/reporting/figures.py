"""Static figures with matplotlib (the extra `[report]`): for papers and slides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from proctool.errors import OptionError
from proctool.reporting.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, told apart by colour-blind readers; the baseline is grey.
_COLOURS = ("#5b6470", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#a03c3c")


def figures_available() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def write_figures(report: Report, folder: Path, kind: str = "png") -> list[Path]:
    """Write loss, savings and diagnostics as `kind` (png, svg, pdf) files. Raises OptionError without matplotlib."""
    if not figures_available():
        raise OptionError('figures need matplotlib: pip install "proctool[report]"')
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, draw in _drawings(report).items():
        figure, axes = pyplot.subplots(figsize=(6.4, 4.0), layout="constrained")
        draw(axes)
        axes.spines[["top", "right"]].set_visible(False)
        path = folder / f"{name}.{kind}"
        figure.savefig(path, dpi=160)
        pyplot.close(figure)
        written.append(path)
    return written


def _drawings(report: Report) -> dict[str, Any]:
    drawings: dict[str, Any] = {}
    if report.results:
        drawings["loss"] = lambda axes: _draw_loss(axes, report)
    if any(not each.is_baseline for each in report.results):
        drawings["savings"] = lambda axes: _draw_savings(axes, report)
    for results in report.diagnostics:
        name = results[0].diagnostic
        drawings[name] = lambda axes, name=name: _draw_accuracy(axes, report, name)
    return drawings


def _draw_loss(axes: Axes, report: Report) -> None:
    arms = {
        result.arm: [(run.curve.tokens, run.curve.loss) for run in report.experiment.runs[result.arm].values()]
        for result in report.results
    }
    _draw_lines(axes, arms)
    target = report.results[0].target_loss
    axes.axhline(target, color="#5b6470", linestyle=":", linewidth=1)
    for index, result in enumerate(report.results):
        if result.tokens is not None and not result.is_baseline:
            colour = _colour(index)
            axes.plot(
                result.tokens.value, target, "o", color=colour, markerfacecolor="white", markeredgewidth=2, zorder=5
            )
    last = max(float(x[-1]) for lines in arms.values() for x, _ in lines)
    seen = np.concatenate([y[x >= last / 4] for lines in arms.values() for x, y in lines])
    room = 0.06 * float(np.ptp(seen) or 1)
    axes.set(
        xlabel="corpus tokens", ylabel="held-out loss (nats per token)", ylim=(seen.min() - room, seen.max() + room)
    )


def _draw_accuracy(axes: Axes, report: Report, name: str) -> None:
    scores = report.experiment.scores[name]
    arms = {
        arm: [(np.array(score.tokens), 100 * np.array(score.accuracy)) for score in scores[arm].values()]
        for arm in sorted(scores, key=lambda each: each != report.baseline)
    }
    _draw_lines(axes, arms)
    chance = report.experiment.chance.get(name)
    if chance is not None:
        axes.axhline(100 * chance, color="#5b6470", linestyle=":", linewidth=1)
    axes.set(xlabel="diagnostic tokens", ylabel=f"{name} accuracy (%)", ylim=(0, 102))


def _draw_lines(axes: Axes, arms: Mapping[str, Iterable[tuple[Any, Any]]]) -> None:
    for index, (arm, lines) in enumerate(arms.items()):
        for number, (x, y) in enumerate(lines):
            style = "--" if index == 0 else "-"
            axes.plot(x, y, style, color=_colour(index), linewidth=1.3, label=arm if number == 0 else None)
    axes.legend(frameon=False)
    axes.ticklabel_format(axis="x", style="sci", scilimits=(0, 0), useMathText=True)


def _draw_savings(axes: Axes, report: Report) -> None:
    others = [(index, each) for index, each in enumerate(report.results) if not each.is_baseline]
    for place, (index, result) in enumerate(others):
        saved = result.saved
        if saved is None:
            count = f"in {result.reached} of {len(result.seeds)} seeds" if result.reached else ""
            axes.text(0, place, f" reaches it {count}" if count else " never reaches it", va="center")
            continue
        axes.barh(place, 100 * saved.value, color=_colour(index), height=0.6)
        if saved.low is not None and saved.high is not None:
            axes.plot([100 * saved.low, 100 * saved.high], [place, place], color="black", linewidth=1.5)
    axes.axvline(0, color="#5b6470", linewidth=1)
    axes.set_yticks(range(len(others)), [each.arm for _, each in others])
    axes.set_ylim(len(others) - 0.5, -0.5)
    axes.set_xlabel(f"corpus tokens saved to {report.baseline}'s final loss (%)")


def _colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]
