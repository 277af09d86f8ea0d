"""`proctool choose`: which cell of a sweep is best, and the options that follow from it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from proctool import artifact
from proctool.config import suggestion
from proctool.errors import OptionError, RunError
from proctool.outputs import OPTIONS_HEAD, Output, require_safe
from proctool.reporting.record import RECORD, read_record
from proctool.reporting.sweep import SweepResult, sweep_of


def choose(experiment: Path, arm: str, output: Path) -> list[SweepResult]:
    """Choose the cell with the lowest mean loss over the selection seeds, and write what follows from it.

    Writes files of options for `--config` into the folder of `output`, then `output`: an artifact with the losses of
    all cells, (cells, seeds) per group, and the choice. Raises RunError if a trial is not finished or all diverged.
    """
    record = read_record(experiment)
    choices = record.all_choices
    choice = choices.get(arm)
    if choice is None:
        raise OptionError(f'arm: {experiment / RECORD} has no sweep of "{arm}"{suggestion(arm, choices)}')
    folder = record.stages[choice.stage].folder
    if output.absolute().parent.parent == experiment.absolute() and output.absolute().parent.name != folder:
        raise RunError(
            f"{output}: is the choice of an earlier form of the recipe ({experiment / RECORD} names {folder}); "
            "run the recipe, or emit its scripts, again"
        )
    found = []
    for of, cells in choice.groups.items():
        sweep = sweep_of(of, cells, record, experiment)
        if isinstance(sweep, str):
            raise RunError(f"{arm}: the trial {sweep} is not finished; run it first")
        found.append(sweep)
    places = tuple(sweep.best for sweep in found)
    number = choice.combinations.index(places)
    contents = {output.parent / name: options[number] for name, options in choice.files.items()}
    require_safe([Output(output, "--output", "choice"), *(Output(path, "--output", "options") for path in contents)])
    for path, options in contents.items():
        with artifact.replacing(path) as file:
            text = json.dumps(options, indent=2)
            file.write(f"{OPTIONS_HEAD}: options of the best cell of a sweep.\n{text}\n".encode())
    losses = {f"losses.{place}": np.array([cell.losses for cell in sweep.cells]) for place, sweep in enumerate(found)}
    metadata = {
        "stage": "choose",
        "sweeps": [
            {
                "cells": [dict(cell.values) for cell in sweep.cells],
                "losses": [[loss if math.isfinite(loss) else None for loss in cell.losses] for cell in sweep.cells],
                "seeds": list(sweep.seeds),
                "best": sweep.best,
            }
            for sweep in found
        ],
        "options": {name: options[number] for name, options in choice.files.items()},
    }
    artifact.write(output, losses, kind="choice", metadata=metadata)
    return found
