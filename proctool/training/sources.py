"""Sources of training data. A source returns the samples at given positions, always with the same bits."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from proctool.procedural.dataset import DataFile
from proctool.procedural.registry import Task
from proctool.procedural.samples import Samples
from proctool.procedural.streams import Stream
from proctool.procedural.task_code import code_metadata

if TYPE_CHECKING:
    from proctool.corpora.noise import TokenNoise

Made = TypeVar("Made")


class Source(Protocol):
    """An index-addressed source of samples. To resume, a run needs only the next index."""

    @property
    def vocab_size(self) -> int:
        """Size of the vocabulary; all token ids are smaller."""

    @property
    def length(self) -> int:
        """Tokens in one sample."""

    def read(self, start: int, stop: int) -> Samples:
        """Samples start..stop - 1 of the training order."""

    def metadata(self) -> dict[str, Any]:
        """What an artifact records about the source."""


def held_out_samples(source: Source, asked: int) -> int:
    """The number of samples to score: `asked`, but at most the size of a finite source, so that none counts twice."""
    return min(asked, getattr(source, "size", asked))


class TaskSource:
    """A task's endless stream."""

    def __init__(self, task: Task, seed: int, split: str = "train") -> None:
        self.stream = Stream(task, seed, split)
        self.vocab_size = task.vocab_size
        self.length = task.length

    def read(self, start: int, stop: int) -> Samples:
        """Samples start..stop - 1 of the stream."""
        return self.stream.read(start, stop)

    def metadata(self) -> dict[str, Any]:
        """Task, seed and split; for tasks of other packages also their code."""
        task = self.stream.task
        return {"task": task.spec, "seed": self.stream.seed, "split": self.stream.split, **code_metadata(task)}


class FileSource:
    """A file made by `proctool generate`, repeated in its order. Raises ArtifactError."""

    def __init__(self, path: Path) -> None:
        self.file = DataFile.open(path)
        self.vocab_size = self.file.task.vocab_size
        self.length = self.file.samples.tokens.shape[1]
        self.size = len(self.file.samples)

    def read(self, start: int, stop: int) -> Samples:
        """Samples start..stop - 1, wrapping around at the file's end."""
        import numpy as np

        rows = np.arange(start, stop) % len(self.file.samples)
        return Samples(self.file.samples.tokens[rows], self.file.samples.targets[rows])

    def metadata(self) -> dict[str, Any]:
        """Task, seed, split and code, as the file records them."""
        code = {"code": self.file.code} if self.file.code else {}
        return {"task": self.file.task.spec, "seed": self.file.seed, "split": self.file.split, **code}


class CorpusSource:
    """A token store's rows, in a seeded order that changes each epoch."""

    def __init__(
        self, rows: Any, vocab_size: int, seed: int, metadata: dict[str, Any], noise: TokenNoise | None = None
    ) -> None:
        from proctool.corpora.order import RowOrder

        self.rows = rows
        self.vocab_size = vocab_size
        self.length = int(rows.context)
        self.size = len(rows)
        self.order = RowOrder(len(rows), seed)
        self.noise = noise
        self._metadata = metadata

    def read(self, start: int, stop: int) -> Samples:
        """The rows at positions start..stop - 1 of the training order."""
        rows = self.order.indices(start, stop)
        samples: Samples = self.rows.read(rows)
        return samples if self.noise is None else self.noise.applied(samples, rows)

    def metadata(self) -> dict[str, Any]:
        """Corpus, tokenizer and the store's content hash."""
        return self._metadata


def read_ahead(
    source: Source, first: int, last: int, batch: int, make: Callable[[Samples], Made], depth: int = 1
) -> Generator[Made, None, None]:
    """Yield `make(samples)` for batches `first`..`last` - 1 of `batch` samples; a thread prepares the next `depth`."""

    def prepare(number: int) -> Made:
        return make(source.read(number * batch, (number + 1) * batch))

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead") as pool:
        numbers = iter(range(first, last))
        coming = deque(pool.submit(prepare, number) for number in itertools.islice(numbers, depth))
        try:
            while coming:
                made = coming.popleft().result()
                coming.extend(pool.submit(prepare, number) for number in itertools.islice(numbers, 1))
                yield made
        finally:
            pool.shutdown(cancel_futures=True)  # drop the batches that nobody will read
