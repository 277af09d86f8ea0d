"""`proctool eval mathematics`: questions answered greedily."""

from __future__ import annotations

from pathlib import Path

from proctool.cli import display
from proctool.cli.options import Common, argument, with_options
from proctool.cli.training import quiet_libraries
from proctool.evaluation.options import MathematicsOptions


def _mathematics(options: MathematicsOptions, common: Common, model: Path) -> None:
    quiet_libraries()
    from proctool.evaluation.mathematics import mathematics as measure

    results = display.Results(json=common.json)
    with display.progress("mathematics", None, "questions") as shown:
        lines = measure(model, options, lambda done, of: shown.update(done, total=of))
    modules = [line for line in lines if line["event"] == "mathematics-module"]
    rows = [(line["split"], line["module"], line["questions"], f"{line['accuracy']:.1%}") for line in modules]
    results.table({"split": "left", "module": "left", "questions": "right", "accuracy": "right"}, rows)
    for line in lines:
        if line["event"] == "mathematics":
            results.line(
                f"{model}, {line['split']}: accuracy {line['accuracy']:.2%} over {line['questions']} questions, "
                f"mean over modules {line['mean_over_modules']:.2%}"
            )
    results.emit(*lines)


_model = argument("model", Path, "A model artifact or a Hugging Face folder.")
mathematics = with_options(MathematicsOptions, _mathematics, arguments=[_model], dry_run=False)
