"""`proctool eval blimp`: minimal pairs of sentences."""

from __future__ import annotations

from pathlib import Path

from proctool.cli import display
from proctool.cli.options import Common, argument, with_options
from proctool.cli.training import quiet_libraries
from proctool.evaluation.blimp import BlimpOptions


def _blimp(options: BlimpOptions, common: Common, model: Path) -> None:
    quiet_libraries()
    from proctool.evaluation.blimp import blimp as measure

    results = display.Results(json=common.json)
    shown = display.ProgressLine("blimp", None, "sentences")
    try:
        result = measure(model, options, lambda done, of: shown.update(done, total=of))
    finally:
        shown.close()
    rows = [
        (name, share["phenomenon"], f"{share['accuracy']:.1%}", share["pairs"])
        for name, share in result["paradigms"].items()
    ]
    columns = {"paradigm": "left", "phenomenon": "left", "accuracy": "right", "pairs": "right"}
    results.table(columns, rows, drop=("pairs", "phenomenon"))
    rows = [("", name, f"{share['accuracy']:.1%}", share["pairs"]) for name, share in result["phenomena"].items()]
    results.table({"": "left", **dict(list(columns.items())[1:])}, rows)
    results.line(f"{model}: BLiMP {result['accuracy']:.2%}, the mean of {len(result['paradigms'])} paradigms")
    results.emit(result)


_model = argument("model", Path, "A model artifact or a Hugging Face folder.")
blimp = with_options(BlimpOptions, _blimp, arguments=[_model], dry_run=False)
