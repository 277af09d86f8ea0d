"""`proctool eval harness`: tasks of lm-evaluation-harness."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

from proctool.cli import display
from proctool.cli.options import Common, argument, with_options
from proctool.cli.training import quiet_libraries
from proctool.evaluation.harness import HarnessOptions


def _harness(options: HarnessOptions, common: Common, model: Path) -> None:
    quiet_libraries()
    from proctool.evaluation.harness import harness as measure

    # The harness shows its own progress bars, on terminals only. Errors leave the block and are still shown.
    shown = contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(io.StringIO())
    with shown:
        result = measure(model, options)
    results = display.Results(json=common.json)
    rows = [
        (name, metric, f"{value:.4f}", "–" if error is None else f"± {error:.4f}", result["samples"].get(name))
        for name, values in result["results"].items()
        for metric, value, error in _with_errors(values)
    ]
    results.table(
        {"task": "left", "metric": "left", "value": "right", "": "right", "samples": "right"},
        rows,
        drop=("samples", ""),
    )
    results.line(f"{model}: lm-evaluation-harness {result['lm_eval']}")
    results.emit(result)


def _with_errors(values: dict[str, float]) -> list[tuple[str, float, float | None]]:
    """Each metric with its standard error; the harness calls that of "acc,filter" "acc_stderr,filter"."""
    rows = []
    for key, value in values.items():
        metric, comma, kept = key.partition(",")
        if not metric.endswith("_stderr"):
            rows.append((key, value, values.get(f"{metric}_stderr{comma}{kept}")))
    return rows


_model = argument("model", Path, "A model artifact or a Hugging Face folder.")
harness = with_options(HarnessOptions, _harness, arguments=[_model], dry_run=False)
