"""Pictures of heads and distances with matplotlib (the extra `[report]`): for papers and slides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from proctool.evaluation.interpret.course import SHOWN
from proctool.outputs import FIGURE_METADATA

if TYPE_CHECKING:
    from proctool.evaluation.interpret.ablation import Ablation
    from proctool.evaluation.interpret.beside import Panel
    from proctool.evaluation.interpret.course import CoursePoint
    from proctool.evaluation.interpret.distances import Distances
    from proctool.models.head_scores import Heads

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9")  # Okabe and Ito's, as in reports
_MOST_PANELS = 64


def draw(
    heads: Heads, distances: Distances, ablation: Ablation | None, folder: Path, kinds: Sequence[str]
) -> list[Path]:
    """Write figures of heads, attention and, if given, distances and ablation, in each of the formats `kinds`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    figures = {"heads": _scores(heads), "attention": _patterns(heads)}
    if distances.rows:
        figures["distances"] = _distances(distances)
    if ablation is not None:
        figures["ablation"] = _ablation(heads, ablation)
    written = []
    for name, figure in figures.items():
        for kind in kinds:
            written.append(folder / f"{name}.{kind}")
            figure.savefig(written[-1], dpi=160, metadata=FIGURE_METADATA[kind])
        pyplot.close(figure)
    return written


def _scores(heads: Heads) -> Any:
    """One map of layers and heads for each score."""
    from matplotlib import pyplot

    layers, number = heads.induction.shape
    scores = (
        ("induction", heads.induction, "Blues", 0.0),
        ("lookup", heads.lookup, "Oranges", 0.0),
        ("previous token", heads.previous_token, "Greens", 0.0),
        ("normalised entropy", heads.normalised_entropy, "Purples", 0.0),
        ("copying", heads.copying, "RdBu", -1.0),
    )
    panels = [panel for panel in scores if np.isfinite(panel[1]).any()]
    size = (len(panels) * max(2.2, 0.42 * number + 1.2), max(2.0, 0.42 * layers + 1.1))
    figure, grid = pyplot.subplots(1, len(panels), figsize=size, layout="constrained", squeeze=False)
    all_axes = grid[0]
    for axes, (title, values, colours, lowest) in zip(all_axes, panels, strict=True):
        image = axes.imshow(values, cmap=colours, vmin=lowest, vmax=1, aspect="auto")
        axes.set(title=title, xlabel="head", xticks=range(number))
        axes.set_yticks(range(layers), heads.layers)
        axes.tick_params(length=0)
        if layers * number <= 2 * _MOST_PANELS:
            for (layer, head), value in np.ndenumerate(values):
                light = abs(value) > 0.6
                text = "" if np.isnan(value) else f"{value:.2f}"
                axes.text(head, layer, text, ha="center", va="center", fontsize=7, color="white" if light else "black")
        figure.colorbar(image, ax=axes, shrink=0.8)
    all_axes[0].set_ylabel("layer")
    return figure


