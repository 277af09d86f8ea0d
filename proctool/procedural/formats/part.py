"""The contents of one generated file: consecutive samples of a stream."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from proctool import artifact
from proctool.artifact.layout import DTYPE_NAMES
from proctool.procedural.samples import Samples
from proctool.procedural.streams import Stream
from proctool.procedural.task_code import code_metadata

_TOKENS_AT_ONCE = 1 << 21
"""Tokens generated and written at once: enough for speed, few enough for small machines."""
_MOST_ROWS = 8192

Progress = Callable[[int], None]


@dataclass(frozen=True)
class StreamPart:
    """The samples start..stop - 1 of a stream."""

    stream: Stream
    start: int
    stop: int

    @property
    def shape(self) -> tuple[int, int]:
        """The number of tokens per sample."""
        return self.stop - self.start, self.stream.task.length

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of the file."""
        task = self.stream.task
        return {
            "task": task.spec,
            "options": task.options,
            "seed": self.stream.seed,
            "split": self.stream.split,
            "samples": [self.start, self.stop],
            "vocab_size": task.vocab_size,
            "layout": {role: [ids.start, ids.stop] for role, ids in task.layout.items()},
            **code_metadata(task),
        }

    def pieces(self, progress: Progress = lambda done: None) -> Iterator[Samples]:
        """Its samples in order, in batches. `progress` is called with the number of finished samples."""
        rows = max(1, min(_MOST_ROWS, _TOKENS_AT_ONCE // self.shape[1]))
        for first in range(self.start, self.stop, rows):
            last = min(first + rows, self.stop)
            yield self.stream.read(first, last)
            progress(last - self.start)


class ContentHash:
    """The content hash of an artifact with the same samples; it does not depend on the file format."""

    def __init__(self, shape: tuple[int, int], dtype: Any) -> None:
        self._listed: dict[str, Any] = {
            "tokens": {"dtype": DTYPE_NAMES[dtype.__name__], "shape": list(shape)},
            "targets": {"dtype": "BOOL", "shape": list(shape)},
        }
        self._tokens, self._targets = hashlib.sha256(), hashlib.sha256()

    def add(self, samples: Samples) -> Samples:
        """Add samples to the hash and return them."""
        self._tokens.update(samples.tokens.tobytes())
        self._targets.update(samples.targets.tobytes())
        return samples

    def digest(self) -> str:
        """The hash of all added samples."""
        hashes = {"tokens": self._tokens.hexdigest(), "targets": self._targets.hexdigest()}
        return artifact.digest({name: {**each, "sha256": hashes[name]} for name, each in self._listed.items()})
