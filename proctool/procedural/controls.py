"""Controls: the tokens of a task without its structure, to separate structure from token statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from proctool import config
from proctool.errors import OptionError
from proctool.procedural.draws import shuffled_rows
from proctool.procedural.registry import Task
from proctool.procedural.samples import Samples


@dataclass(frozen=True)
class Control(Task):
    """A task whose samples lose their structure; written `shuffle(set:inputs=24)`.

    Lengths, layout and targets are those of the task, so the loss is on the same positions. Padding does not move.
    """

    task: Task
    """The task whose structure is destroyed."""

    @property
    def length(self) -> int:
        """The task's."""
        return self.task.length

    @property
    def layout(self) -> dict[str, range]:
        """The task's."""
        return self.task.layout

    @property
    def min_entropy_bits(self) -> float:
        """No general bound is known, so splits are always separated by content."""
        return 0.0

    @property
    def options(self) -> dict[str, Any]:
        """The mapping for `parse_tasks`: {control: shuffle, name: set, inputs: 24, ...}."""
        return {"control": self.name, **as_mapping(self.task)}

    @property
    def spec(self) -> str:
        """`shuffle(set:inputs=24,symbols=100)`."""
        return f"{self.name}({self.task.spec})"

    def resized(self, size: int) -> Self:
        """The same control over the resized task."""
        return type(self)(self.task.resized(size))

    def with_length(self, length: int) -> Self:
        """The same control over the task with at most that length."""
        return type(self)(self.task.with_length(length))

    def written(self, tokens: NDArray[np.unsignedinteger[Any]]) -> NDArray[np.bool_]:
        """Which tokens are not padding. (n, length)."""
        pad = self.layout.get("pad")
        return np.ones(tokens.shape, bool) if pad is None else tokens != pad.start


@dataclass(frozen=True)
class Shuffle(Control):
    """The tokens of each sequence in random order.

    Source: the shuffled control of Procedural Pretraining (arXiv 2601.21725), which removes the benefit.
    """

    name: ClassVar[str] = "shuffle"

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw n samples."""
        samples = self.task.sample(rng, n)
        padding = ~self.written(samples.tokens)
        tokens = shuffled_rows(rng, samples.tokens, self.vocab_size, last=padding)
        return Samples(tokens.astype(self.dtype), samples.targets)


@dataclass(frozen=True)
class Unigram(Control):
    """Every token drawn from the token frequencies of the task."""

    name: ClassVar[str] = "unigram"

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw n samples. The frequencies are measured on n samples of the task: in a stream, a whole block."""
        samples = self.task.sample(rng, n)
        written = self.written(samples.tokens)
        tokens = samples.tokens.copy()
        pool = samples.tokens[written]
        tokens[written] = pool[rng.integers(0, len(pool), len(pool))]
        return Samples(tokens, samples.targets)


@dataclass(frozen=True)
class Random(Control):
    """Every token drawn uniformly from the task's vocabulary, padding excepted: only lengths and targets remain."""

    name: ClassVar[str] = "random"

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw n samples."""
        samples = self.task.sample(rng, n)
        ids = np.setdiff1d(np.arange(self.vocab_size), self.layout.get("pad", ())).astype(self.dtype)
        drawn = ids[rng.integers(0, len(ids), samples.tokens.shape)]
        return Samples(np.where(self.written(samples.tokens), drawn, samples.tokens), samples.targets)


def as_mapping(task: Task) -> dict[str, Any]:
    """The task with all its options as a mapping for YAML and artifacts, which `parse_tasks` reads."""
    composed = "mixture" in task.options or "control" in task.options
    return task.options if composed else {"name": task.name, **task.options}


CONTROLS: Mapping[str, type[Control]] = {cls.name: cls for cls in (Shuffle, Unigram, Random)}


def control(name: str, task: Task) -> Control:
    """The control `name` (see CONTROLS) over `task`. Raises OptionError."""
    if name not in CONTROLS:
        raise OptionError(f'unknown control "{name}"{config.suggestion(name, CONTROLS)}')
    return CONTROLS[name](task)
