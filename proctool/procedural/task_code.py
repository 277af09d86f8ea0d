"""Records the code that makes the samples of a task from another package.

The streams of built-in tasks never change, because golden hashes test them. Code of other packages can change at any
time, so files made from such a task record the package, its version and a hash of samples.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from proctool import config
from proctool.errors import OptionError, ProctoolError, first_line
from proctool.procedural.controls import Control
from proctool.procedural.mixture import Mixture
from proctool.procedural.registry import Task, package_of
from proctool.procedural.samples import Samples
from proctool.procedural.streams import BLOCK


@dataclass(frozen=True)
class TaskCode:
    """The code of one task of another package."""

    task: str
    """Its specification."""
    package: str
    version: str
    samples: str
    """`block_hash` of the first 1024 samples that it draws from `numpy.random.PCG64(0)`."""


def task_code(task: Task) -> list[dict[str, Any]]:
    """The code of each task of another package in `task`: JSON-ready `TaskCode`s sorted by task.

    Empty for built-in tasks, their controls and mixtures. Raises OptionError if a task cannot make samples.
    """
    return [config.plain(_code(each)) for each in sorted(_foreign(task), key=lambda each: each.spec)]


def code_metadata(task: Task) -> dict[str, Any]:
    """The entry `code` for the metadata of a task's samples; empty for built-in tasks."""
    return {"code": found} if (found := task_code(task)) else {}


def block_hash(samples: Samples) -> str:
    """16 hexadecimal digits of SHA-256 over tokens, as 32-bit little-endian numbers, and targets."""
    return hashlib.sha256(samples.tokens.astype("<u4").tobytes() + samples.targets.tobytes()).hexdigest()[:16]


def _foreign(task: Task) -> set[Task]:
    if isinstance(task, Control):
        return _foreign(task.task)
    if isinstance(task, Mixture):
        return {each for part in task.tasks for each in _foreign(part)}
    return set() if package_of(type(task)) is None else {task}


@functools.lru_cache(maxsize=64)
def _code(task: Task) -> TaskCode:
    package = package_of(type(task))
    assert package is not None
    try:
        # Do not use a stream: with splits separated by content it may be empty, although a mixture's stream is not.
        samples = block_hash(task.sample(np.random.Generator(np.random.PCG64(0)), BLOCK))
    except ProctoolError:
        raise
    except Exception as error:  # code of another package may raise anything
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise OptionError(f"{task.spec}: the package {package} cannot make its samples ({reason})") from None
    return TaskCode(task.spec, package.name, package.version, samples)
