"""Head scores over training, recorded by `--track-heads`: when does a head start to work, compared with accuracy?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proctool.errors import RunError
from proctool.events import FILE, VALIDATION, EvalEvent, HeadsEvent, read_events

SHOWN = {"induction": False, "previous_token": False, "lookup": True, "normalised_entropy": True}
"""The scores shown, and whether they are measured on the run's own samples."""


@dataclass(frozen=True)
class CoursePoint:
    """One evaluation of a run."""

    step: int
    loss: float
    accuracy: float
    repeated: tuple[dict[str, Any], ...]
    """Scores of each head on random tokens that are repeated."""
    own: tuple[dict[str, Any], ...]
    """Scores of each head on the run's validation samples."""

    def best(self, name: str) -> dict[str, Any] | None:
        """The head with the highest score (for entropy, the lowest); None if no head has it."""
        rows = [row for row in (self.own if SHOWN[name] else self.repeated) if row.get(name) is not None]
        sign = -1 if name.endswith("entropy") else 1
        return max(rows, key=lambda row: sign * row[name], default=None)


def is_run(path: Path) -> bool:
    """Whether this is the folder of a run."""
    return (path / FILE).is_file()


def read_course(folder: Path) -> list[CoursePoint]:
    """The evaluations of a run that scored its heads. Raises RunError."""
    evaluations: dict[int, EvalEvent] = {}
    heads: dict[tuple[int, bool], HeadsEvent] = {}
    for event in read_events(folder):
        if isinstance(event, EvalEvent) and event.split == VALIDATION:
            evaluations[event.step] = event
        elif isinstance(event, HeadsEvent):
            heads[event.step, event.own] = event

    def scores(step: int, own: bool) -> tuple[dict[str, Any], ...]:
        return tuple(dict(row) for row in heads[step, own].heads)

    found = [
        CoursePoint(step, each.loss, each.accuracy, scores(step, False), scores(step, True))
        for step, each in evaluations.items()
        if {(step, False), (step, True)} <= heads.keys()
    ]
    if not found:
        raise RunError(
            f"{folder}: has no head scores; train with --track-heads, or give a model instead of a run folder"
        )
    return found


def as_json(folder: Path, points: Sequence[CoursePoint]) -> dict[str, Any]:
    """All of it."""
    return {"event": "course", "run": str(folder), "course": [vars(point) for point in points]}
