"""A length curriculum: samples grow when the model has learned the current length (section 2 of the paper)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from proctool.errors import OptionError
from proctool.training.early_stop import MEASURES, has_reached
from proctool.units import parse_count, parse_number

if TYPE_CHECKING:
    from proctool.procedural.registry import Task
    from proctool.training.evaluate import Scores
    from proctool.training.sources import Source


@dataclass(frozen=True)
class GrowthRule:
    """When samples grow, and by how much. Defaults are the paper's."""

    start: int = 2
    """The first value of the task's size option."""
    step: int = 2
    """Added to it each time."""
    measure: str = "accuracy"
    value: float = 0.99
    """The score that the validation set of the current size must reach."""
    patience: int | None = None
    """Also grow after this many evaluations without a better validation loss."""


def parse_curriculum(written: str) -> GrowthRule:
    """`start=2,step=2,accuracy=.99`, each part optional, and `patience=5`. Raises OptionError."""
    values: dict[str, Any] = {}
    measures = []
    for part in filter(None, written.split(",")):
        key, _, value = (word.strip() for word in part.partition("="))
        try:
            if key in ("start", "step", "patience"):
                values[key] = parse_count(value)
            elif key in MEASURES:
                measures.append(key)
                values |= {"measure": key, "value": parse_number(value)}
            else:
                raise OptionError("it has start, step, patience, and one of accuracy, exact_match and loss")
            if key in ("start", "step", "patience") and values[key] < 1:
                raise OptionError(f"{key} must be at least 1")
        except OptionError as error:
            raise OptionError(
                f'curriculum: "{part.strip()}": {error}; write start=2,step=2,accuracy=.99, for example'
            ) from None
    if len(measures) > 1:
        raise OptionError(f'curriculum = "{written}": give only one of {" and ".join(measures)}')
    return GrowthRule(**values)


@dataclass(frozen=True)
class CurriculumStage:
    """Samples of one size, and the validation samples of that size."""

    size: int | None
    """The value of the task's size option; None outside a curriculum."""
    source: Source
    held_out: Source


class Curriculum:
    """The stages of a run's curriculum, in order; one stage if there is no curriculum. `at` is its state."""

    def __init__(self, stages: Sequence[CurriculumStage], rule: GrowthRule | None = None) -> None:
        self.stages = stages
        self.rule = rule
        self.at = 0

    @classmethod
    def fixed(cls, source: Source, held_out: Source) -> Curriculum:
        """A single stage, without a curriculum."""
        return cls([CurriculumStage(None, source, held_out)])

    @property
    def stage(self) -> CurriculumStage:
        """The current stage."""
        return self.stages[self.at]

    @property
    def is_last(self) -> bool:
        """Whether the samples have their full size."""
        return self.at == len(self.stages) - 1

    def goes_on(self, scores: Scores, waited: int) -> bool:
        """Move to the next stage if `scores`, `waited` evaluations after the best, allow it. Returns whether it did."""
        if self.rule is None or self.is_last:
            return False
        tired = self.rule.patience is not None and waited >= self.rule.patience
        if not tired and not has_reached(scores, self.rule.measure, self.rule.value):
            return False
        self.at += 1
        return True

    def state(self) -> dict[str, Any]:
        """The state that a checkpoint stores."""
        return {"at": self.at}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self.at = state["at"]


def task_curriculum(
    task: Task, written: str | None, sources: Callable[[Task], tuple[Source, Source]]
) -> Curriculum | None:
    """The curriculum that ends at `task`; None without a rule. `sources` gives training and validation samples.

    Raises OptionError if the task does not support the rule or one of its sizes.
    """
    if written is None:
        return None
    rule = parse_curriculum(written)
    full = _size(task)
    if rule.start > full:
        raise OptionError(f"curriculum: start = {rule.start}: {task.spec} has only {full}")
    stages = []
    for size in (*range(rule.start, full, rule.step), full):
        try:
            smaller = _at_size(task, size)
        except OptionError as error:
            raise OptionError(f"curriculum: size {size}: {error}") from None
        if [(role, ids.start) for role, ids in smaller.layout.items()] != [
            (role, ids.start) for role, ids in task.layout.items()
        ]:
            raise OptionError(
                f"curriculum: not supported for {task.spec}: its tokens change their meaning with the size"
            )
        stages.append(CurriculumStage(size, *sources(smaller)))
    return Curriculum(stages, rule)


def _size(task: Task) -> int:
    from proctool.procedural.controls import Control
    from proctool.procedural.mixture import Mixture

    if isinstance(task, Mixture):
        return max(map(_size, task.tasks))
    return _size(task.task) if isinstance(task, Control) else int(getattr(task, task.size_option))


def _at_size(task: Task, size: int) -> Task:
    """The task at `size`, or unchanged if it is not larger than that."""
    from proctool.procedural.controls import Control
    from proctool.procedural.mixture import Mixture

    if isinstance(task, Mixture):
        return Mixture(tuple(_at_size(each, size) for each in task.tasks), task.weights)
    if isinstance(task, Control):
        return type(task)(_at_size(task.task, size))
    return task if size >= _size(task) else task.resized(size)
