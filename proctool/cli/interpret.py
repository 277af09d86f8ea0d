"""`proctool eval interpret`: heads and weight distances."""

from __future__ import annotations

from pathlib import Path

from proctool.cli import display
from proctool.cli.options import Common, argument, with_options
from proctool.cli.training import quiet_libraries
from proctool.evaluation.interpret.options import PICTURES, InterpretOptions
from proctool.outputs import Output, reads_of, require_safe


def _interpret(options: InterpretOptions, common: Common, model: Path) -> None:
    quiet_libraries()
    from proctool.evaluation.interpret import interpret_model

    if options.figures is not None:
        pictures = [options.figures / f"{name}.{kind}" for name in PICTURES for kind in options.kind]
        outputs = [Output(each, "--figures", "figure", makes_folder=True) for each in pictures]
        require_safe(outputs, reads_of(options, model=model))
    result = interpret_model(model, options)
    results, even = display.Results(json=common.json), result["even"]
    results.table(
        {"layer": "right", "head": "right", "induction": "right", "previous token": "right", "copying": "right"},
        [
            *(
                [row["layer"], row["head"], *map(_rounded, (row["induction"], row["previous_token"], row["copying"]))]
                for row in result["heads"]
            ),
            ["even", "", _rounded(even["induction"]), _rounded(even["previous_token"]), None],
        ],
    )
    results.line(
        f"{model}: {result['length']} random tokens, {result['repeats']} times: loss {result['loss_first']:.3f} the "
        f"first time, {result['loss_repeated']:.3f} from then on"
    )
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
            display.say(f"not compared with {label}, whose shapes differ: {', '.join(names)}")
    for path in result.get("figures", []):
        display.say(f"picture: {path}")
    results.emit(result)


def _rounded(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


_model = argument("model", Path, "A model artifact or a Hugging Face folder.")
interpret = with_options(InterpretOptions, _interpret, arguments=[_model], dry_run=False)
