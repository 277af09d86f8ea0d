"""Rows of exactly `context` tokens, read from memory-mapped shards."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from proctool import artifact
from proctool.corpora.documents import TRAIN, VALIDATION, bad_documents, no_validation
from proctool.corpora.shards import KIND, Shard
from proctool.errors import ArtifactError, CorpusError
from proctool.procedural.samples import Samples
from proctool.units import counted

_MAPPED = 256
"""Shards mapped at a time: each uses one or two of the process's file descriptors (usually 1024)."""


@functools.lru_cache(maxsize=_MAPPED)
def mapped(path: Path) -> dict[str, NDArray[Any]]:
    """A shard's tensors, memory-mapped. Raises CorpusError if the shard is missing or damaged."""
    try:
        return artifact.read_numpy(artifact.open_artifact(path, KIND), check=False)
    except ArtifactError as error:
        raise CorpusError(f"{error}; delete it and open the corpus again to rebuild it") from None


@functools.lru_cache(maxsize=_MAPPED)
def _windows(path: Path, name: str, context: int) -> NDArray[Any]:
    """All windows of `context` tokens of a shard, without copying: (tokens - context + 1, context)."""
    tokens = mapped(path)[name]
    if len(tokens) < context:
        return np.empty((0, context), tokens.dtype)
    return sliding_window_view(tokens, context)


@dataclass(frozen=True)
class Placement:
    """The positions of rows in a split's tokens, with all shards concatenated."""

    starts: Callable[[NDArray[np.int64]], NDArray[np.int64]]
    """Position of each row's first token."""
    lengths: Callable[[NDArray[np.int64]], NDArray[np.int64]] | None
    """Tokens in each row without padding; None if every row is full."""
    rows: int


