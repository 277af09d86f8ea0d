"""`proctool choose EXPERIMENT --arm NAME`: the best cell of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from proctool.cli.display import say
from proctool.paths import AS_PATH


def choose(
    experiment: Annotated[
        Path, typer.Argument(help="An experiment's folder, such as runs/demo.", show_default=False, **AS_PATH)
    ],
    arm: Annotated[str, typer.Option("--arm", help="The arm whose sweep has ended.", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write; options for --config go beside it.", **AS_PATH)
    ] = Path("chosen.safetensors"),
) -> None:
    """Choose the best cell of a sweep by the loss of its trials.

    A stage of `proctool run` for recipes with a sweep. The later stages read the chosen options with --config.
    """
    from proctool.experiment.choose import choose as choose_cell

    for sweep in choose_cell(experiment, arm, output):
        values = ", ".join(f"{name} = {value:g}" for name, value in sweep.winner.values.items())
        say(f"choose: {sweep.arm}: {values} is the best of {len(sweep.cells)} cells (loss {sweep.winner.loss:.3f})")
