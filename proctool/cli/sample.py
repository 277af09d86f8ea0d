"""`proctool sample`: what a model writes."""

from __future__ import annotations

import sys
from pathlib import Path

from proctool.cli import display
from proctool.cli.options import Common, argument, with_options
from proctool.cli.training import quiet_libraries
from proctool.evaluation.sample import SampleOptions


def _sample(options: SampleOptions, common: Common, model: Path) -> None:
    quiet_libraries()
    from proctool.errors import printable
    from proctool.evaluation.eval_model import open_subject
    from proctool.evaluation.sample import sample as draw

    result = draw(open_subject(model, options.tokenizer), options)
    if common.json:
        display.emit(result)
        return
    for number, made in enumerate(result["samples"]):
        if number:
            print("-" * 40)
        text = options.prompt + made["text"]
        print("\n".join(map(printable, text.split("\n"))) if sys.stdout.isatty() else text)


sample = with_options(
    SampleOptions,
    _sample,
    arguments=[argument("model", Path, "A model artifact, a Hugging Face folder or a hub id.")],
    dry_run=False,
)
