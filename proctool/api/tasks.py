"""Tasks by specification, the list of all tasks, and samples as a `datasets.Dataset`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from proctool.arguments import count_of
from proctool.errors import OptionError
from proctool.procedural.mixture import Spec, parse_tasks
from proctool.procedural.registry import Task, option_help, tasks

if TYPE_CHECKING:
    from datasets import Dataset

_AT_ONCE = 8192
"""Samples converted at once: offsets of an Arrow list have 32 bits, and a sample has at most 2**17 tokens."""
IGNORED = -100
"""The label of a token that is not a target; the losses of torch and transformers ignore it."""


def load_task(spec: Spec | Task) -> Task:
    """Build a task from a specification: everything that `proctool warmup --task` accepts.

    `set:inputs=24`, `dyck:small`, `shuffle(set)`, `set*0.5 + union*0.5`, a list of these, or mappings such as
    {"name": "set", "inputs": 24}. A task object is returned unchanged. Raises OptionError.
    """
    try:
        return spec if isinstance(spec, Task) else parse_tasks(spec)
    except OptionError as error:
        # Text and mappings are named by their contents.
        if isinstance(spec, str | Mapping):
            raise
        raise OptionError(f"spec: {error}") from None


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
    """The purpose of the task. Every task can be used for training."""
    package: str
    """The Python package that registers it: proctool or the package of a plug-in."""


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
    labels      the token if it is a target, -100 elsewhere; not shifted, because transformers models shift labels
                themselves

    The whole dataset is in memory (16 bytes per token); `proctool.torch` draws samples on demand instead.
    Raises OptionError.
    """
    import datasets
    import numpy as np
    import pyarrow as pa

    samples = count_of("samples", samples, 1)
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
