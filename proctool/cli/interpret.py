"""`proctool eval interpret`: scores of attention heads, ablations, and weight distances."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from proctool.cli import display
from proctool.cli.options import Common, argument, with_options
from proctool.cli.training import quiet_libraries
from proctool.evaluation.interpret.course import SHOWN, CoursePoint
from proctool.evaluation.interpret.options import PICTURES, InterpretOptions
from proctool.outputs import Output, reads_of, require_safe


def _interpret(options: InterpretOptions, common: Common, model: Path) -> None:
    quiet_libraries()
    from proctool.evaluation.interpret import interpret_model, interpret_run, is_run

    if options.figures is not None:
        pictures = [options.figures / f"{name}.{kind}" for name in PICTURES for kind in options.kind]
        outputs = [Output(each, "--figures", "figure", makes_folder=True) for each in pictures]
        require_safe(outputs, reads_of(options, model=model))
    if is_run(model):
        _course(interpret_run(model, options), common)
        return
    result = interpret_model(model, options)
    results = display.Results(json=common.json)
    _heads(results, result)
    results.line(f"{model}: {_losses(result)}")
    if "ablation" in result:
        _ablation(results, result["ablation"])
    if result["distances"]:
        results.table(
            {"against": "left", "layer": "right", "component": "left", "relative": "right", "cosine": "right",
             "spectral": "right", "kept": "right"},
            [
                [row["against"], row["layer"], row["component"],
                 *(_rounded(row.get(measure)) for measure in ("relative", "cosine", "spectral", "kept"))]
                for row in result["distances"]
            ],
        )  # fmt: skip
    for label, names in result["not_compared"].items():
        if names:
            display.say(f"not compared with {label}, because the shapes differ: {', '.join(names)}")
    for path in result.get("figures", []):
        display.say(f"figure: {path}")
    results.emit(result)


def _course(result: dict[str, Any], common: Common) -> None:
    results = display.Results(json=common.json)
    points = [CoursePoint(**each) for each in result["course"]]
    names = {name: f"{'lowest' if name.endswith('entropy') else 'highest'} {name.replace('_', ' ')}" for name in SHOWN}
    results.table(
        dict.fromkeys(["step", "accuracy", *names.values()], "right"),
        [[point.step, f"{point.accuracy:.1%}", *(_best(point, name) for name in names)] for point in points],
    )
    for path in result.get("figures", []):
        display.say(f"figure: {path}")
    results.emit(result)


def _best(point: CoursePoint, name: str) -> str | None:
    row = point.best(name)
    return None if row is None else f"{row[name]:.3f} ({row['layer']}.{row['head']})"


def _heads(results: display.Results, result: dict[str, Any]) -> None:
    names = ("induction", "lookup", "previous_token", "entropy", "normalised_entropy", "copying")
    removed = {(row["layer"], row["head"]): row for row in result.get("ablation", {}).get("heads", [])}
    columns = [*(name.replace("_", " ") for name in names), *(["loss without"] if removed else [])]
    rows = []
    for row in result["heads"]:
        without = [removed[row["layer"], row["head"]]["loss"]] if removed else []
        rows.append([row["layer"], row["head"], *map(_rounded, [*(row[name] for name in names), *without])])
    blank = [None] if removed else []
    rows.append(["uniform", "", *map(_rounded, [*(result["even"].get(name) for name in names), *blank])])
    results.table(
        dict.fromkeys(["layer", "head", *columns], "right"), rows,
        drop=("entropy", "normalised entropy", "previous token", "copying"),
    )  # fmt: skip


def _losses(result: dict[str, Any]) -> str:
    if result["loss_first"] is None:
        return f"{result['samples']}: loss {result['loss']:.3f}, accuracy {result['accuracy']:.1%}"
    first, later = result["loss_first"], result["loss_repeated"]
    return f"{result['samples']}: loss {first:.3f} on the first pass, {later:.3f} on repeats"


def _ablation(results: display.Results, ablation: dict[str, Any]) -> None:
    counts = [point["removed"] for point in ablation["orders"][0]["curve"]]
    shown = sorted({round(each) for each in np.linspace(0, len(counts) - 1, min(len(counts), 9))})
    results.table(
        {"heads removed": "left", **{str(counts[each]): "right" for each in shown}, "mean": "right"},
        [
            [
                _order(each),
                *(f"{each['curve'][at]['accuracy']:.1%}" for at in shown),
                f"{each['mean_accuracy']:.1%}",
            ]
            for each in ablation["orders"]
        ],
        title=f"accuracy; the output of a removed head is {'zero' if ablation['by'] == 'zero' else 'its mean'}",
    )
    if ablation["entropy_and_rise_of_loss"] is not None:
        results.line(
            "rank correlation between a head's entropy and the rise in loss without the head: "
            f"{ablation['entropy_and_rise_of_loss']:.2f}"
        )


def _order(removal: dict[str, Any]) -> str:
    return f"random, seed {removal['seed']}" if removal["order"] == "random" else f"{removal['order']} first"


def _rounded(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


_model = argument("model", Path, "A model artifact, a Hugging Face folder, or a run folder with heads.")
interpret = with_options(InterpretOptions, _interpret, arguments=[_model], dry_run=False)
