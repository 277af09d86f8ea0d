"""The attention of two models side by side, each on a sample of its own task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from proctool.models.head_scores import sought
from proctool.models.probes import Probe

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from proctool.procedural.registry import Task

_MOST_TOKENS = 32
"""At most this many tokens of a sample are drawn, so that their names stay readable."""


@dataclass(frozen=True)
class Panel:
    """Attention of every head of a model on one sample."""

    title: str
    words: tuple[str, ...]
    """The tokens as text."""
    layers: tuple[int, ...]
    patterns: NDArray[np.float32]
    """(layers, heads, L, L), from row to column."""
    marks: NDArray[np.bool_]
    """Where a head should attend to predict the next token: the bracket it closes, or earlier copies of it. (L, L)"""


def panel(model: PreTrainedModel, probe: Probe, task: Task, title: str) -> Panel:
    """A panel of a sample that fits the figure, or of its beginning. Raises ModelError without attention."""
    from proctool.models.head_scores import score_model
    from proctool.procedural.render import spelling
    from proctool.procedural.samples import Samples

    rows = list(probe.rows())
    fits = [row for row in rows if len(row[0]) <= _MOST_TOKENS]
    ids, targets = max(fits, key=lambda row: len(row[0])) if fits else rows[0]
    ids, targets = ids[:_MOST_TOKENS], targets[:_MOST_TOKENS]
    scores = score_model(model, Probe(Samples(ids[None].astype(np.uint32), targets[None]), task.spec), title)
    spelled = spelling(task)
    length = scores.patterns.shape[-1]
    marks = brackets(ids, task) if {"open", "close"} <= task.layout.keys() else sought(ids, targets)
    words = tuple(spelled[token] for token in ids[:length])
    return Panel(title, words, scores.layers, scores.patterns, marks[:length, :length])


def brackets(ids: NDArray[np.int64], task: Task) -> NDArray[np.bool_]:
    """True at (i, j) where the token after i closes the bracket that j opened: (L,) -> (L, L)"""
    opening, closing = task.layout["open"], task.layout["close"]
    marks = np.zeros((len(ids), len(ids)), bool)
    waiting: dict[int, list[int]] = {}
    for place, token in enumerate(ids):
        if token in opening:
            waiting.setdefault(int(token) - opening.start, []).append(place)
        elif token in closing and (held := waiting.get(int(token) - closing.start)):
            marks[place - 1, held.pop()] = True
    return marks
