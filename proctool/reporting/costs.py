"""What each arm spends, and what starts fresh after its warm-up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from proctool.models.components import COMPONENTS
from proctool.reporting.controls import Start
from proctool.reporting.experiment import Experiment
from proctool.reporting.record import ExperimentRecord
from proctool.transplantation.origin import NOT_TAKEN

_SCALE_ONLY = ("scale", "sharpened")
"""Controls that keep nothing of a weight but its scale."""


@dataclass(frozen=True)
class Reset:
    """Something that starts fresh after a warm-up."""

    what: str
    """The optimiser, or a component."""
    keeps: str | None = None
    """What it keeps: its scale, the mean or samples of its rows, or a part (some layers or heads); None: nothing."""


@dataclass(frozen=True)
class ArmCost:
    """The cost of an arm: means over seeds. A number is None if it is not known."""

    arm: str
    procedural_tokens: float | None
    """Tokens of warm-ups on procedural data, and of procedural rows in the pretraining."""
    text_tokens: float | None
    """Tokens of warm-ups on natural text."""
    corpus_tokens: float | None
    """Tokens of the pretraining without procedural rows; None without one."""
    flops: float | None
    """Floating-point operations of warm-ups and pretraining; of warm-ups alone without a pretraining."""
    resets: tuple[Reset, ...] | None
    """What starts fresh although there was a warm-up; None for a cold start."""

    @property
    def natural_tokens(self) -> float | None:
        """Tokens of natural text, in the warm-up and in the pretraining."""
        return _total([self.text_tokens, self.corpus_tokens]) if self.corpus_tokens is not None else self.text_tokens


def costs(experiment: Experiment) -> list[ArmCost]:
    """The cost of every measured arm, the baseline first."""
    return [_cost(experiment, arm) for arm in experiment.arms]


def _cost(experiment: Experiment, arm: str) -> ArmCost:
    runs, warmups = experiment.runs.get(arm, {}).values(), experiment.warmups.get(arm, {}).values()
    text = _mean(each.text_tokens for each in warmups)
    warm = _mean(each.tokens for each in warmups)
    mixed = _mean(run.mixed_tokens for run in runs) or 0.0
    spent = [each.flops for each in warmups]
    if runs:
        spent = [_total([run.flops, run.warmup_flops]) for run in runs]
    start = experiment.starts.get(arm)
    return ArmCost(
        arm=arm,
        procedural_tokens=None if warm is None or text is None else warm - text + mixed,
        text_tokens=text,
        corpus_tokens=_mean(run.curve.end - run.mixed_tokens for run in runs) if runs else None,
        flops=_mean(spent),
        resets=None if start is None else resets_of(start, experiment.record),
    )


def resets_of(start: Start, record: ExperimentRecord) -> tuple[Reset, ...] | None:
    """What an arm does not keep of its warm-up: the optimiser, then components in the model's order.

    None for a cold start. An untied head starts as the embeddings do and is not named.
    """
    if not any(each.source not in NOT_TAKEN for each in start.carried):
        return None
    scaled = start.components if start.kind in _SCALE_ONLY else record.treatment(start.made_from).get("match_scale", ())
    mixed = record.donors(start.made_from) if start.tasks else ()
    found = [] if start.optimiser == "all" else [Reset("optimiser", start.optimiser)]
    for component in COMPONENTS:
        rows = [each for each in start.carried if each.component == component]
        taken = [each for each in rows if each.source not in NOT_TAKEN]
        if not rows or component == "head":
            continue
        if not taken or (mixed and component not in (*mixed, "embeddings")):
            found.append(Reset(component))
        elif component == "embeddings":
            found += [] if taken[0].source == "copy" else [Reset(component, taken[0].source)]
        elif component in scaled or any(each.treatment.match_scale for each in taken):
            found.append(Reset(component, "scale"))
        elif len(taken) < len(rows) or any(each.heads for each in taken):
            found.append(Reset(component, "part"))
    return tuple(found)


def _mean(values: Iterable[float | None]) -> float | None:
    known = list(values)
    total = _total(known)
    return None if total is None or not known else total / len(known)


def _total(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
