"""Generated samples as a file: `proctool generate` writes it, `warmup --data` reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from proctool import artifact
from proctool.artifact import Artifact
from proctool.errors import ArtifactError, OptionError, ProctoolError
from proctool.procedural.formats.part import Progress, StreamPart
from proctool.procedural.formats.tensors import write_tensors
from proctool.procedural.mixture import parse_tasks
from proctool.procedural.registry import Task
from proctool.procedural.samples import Samples
from proctool.procedural.streams import Stream
from proctool.procedural.task_code import task_code


@dataclass(frozen=True)
class DataFile:
    """Memory-mapped samples on disk, with the stream that they come from."""

    artifact: Artifact
    task: Task
    seed: int
    split: str
    samples: Samples
    code: list[dict[str, Any]]
    """The code of tasks from other packages when the file was made."""

    @classmethod
    def open(cls, path: Path) -> DataFile:
        """Read and check a data artifact. Raises ArtifactError, also if the code of its task has changed."""
        found = artifact.open_artifact(path, "data")
        try:
            metadata = found.metadata
            task = parse_tasks(metadata["task"])
            arrays = artifact.read_numpy(found)
            samples = Samples(arrays["tokens"], arrays["targets"])
            seed, split = int(metadata["seed"]), str(metadata["split"])
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{path}: its metadata has no {error}; generate the file again") from None
        except ArtifactError:
            raise
        except ProctoolError as error:
            raise ArtifactError(f"{path}: made by a task that is not available here: {error}") from None
        if samples.tokens.dtype.kind != "u" or samples.targets.dtype != bool:
            found_types = f"{samples.tokens.dtype} and {samples.targets.dtype}"
            raise ArtifactError(
                f"{path}: its tokens and targets are {found_types}, not integers and booleans; generate the file again"
            )
        if samples.targets.size and samples.targets.view(np.uint8).max() > 1:
            raise ArtifactError(f"{path}: its targets are not all true or false; generate the file again")
        shape = samples.tokens.shape
        if len(shape) != 2 or shape != samples.targets.shape or shape[1] != task.length or not len(samples):
            raise ArtifactError(f"{path}: the shape of its samples does not match its task; generate the file again")
        if samples.tokens.max() >= task.vocab_size:
            raise ArtifactError(f"{path}: has tokens outside the vocabulary of its task; generate the file again")
        _require_same_code(path, metadata.get("code", []), task)
        return cls(found, task, seed, split, samples, metadata.get("code", []))


def _require_same_code(path: Path, recorded: Any, task: Task) -> None:
    """Raise ArtifactError if the installed code makes other samples, because a model would be scored on those."""
    try:
        made = {each["task"]: each for each in recorded}
        changed = [now for now in task_code(task) if made.get(now["task"], now)["samples"] != now["samples"]]
    except (KeyError, TypeError):
        raise ArtifactError(
            f"{path}: its metadata does not name the code that made it; generate the file again"
        ) from None
    for now in changed:
        was = made[now["task"]]
        raise ArtifactError(
            f"{path}: made by {was['package']} {was['version']}, but the installed {now['package']} {now['version']} "
            f"makes other samples of {now['task']}; generate the file again or install that version"
        )


def shard_range(samples: int, shard: str | None) -> tuple[int, int]:
    """The samples start..stop - 1 of shard `i/n` (i from 1); all samples for None. Raises OptionError."""
    if shard is None:
        return 0, samples
    number, slash, count = shard.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise OptionError(f'shard = "{shard}": write i/n with 1 <= i <= n, for example 3/16')
    index, total = int(number) - 1, int(count)
    if total > samples:
        raise OptionError(f'shard = "{shard}": there are only {samples} samples; use fewer shards')
    return samples * index // total, samples * (index + 1) // total


def generate(
    task: Task,
    output: Path,
    *,
    samples: int,
    seed: int = 0,
    split: str = "train",
    shard: str | None = None,
    write: Callable[[StreamPart, Path, Progress], str] = write_tensors,
    progress: Progress = lambda done: None,
) -> str:
    """Write `samples` samples of a stream (or one shard of them) to a file and return their content hash.

    `write` writes the format (see `formats.FORMATS`; default: a data artifact). `progress` is called with the number of
    finished samples of this file. Raises OptionError, ArtifactError, OSError.
    """
    if samples < 1:
        raise OptionError(f"samples = {samples}: must be at least 1")
    part = StreamPart(Stream(task, seed, split), *shard_range(samples, shard))
    with artifact.output(output):
        return write(part, output, progress)
