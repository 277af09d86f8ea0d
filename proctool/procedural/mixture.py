"""Several tasks in one stream, and the parser of task specifications: tasks, controls and mixtures."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from proctool.errors import OptionError
from proctool.procedural.controls import as_mapping, control
from proctool.procedural.registry import MOST_TOKENS, Task, parse_spec
from proctool.procedural.samples import Samples
from proctool.units import parse_number


@dataclass(frozen=True)
class Mixture(Task):
    """Each sample from one of several tasks, drawn by weight; written `set*0.5 + union*0.5`.

    All tasks share one vocabulary: parts of the layouts with the same name ("symbol", "separator", "pad") share their
    ids, as many as the largest part needs, in the order in which the names first appear. So a separator is the same
    token in every task. Samples shorter than the longest are padded at the end, without targets.
    """

    name: ClassVar[str] = "mixture"

    tasks: tuple[Task, ...]
    """The tasks."""
    weights: tuple[float, ...]
    """The weight of each task, relative to their sum."""

    def __post_init__(self) -> None:
        if len(self.tasks) != len(self.weights) or not self.tasks:
            raise OptionError(f"mixture: {len(self.tasks)} tasks but {len(self.weights)} weights; give one per task")
        for task, weight in zip(self.tasks, self.weights, strict=True):
            if not (math.isfinite(weight) and weight > 0):
                raise OptionError(f"mixture: weight of {task.spec} = {weight:g}: must be positive")
        if self.vocab_size > MOST_TOKENS:
            raise OptionError(
                f"mixture: the shared vocabulary has {self.vocab_size} tokens; the limit is {MOST_TOKENS}"
            )

    @property
    def length(self) -> int:
        """The length of the longest task."""
        return max(task.length for task in self.tasks)

    @cached_property
    def layout(self) -> dict[str, range]:
        """Ids by role, shared between the tasks."""
        sizes: dict[str, int] = {}
        for task in self.tasks:
            for role, ids in task.layout.items():
                sizes[role] = max(sizes.get(role, 0), len(ids))
        sizes.setdefault("pad", 1)
        layout, start = {}, 0
        for role, size in sizes.items():
            layout[role] = range(start, start + size)
            start += size
        return layout

    @property
    def min_entropy_bits(self) -> float:
        """A lower bound: the likeliest sample is at most as likely as the likeliest samples of all tasks together."""
        return -math.log2(
            sum(p * 2.0**-task.min_entropy_bits for p, task in zip(self._shares, self.tasks, strict=True))
        )

    @property
    def options(self) -> dict[str, Any]:
        """The mapping for `parse_tasks`: {mixture: [{name: set, ..., weight: 0.5}, ...]}."""
        return {"mixture": [{**as_mapping(task), "weight": weight} for task, weight in self._parts]}

    @property
    def spec(self) -> str:
        """`set:inputs=64,symbols=100*0.5 + union:inputs=64,symbols=100*0.5`."""
        return " + ".join(f"{task.spec}*{weight!r}" for task, weight in self._parts)

    @property
    def _parts(self) -> list[tuple[Task, float]]:
        return list(zip(self.tasks, self.weights, strict=True))

    @property
    def _shares(self) -> NDArray[np.float64]:
        weights = np.array(self.weights, float)
        return weights / weights.sum()  # type: ignore[no-any-return]

    def resized(self, size: int) -> Self:
        """The mixture of the resized tasks."""
        return type(self)(tuple(task.resized(size) for task in self.tasks), self.weights)

    def with_length(self, length: int) -> Self:
        """The mixture of the tasks with at most that length."""
        return type(self)(tuple(task.with_length(length) for task in self.tasks), self.weights)

    def shared_ids(self, task: Task) -> NDArray[np.unsignedinteger[Any]]:
        """The shared id of each of the task's own ids. (task.vocab_size,)."""
        ids = np.empty(task.vocab_size, self.dtype)
        for role, own in task.layout.items():
            ids[own.start : own.stop] = np.arange(len(own)) + self.layout[role].start
        return ids

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw n samples."""
        tokens = np.full((n, self.length), self.layout["pad"].start, self.dtype)
        targets = np.zeros(tokens.shape, bool)
        which = np.searchsorted(np.cumsum(self._shares)[:-1], rng.random(n), side="right")
        for index, task in enumerate(self.tasks):
            rows = np.flatnonzero(which == index)
            if len(rows):
                samples = task.sample(rng, len(rows))
                tokens[rows, : task.length] = self.shared_ids(task)[samples.tokens]
                targets[rows, : task.length] = samples.targets
        return Samples(tokens, targets)


_CONTROLLED = re.compile(r"(\w+)\((.*)\)")
_WEIGHTED = re.compile(r"(.*)\*([^*()]*)")

Spec = str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]]


def parse_tasks(spec: Spec) -> Task:
    """Parse a specification into a task, a control or a mixture. Raises OptionError.

    As text: `set:inputs=24`, `shuffle(set)`, `set*0.5 + union*0.5`, `shuffle(set*1 + union*3)`; or a list of these with
    weights (default 1). As mappings: {name: set, inputs: 24}, {control: shuffle, name: set},
    {mixture: [{name: set, weight: 0.5}, {name: union, weight: 0.5}]}. The weight of a single task has no effect.
    Parsing the `spec` or the `as_mapping` of a task gives the same task.
    """
    _require_shallow(spec)
    parts = list(_parts(spec))
    if not parts:
        raise OptionError("no task given; write for example dyck:k=16,length=128")
    for task, weight in parts:
        if not (math.isfinite(weight) and weight > 0):
            raise OptionError(f"{task.spec}: weight = {weight:g}: must be positive")
    if len(parts) == 1:
        return parts[0][0]
    tasks, weights = zip(*parts, strict=True)
    return Mixture(tasks, weights)


_MOST_LETTERS, _MOST_DEPTH = 1 << 16, 20


def _require_shallow(spec: Any) -> None:
    """Raise OptionError unless a specification is text or limited nesting of mappings and lists."""
    level: list[Any] = [spec]
    for _ in range(_MOST_DEPTH):
        inner: list[Any] = []
        for each in level:
            if isinstance(each, Mapping):
                inner += [each["mixture"]] if "mixture" in each else []
            elif isinstance(each, str):
                if len(each) > _MOST_LETTERS or each.count("(") > _MOST_DEPTH:
                    raise OptionError(f'task "{each[:40]}...": exceeds the limits on length and nesting')
            elif isinstance(each, Sequence):
                inner += each
            else:
                raise OptionError(f"{each!r} is not a task; write for example dyck:k=16,length=128")
        if not inner:
            return
        level = inner
    raise OptionError(f"tasks are nested more than {_MOST_DEPTH} deep; write fewer levels")


def _parts(spec: Spec) -> Iterator[tuple[Task, float]]:
    if isinstance(spec, str):
        for written in top_level(spec) if spec.strip() else ():
            weighted = _WEIGHTED.fullmatch(written)
            yield (_one(weighted[1]), _weight(weighted[2], written)) if weighted else (_one(written), 1.0)
    elif isinstance(spec, Mapping):
        values = dict(spec)
        weight = values.pop("weight", 1.0)
        yield _from_mapping(values), _weight(weight, str(spec))
    else:
        for each in spec:
            yield from _parts(each)


def top_level(spec: str) -> Iterator[str]:
    """The parts between plus signs that are outside parentheses and not in a number (5e+4)."""
    depth = start = 0
    for place, letter in enumerate(spec):
        depth += (letter == "(") - (letter == ")")
        if depth == 0 and spec[place : place + 3] == " + ":
            yield spec[start:place].strip()
            start = place + 3
    yield spec[start:].strip()


def _weight(written: Any, where: str) -> float:
    try:
        return parse_number(written)
    except OptionError:
        raise OptionError(f'"{where}": weight {written!r} is not a number; write for example set*0.5') from None


def _one(written: str) -> Task:
    controlled = _CONTROLLED.fullmatch(written.strip())
    if controlled:
        return control(controlled[1], parse_tasks(controlled[2]))
    return parse_spec(written.strip())


def _from_mapping(values: dict[str, Any]) -> Task:
    if "control" in values:
        return control(str(values.pop("control")), _from_mapping(values))
    if "mixture" not in values:
        return parse_spec(values)
    parts = values.pop("mixture")
    if values or not isinstance(parts, Sequence) or isinstance(parts, str):
        raise OptionError("mixture: write {mixture: [{name: set, weight: 0.5}, ...]} without other keys")
    return parse_tasks(parts)