def draw_course(points: Sequence[CoursePoint], folder: Path, kinds: Sequence[str]) -> list[Path]:
    """Write accuracy over training and, below it, each head's scores, in each of the formats `kinds`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    scores = {name: own for name, own in SHOWN.items() if any(point.best(name) is not None for point in points)}
    height = 1.0 + 1.45 * (1 + len(scores))
    figure, grid = pyplot.subplots(
        1 + len(scores), 1, figsize=(6.4, height), sharex=True, layout="constrained", squeeze=False
    )
    all_axes = grid[:, 0]
    steps = [point.step for point in points]
    all_axes[0].plot(steps, [point.accuracy for point in points], "o-", color="black", markersize=3, linewidth=1.3)
    all_axes[0].set(ylabel="accuracy", ylim=(0, 1.02))
    for axes, (name, own) in zip(all_axes[1:], scores.items(), strict=True):
        rows = [{(row["layer"], row["head"]): row[name] for row in _rows(point, own)} for point in points]
        for layer, head in rows[0]:
            values = [np.nan if (found := row.get((layer, head))) is None else found for row in rows]
            colour, style = _COLOURS[layer % len(_COLOURS)], ("-", "--", ":", "-.")[head % 4]
            axes.plot(steps, values, style, color=colour, linewidth=1.2, label=f"{layer}.{head}")
        axes.set(ylabel=name.replace("_", " ").replace("normalised ", "normalised\n"), ylim=(0, 1.02))
    if scores and len(rows[0]) <= _MOST_PANELS // 4:
        handles, labels = all_axes[-1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8, title="head")
    all_axes[-1].set_xlabel("training step")
    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)
    written = [folder / f"course.{kind}" for kind in kinds]
    for path, kind in zip(written, kinds, strict=True):
        figure.savefig(path, dpi=160, metadata=FIGURE_METADATA[kind])
    pyplot.close(figure)
    return written


def draw_beside(panels: Sequence[Panel], folder: Path, kinds: Sequence[str]) -> list[Path]:
    """Write the attention of two models, a block of heads for each, in the formats `kinds`.

    Rings show where a head should attend.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    shapes = [tuple(min(each, 6) for each in panel.patterns.shape[:2]) for panel in panels]
    size = (2.1 * sum(heads for _, heads in shapes) + 0.8, 2.2 * max(layers for layers, _ in shapes) + 0.6)
    figure = pyplot.figure(figsize=size, layout="constrained")
    parts = figure.subfigures(1, len(panels), width_ratios=[heads for _, heads in shapes], wspace=0.04)
    for part, panel, shape in zip(parts, panels, shapes, strict=True):
        part.suptitle(panel.title, fontsize=10)
        rows, columns = panel.marks.nonzero()
        for (layer, head), axes in np.ndenumerate(part.subplots(*shape, squeeze=False)):
            pattern = panel.patterns[layer, head]
            axes.imshow(pattern, cmap="Greys", vmin=0, vmax=max(0.3, pattern[4:].max()), interpolation="nearest")
            axes.plot(
                columns, rows, "o", markersize=3.4, markerfacecolor="none", color=_COLOURS[1], markeredgewidth=0.8
            )
            axes.set_title(f"{panel.layers[layer]}.{head}", fontsize=8, pad=2)
            places = range(len(panel.words))
            axes.set_xticks(places, panel.words if layer == shape[0] - 1 else [], fontsize=4, rotation=90)
            axes.set_yticks(places, panel.words if head == 0 else [], fontsize=4)
            axes.tick_params(length=0, pad=1)
    written = [folder / f"beside.{kind}" for kind in kinds]
    for path, kind in zip(written, kinds, strict=True):
        figure.savefig(path, dpi=200, metadata=FIGURE_METADATA[kind])
    pyplot.close(figure)
    return written


def _rows(point: CoursePoint, own: bool) -> Sequence[dict[str, Any]]:
    return point.own if own else point.repeated


def _patterns(heads: Heads) -> Any:
    """Attention on the first sample, from row to column, one panel per head; lines show where repeats start."""
    from matplotlib import pyplot

    layers, number = min(heads.patterns.shape[0], 12), min(heads.patterns.shape[1], 12)
    size = (1.5 * number + 0.6, 1.6 * layers + 0.5)
    figure, grid = pyplot.subplots(layers, number, figsize=size, layout="constrained", squeeze=False)
    for (layer, head), axes in np.ndenumerate(grid):
        axes.imshow(heads.patterns[layer, head], cmap="magma_r", vmin=0, vmax=1, interpolation="nearest")
        for turn in range(1, heads.probe.repeats or 1):
            axes.axhline(turn * (heads.probe.length or 0) - 0.5, color="#5b6470", linewidth=0.5)
            axes.axvline(turn * (heads.probe.length or 0) - 0.5, color="#5b6470", linewidth=0.5)
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"{heads.layers[layer]}.{head}", fontsize=8, pad=2)
    figure.supxlabel("attended token", fontsize=8)
    figure.supylabel("attending token", fontsize=8)
    return figure


