"""Tasks by specification, the list of all tasks, and samples as a `datasets.Dataset`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from proctool.errors import OptionError
from proctool.procedural.mixture import Spec, parse_tasks
from proctool.procedural.registry import Task, option_help, tasks

if TYPE_CHECKING:
    from datasets import Dataset

_AT_ONCE = 8192
"""Samples converted together: the offsets of an Arrow list have 32 bits, and a sample at most 2**17 tokens."""
IGNORED = -100
"""The label of a token that is no target; the losses of torch and transformers leave it out."""


def load_task(spec: Spec | Task) -> Task:
    """The task that `spec` means: everything that `proctool warmup --task` takes.

    `set:inputs=24`, `dyck:small`, `shuffle(set)`, `set*0.5 + union*0.5`, a list of these, or mappings such as
    {"name": "set", "inputs": 24}. A task is returned as it is. Raises OptionError.
    """
    return spec if isinstance(spec, Task) else parse_tasks(spec)


@dataclass(frozen=True)
class TaskOption:
    """One option of a task."""

    name: str
    default: Any
    meaning: str


@dataclass(frozen=True)
class TaskInfo:
    """A registered task."""

    name: str
    description: str
    """One line."""
    options: tuple[TaskOption, ...]
    presets: tuple[str, ...]
    kind: Literal["warm-up", "diagnostic"]
    """What it is made for. Every task can be trained on."""
    package: str
    """The Python package that registers it: proctool, or the one that a plug-in comes from."""


def list_tasks() -> tuple[TaskInfo, ...]:
    """Every registered task, sorted by name."""
    from proctool.procedural.gallery import sections

    diagnostics = dict(sections())["Diagnostics"]
    return tuple(
        TaskInfo(
            name=name,
            description=task.description,
            options=tuple(
                TaskOption(option, task.options[option], " ".join(meaning.split()))
                for option, meaning in option_help(cls).items()
            ),
            presets=tuple(cls.presets),
            kind="diagnostic" if name in diagnostics else "warm-up",
            package=cls.__module__.partition(".")[0],
        )
        for name, cls in tasks().items()
        for task in [cls()]
    )


def to_datasets(spec: Spec | Task, samples: int, seed: int = 0, split: str = "train") -> Dataset:
    """The first `samples` samples of a stream as a `datasets.Dataset`.

    Columns, each a list of int64 of the task's length:

    input_ids   the tokens
    labels      the same tokens where they are targets, -100 elsewhere; at the token's own position, as the models of
                transformers expect, which shift labels inside

    The whole dataset is in memory (16 bytes per token); `proctool.torch` draws samples as they are needed instead.
    Raises OptionError.
    """
    import datasets
    import numpy as np
    import pyarrow as pa

    if samples < 1:
        raise OptionError(f"samples = {samples}: must be at least 1")
    stream = load_task(spec).stream(seed, split)
    parts = []
    for start in range(0, samples, _AT_ONCE):
        read = stream.read(start, min(start + _AT_ONCE, samples))
        tokens = read.tokens.astype(np.int64)  # (n, length)
        offsets = pa.array(np.arange(len(read) + 1, dtype=np.int32) * np.int32(stream.task.length))
        columns = {"input_ids": tokens, "labels": np.where(read.targets, tokens, IGNORED)}
        parts.append(
            pa.table(
                {name: pa.ListArray.from_arrays(offsets, pa.array(each.ravel())) for name, each in columns.items()}
            )
        )
    return datasets.Dataset(pa.concat_tables(parts))
