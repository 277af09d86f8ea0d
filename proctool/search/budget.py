"""How the hours are spent: the steps of a trial, and the time that later phases need."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from proctool.errors import CorpusError, OptionError
from proctool.experiment.cost import flops
from proctool.models.shapes import Shape
from proctool.search.cells import COLD, Setting, Warmed, planned
from proctool.search.options import REPORTS
from proctool.search.space import COMPONENTS, DOSES, Candidate, Cold, around, cold_cells

OVERHEAD = 1.5
"""Seconds of a stage outside its steps: building the model, evaluating, writing."""
PRUNED_SHARE = 0.6
"""The part of a trial's steps that successive halving lets the average trial take."""
EXPLORED_SHARE = 0.4
"""The share of the hours that candidates at the smallest width get at least."""
MOST_STEPS, FEW_STEPS = 2000, 80
"""The range of steps that a search chooses for its trials."""
CONFIRMED = 2
"""Candidates that are measured on fresh seeds; the first of them is the answer."""
CONTROLS = ("scale", "longer")
"""Controls that the winner must beat: fresh weights at its donor's scale; the warm-up's tokens as more text."""


@dataclass(frozen=True)
class Prices:
    """Seconds of one process for a trial at each width, in the order of the small models."""

    cold: tuple[float, ...]
    warmed: tuple[float, ...]


def prices(setting: Setting, shapes: Sequence[Shape], speeds: Mapping[str, float]) -> Prices:
    """The price of a cold start and of a candidate of medium dose; `speeds` are seconds per pretraining step."""
    cold, warmed = [], []
    middle = Candidate(setting.tasks[0], DOSES[len(DOSES) // 2], COMPONENTS[0], "scale", 6e-3)
    for shape in shapes:
        made = planned(
            setting, shape, {COLD: Cold(6e-3, 1.0), "warm": Warmed(middle, Cold(6e-3, 1.0))}, (0,), Path("search")
        )
        last = made.arms[COLD][0].pretrain
        assert last is not None, "every arm pretrains"
        per_flop = speeds[str(shape)] * setting.steps / flops(last)
        costs = {stage.key: flops(stage) * per_flop + OVERHEAD for stage in made.stages}
        cold.append(costs[last.key])
        warmed.append(sum(costs.values()) - costs[last.key])
    return Prices(tuple(cold), tuple(warmed))


def finals_seconds(price: Prices, width: int, finalists: int) -> float:
    """Seconds of one process for the phases at one of the wider models."""
    rates = len(around(1.0))
    return rates * price.cold[width] + PRUNED_SHARE * rates * finalists * price.warmed[width]


def confirm_seconds(price: Prices, seeds: int) -> float:
    """Seconds of one process for the last measurement: cold, candidates and controls at the widest model."""
    return seeds * ((1 + CONFIRMED) * price.warmed[-1] + (1 + len(CONTROLS)) * price.cold[-1])


def finalists_at(width: int, most: int) -> int:
    """Candidates that the wider model number `width` (from 1) tries: fewer and fewer, at least two."""
    return max(min(most, CONFIRMED), -(-most // (1 << (width - 1))))


def reserved_seconds(setting: Setting, price: Prices) -> float:
    """Seconds of one process that the phases after the first candidates need."""
    wider = range(1, len(price.cold))
    finals = sum(finals_seconds(price, each, finalists_at(each, setting.options.finalists)) for each in wider)
    return finals + confirm_seconds(price, setting.options.confirm)


def fixed_seconds(setting: Setting, price: Prices) -> float:
    """Seconds of one process for everything but the candidates at the smallest width."""
    return len(cold_cells()) * price.cold[0] + reserved_seconds(setting, price)


def chosen_steps(setting: Setting, shapes: Sequence[Shape], speeds: Mapping[str, float], jobs: int, most: int) -> int:
    """The steps of a trial, a multiple of REPORTS: those asked for, or what fits the hours and the corpus.

    `most` are the steps that the corpus allows. `setting` has any steps. Raises OptionError, CorpusError.
    """
    options, asked = setting.options, setting.options.steps
    work = 3600 * options.hours * jobs * (1 - EXPLORED_SHARE)
    fewest = asked or FEW_STEPS
    if most < fewest:
        raise CorpusError(
            f"corpus {options.corpus}: too small: {fewest} steps of {options.batch_size} rows pass over it more than 4 "
            f"times; give more text, or lower --steps (to {max(REPORTS, most)}), --batch-size or --context"
        )

    def seconds(steps: int) -> float:
        again = Setting(options, steps, setting.eval_samples, setting.tasks)
        return fixed_seconds(again, prices(again, shapes, speeds))

    low, high = seconds(REPORTS), seconds(REPORTS * 101)
    each = (high - low) / (REPORTS * 100)
    fitting = math.floor((work - low) / each) + REPORTS
    steps = asked or min(MOST_STEPS, most, fitting)
    if fitting < fewest:
        hours = seconds(fewest) / (3600 * jobs * (1 - EXPLORED_SHARE))
        raise OptionError(
            f"hours = {options.hours:g}: too short for trials of {fewest} steps, which need about {hours:.2g}; raise "
            "--hours or --jobs, or lower --steps, --widths, --batch-size or --context"
        )
    return max(REPORTS, int(steps) // REPORTS * REPORTS)