def packed(tokens: int, context: int) -> Placement:
    """Consecutive rows that use all tokens but the tail."""
    return Placement(lambda rows: rows * context, None, tokens // context)


def whole_documents(ends: Sequence[NDArray[np.uint32]], context: int) -> Placement:
    """Rows with as many whole documents as fit; documents longer than a row are skipped.

    `ends` has the ends of the documents for each shard.
    """
    starts, lengths, base = [], [], 0
    for shard_ends in ends:
        first, filled = _filled(shard_ends.astype(np.int64), context)
        starts.append(first + base)
        lengths.append(filled)
        base += int(shard_ends[-1]) if len(shard_ends) else 0
    all_starts = np.concatenate([np.empty(0, np.int64), *starts])
    all_lengths = np.concatenate([np.empty(0, np.int64), *lengths])
    return Placement(lambda rows: all_starts[rows], lambda rows: all_lengths[rows], len(all_starts))


def _filled(ends: NDArray[np.int64], context: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Fill rows greedily with the documents of one shard: starts and lengths of the rows."""
    begins = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
    # For a row that starts at each document: the first document that no longer fits. Vectorised over documents.
    following = np.searchsorted(ends, begins + context, side="right").tolist()
    chosen, stops = [], []
    document = 0
    while document < len(following):
        beyond = following[document]
        if beyond > document:
            chosen.append(document)
            stops.append(beyond - 1)
        document = max(beyond, document + 1)
    starts = begins[chosen]
    return starts, ends[stops] - starts


def _empty(name: str, shards: Sequence[Shard], split: str, bad: int) -> str:
    """The error line for a split without documents."""
    if bad:
        return (
            f"corpus {name}: its {split} split is empty, and {bad_documents(bad)} skipped; run without --skip-bad to "
            "see the errors"
        )
    others = sorted({other for shard in shards for other in shard.splits if shard.count(other, "documents")})
    found = sum(shard.count(other, "documents") for shard in shards for other in others)
    if not found:
        return f"corpus {name}: all of its documents are empty; give other files, or another --text-field"
    if split == TRAIN and others == [VALIDATION]:
        return f"corpus {name}: all of its {found} documents are also in validation; give other training documents"
    if split == VALIDATION:
        return no_validation(name, found, others)
    where = f"{found} document{'s are' if found > 1 else ' is'} in {' and '.join(others)}"
    return f"corpus {name}: its {split} split is empty ({where}); give more"


class Rows:
    """One split of a token store as rows.

    `documents`, `bytes` and `tokens` count the whole split, including end-of-text tokens. A loss per token divided by
    `bytes / tokens` is a loss per byte.
    """

    def __init__(
        self, name: str, folder: Path, shards: Sequence[Shard], split: str, context: int, eos_id: int,
        dtype: type[np.unsignedinteger[Any]], *, whole: bool, most: int | None = None, bad: int = 0,
    ) -> None:  # fmt: skip
        self.split = split
        self.context = context
        self._eos_id = eos_id
        self._dtype = dtype
        self._whole = whole
        held = [shard for shard in shards if shard.count(split, "tokens")]
        self._paths = [folder / shard.file for shard in held]
        self._bounds = np.cumsum([0, *(shard.count(split, "tokens") for shard in held)])
        self.documents, self.bytes, self.tokens = (
            sum(shard.count(split, what) for shard in held) for what in ("documents", "bytes", "tokens")
        )
        if whole:
            self._placed = whole_documents([mapped(path)[f"{split}.ends"] for path in self._paths], context)
        else:
            self._placed = packed(self.tokens, context)
        self._count = self._placed.rows if most is None else min(self._placed.rows, most)
        if self._count == 0:
            if not self.documents:
                raise CorpusError(_empty(name, shards, split, bad))
            longest = " that fit" if whole and self.tokens >= context else ""
            raise CorpusError(
                f"corpus {name}: its {split} split has {counted(self.documents, 'document', exact=True)} with "
                f"{counted(self.tokens, 'token', exact=True)}{longest}, too few for one row of {context}; "
                "give more text or a smaller --context"
            )

    def __len__(self) -> int:
        return self._count

    def read(self, indices: NDArray[np.integer[Any]]) -> Samples:
        """The rows at `indices`: tokens (n, context) and targets (n, context).

        Every token but the first of a row is a target; for questions with answers, only the answers and their
        end-of-text are. Raises IndexError beyond the last row, CorpusError if a shard is missing.
        """
        rows = np.asarray(indices, np.int64)
        if len(rows) and not (rows.min() >= 0 and rows.max() < self._count):
            raise IndexError(f"rows {rows.min()}..{rows.max()} of {self._count}")
        starts = self._placed.starts(rows)
        lengths = self._placed.lengths(rows) if self._placed.lengths else None
        tokens = np.empty((len(rows), self.context), self._dtype)
        self._gather(self.split, starts, lengths, tokens)
        if self._whole:
            targets = np.empty(tokens.shape, bool)
            self._gather(f"{self.split}.targets", starts, lengths, targets)
        else:
            targets = np.ones(tokens.shape, bool)
            targets[:, 0] = False
        if lengths is not None:
            filling = np.arange(self.context) >= lengths[:, None]
            tokens[filling] = self._eos_id
            targets[filling] = False
        return Samples(tokens, targets)

    def _gather(
        self, name: str, starts: NDArray[np.int64], lengths: NDArray[np.int64] | None, out: NDArray[Any]
    ) -> None:
        homes = np.searchsorted(self._bounds, starts, side="right") - 1
        first = starts - self._bounds[homes]
        for home in set(homes.tolist()):
            windows = _windows(self._paths[home], name, self.context)
            inside = np.flatnonzero((homes == home) & (first < len(windows)))
            out[inside] = windows[first[inside]]
            for row in np.flatnonzero((homes == home) & (first >= len(windows))):
                length = self.context if lengths is None else int(lengths[row])
                out[row, :length] = self._across(name, int(starts[row]), length)

    def _across(self, name: str, start: int, length: int) -> NDArray[Any]:
        """The tokens start..start + length - 1, which may span several shards."""
        pieces = []
        home = int(np.searchsorted(self._bounds, start, side="right")) - 1
        while length:
            first = start - int(self._bounds[home])
            piece = mapped(self._paths[home])[name][first : first + length]
            pieces.append(piece)
            start, length, home = start + len(piece), length - len(piece), home + 1
        return np.concatenate(pieces)