def _ablation(heads: Heads, ablation: Ablation) -> Any:
    """Entropy of each head against the loss without it; accuracy as heads are removed, one line per order."""
    from matplotlib import pyplot

    figure, (single, curves) = pyplot.subplots(1, 2, figsize=(8.4, 3.2), layout="constrained")
    for row, layer in enumerate(heads.layers):
        colour = _COLOURS[row % len(_COLOURS)]
        for head, entropy in enumerate(heads.entropy[row]):
            rise = ablation.single[layer, head].loss - ablation.whole.loss
            single.plot(entropy, rise, "o", color=colour, markersize=5)
            if heads.entropy.size <= _MOST_PANELS:
                single.annotate(f"{layer}.{head}", (entropy, rise), (4, 3), textcoords="offset points", fontsize=7)
    single.axhline(0, color="#5b6470", linewidth=0.6)
    single.set(xlabel="entropy of attention (nats)", ylabel="rise in loss without the head")
    colours = {"lowest entropy": _COLOURS[1], "highest entropy": _COLOURS[0], "random": "#9aa3ad"}
    for order in reversed(ablation.removals):
        label = f"{order.order} first" if order.seed is None else "random order"
        points = [(each.removed, each.accuracy) for each in order.curve]
        curves.plot(
            *zip(*points, strict=True), "o-", color=colours[order.order], markersize=3, linewidth=1.3, label=label
        )
    named = dict(zip(*reversed(curves.get_legend_handles_labels()), strict=True))
    curves.legend(named.values(), named.keys(), frameon=False, fontsize=8)
    curves.set(xlabel="heads removed", ylabel="accuracy", ylim=(0, None))
    for axes in (single, curves):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _distances(distances: Distances) -> Any:
    """Relative distance and cosine by layer, one line per component, one row per other model."""
    from matplotlib import pyplot

    rows = [row for row in distances.rows if row["layer"] is not None]
    labels = list(dict.fromkeys(row["against"] for row in rows))
    components = list(dict.fromkeys(row["component"] for row in rows))
    measures: list[tuple[str, str]] = [("relative", "relative distance"), ("cosine", "cosine")]
    if any(row.get("kept") is not None for row in rows):
        measures.append(("kept", "share of the change kept"))
    size = (3.0 * len(measures) + 0.4, 2.4 * len(labels) + 0.4)
    figure, grid = pyplot.subplots(len(labels), len(measures), figsize=size, layout="constrained", squeeze=False)
    for axes_row, label in zip(grid, labels, strict=True):
        for axes, (measure, words) in zip(axes_row, measures, strict=True):
            for component, colour in zip(components, _COLOURS, strict=False):
                points = _points(rows, label, component, measure)
                if points[0]:
                    axes.plot(*points, "o-", color=colour, markersize=4, linewidth=1.3, label=component)
            if not axes.lines:
                axes.remove()
                continue
            axes.set(title=f"{words}, from {label}", xlabel="layer", ylim=_limits(axes, measure))
            axes.set_xticks(sorted({row["layer"] for row in rows}))
            axes.title.set_fontsize(9)
            axes.spines[["top", "right"]].set_visible(False)
    next(axes for axes in grid.flat if axes.lines).legend(frameon=False, fontsize=8)
    return figure


def _points(rows: Sequence[dict[str, Any]], label: str, component: str, measure: str) -> tuple[list[int], list[float]]:
    chosen = [row for row in rows if row["against"] == label and row["component"] == component]
    known = [row for row in chosen if row.get(measure) is not None]
    return [row["layer"] for row in known], [row[measure] for row in known]


def _limits(axes: Any, measure: str) -> tuple[float, float]:
    low, high = axes.get_ylim()
    return (min(0.0, low), max(1.05, high)) if measure != "relative" else (0.0, high)
