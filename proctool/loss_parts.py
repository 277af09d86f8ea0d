"""Where in a row the loss of a language model is: facts, and their JSON.

A position is the number of tokens of the row that the model has read before it predicts a token, from 1. All losses are
means in nats per token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

from proctool.event_records import read_record
from proctool.event_values import Count, Measure, read_mapping

ICL_TOKEN = 50
"""The in-context-learning score compares this token of a row (counted from 1) with the last one."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """The loss on some of the predicted tokens; None if there are none."""

    targets: Count
    loss: Measure | None = None


@dataclass(frozen=True, kw_only=True)
class Band(Part):
    """The positions from `first` to `last`."""

    first: Count
    last: Count

    @property
    def name(self) -> str:
        """4-7, or 1 for a single position."""
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def _part(value: Any) -> Part:
    return read_record(Part, read_mapping(value))


@dataclass(frozen=True, kw_only=True)
class Ngrams:
    """Tokens that complete an n-gram which occurred earlier in the same row (`copyable`), and all others."""

    n: Count
    copyable: Annotated[Part, _part]
    other: Annotated[Part, _part]


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError
    return value


def _bands(value: Any) -> tuple[Band, ...]:
    return tuple(read_record(Band, read_mapping(each)) for each in _list(value))


def _ngrams(value: Any) -> tuple[Ngrams, ...]:
    return tuple(read_record(Ngrams, read_mapping(each)) for each in _list(value))


@dataclass(frozen=True, kw_only=True)
class LossParts:
    """The loss by position, by repetition, and the in-context-learning score."""

    bands: Annotated[tuple[Band, ...], _bands]
    """Positions 1, 2-3, 4-7 and so on, up to the row's last; without empty bands."""
    ngrams: Annotated[tuple[Ngrams, ...], _ngrams]
    """For n = 2 and 3."""
    icl_score: Measure | None = None
    """Loss at the 50th token of a row less the loss at its last token, averaged over full rows in which both are
    predicted; positive if the loss falls. None without such rows, so for rows of 50 tokens or fewer. Olsson et al. 2022
    ("In-context Learning and Induction Heads", arXiv 2209.11895) take the 500th token's loss less the 50th's: the
    opposite sign."""
    icl_rows: Count = 0
    """Rows that `icl_score` is averaged over."""

    @property
    def targets(self) -> int:
        """Predicted tokens."""
        return sum(each.targets for each in self.bands)

    @property
    def loss(self) -> float:
        """The mean loss; nan if nothing is predicted."""
        nats = sum(each.targets * each.loss for each in self.bands if each.loss is not None)
        return nats / self.targets if self.targets else math.nan


@dataclass(frozen=True, kw_only=True)
class InductionHeads:
    """The evaluation at which a model first has an induction head."""

    threshold: Measure
    """An induction head has a higher induction score than this (models/head_scores.py)."""
    score: Measure
    """The largest induction score at the last evaluation."""
    step: Count | None = None
    """The step of the first evaluation with an induction head; None if there is none."""


def read_parts(value: Any) -> LossParts:
    """The loss parts in JSON. Raises ValueError."""
    return read_record(LossParts, read_mapping(value))


def read_induction(value: Any) -> InductionHeads:
    """The induction heads in JSON. Raises ValueError."""
    return read_record(InductionHeads, read_mapping(value))
