"""Make shards from the documents of one part: the work of a token-store worker."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proctool import artifact
from proctool.corpora.documents import TRAIN, Document, Part, split_of
from proctool.corpora.tokenizers import Ids, Tokenizer
from proctool.errors import ArtifactError, CorpusError

FORMAT = 1
KIND = "tokens"

_BATCH_BYTES = 1 << 20
"""Bytes of text encoded at once; the encodings of a batch take about fifty times its size."""
_BATCH_DOCUMENTS = 4096
_BATCH_SECONDS = 2.0
"""Seconds between progress reports of a slow source (generated questions)."""

Report = Callable[[int, int, int], None]
"""Called after each batch with the number of added documents, bytes and tokens."""


@dataclass(frozen=True)
class ShardJob:
    """Everything that decides how a part becomes shards, and their folder."""

    part: Part
    tokenizer: Tokenizer
    folder: Path
    corpus: str
    block: int
    held_out: float
    whole: bool
    excluded: NDArray[np.uint64]
    """Sorted digests of documents in the corpus's own other splits, which must not appear in train."""

    @property
    def key(self) -> str:
        """The hash of everything that decides the part's shards; it names them."""
        excludes = self.part.split == TRAIN or (self.part.split is None and len(self.excluded) > 0)
        shaped = {
            "format": FORMAT,
            "part": self.part.identity,
            "tokenizer": self.tokenizer.fingerprint,
            "block": self.block,
            "held_out": self.held_out if self.part.split is None else None,
            "whole": self.whole,
            "excluded": hashlib.sha256(self.excluded.tobytes()).hexdigest() if excludes else None,
        }
        return hashlib.sha256(artifact.canonical(shaped).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Shard:
    """The metadata of a shard."""

    file: str
    last: bool
    """Whether it is the last shard of its part."""
    read: int
    """Documents of the part up to its end, including bad ones; the next shard starts there."""
    skipped: int
    """Skipped bad documents."""
    splits: dict[str, dict[str, int]]
    """Numbers of documents, bytes and tokens by split."""
    content: str
    excluded: int = 0
    """Documents skipped because they are also in another split of the corpus."""

    def count(self, split: str, what: str) -> int:
        """The number of `what` ("tokens", "bytes", "documents") of a split in it."""
        return self.splits.get(split, {}).get(what, 0)


def existing(folder: Path, key: str) -> list[Shard]:
    """The finished shards of a part, in order. The list ends before a damaged shard, which is built again."""
    found: list[Shard] = []
    while not found or not found[-1].last:
        path = folder / _name(key, len(found))
        try:
            header = artifact.open_artifact(path, KIND)
            found.append(_described(header))
        except (ArtifactError, KeyError, TypeError, ValueError, AttributeError):
            break
    return found


def _name(key: str, number: int) -> str:
    return f"{key}-{number:05d}.safetensors"


def _described(header: artifact.Artifact) -> Shard:
    metadata = header.metadata
    splits = {
        str(split): {what: int(counts[what]) for what in ("documents", "bytes", "tokens")}
        for split, counts in metadata["splits"].items()
    }
    return Shard(
        header.path.name,
        bool(metadata["last"]),
        int(metadata["read"]),
        int(metadata["skipped"]),
        splits,
        header.content,
        int(metadata.get("excluded", 0)),
    )


def build_part(
    job: ShardJob, report: Report, *, stop_at: tuple[str, int] | None = None, skip_bad: bool = False
) -> list[Shard]:
    """Build the missing shards of the part, and return all its shards.

    `stop_at` = (what, n) stops after the shard where the part has n tokens or bytes in all splits but validation. A
    shard appears complete or not at all, so a killed process loses at most one shard.
    Raises CorpusError for a bad document (unless `skip_bad`), or if reading cannot continue.
    """
    shards = existing(job.folder, job.key)
    documents: Iterator[Document] | None = None
    while not (shards and shards[-1].last) and not _enough(shards, job.part, stop_at):
        if documents is None:
            done = shards[-1].read if shards else 0
            documents = itertools.islice(job.part.documents(), done, None)
        shards.append(_build_shard(job, documents, shards, report, skip_bad))
    return shards


def _enough(shards: list[Shard], part: Part, stop_at: tuple[str, int] | None) -> bool:
    if stop_at is None:
        return False
    what, wanted = stop_at
    return sum(shard.count(part.split or TRAIN, what) for shard in shards) >= wanted


@dataclass
class _Gathered:
    """One split of the current shard."""

    tokens: list[Ids] = field(default_factory=list)
    targets: list[NDArray[np.bool_]] = field(default_factory=list)
    lengths: list[NDArray[np.int64]] = field(default_factory=list)
    digests: list[NDArray[np.uint64]] = field(default_factory=list)
    documents: int = 0
    bytes: int = 0


def _build_shard(
    job: ShardJob, documents: Iterator[Document], before: list[Shard], report: Report, skip_bad: bool
) -> Shard:
    gathered: dict[str, _Gathered] = {}
    read, skipped, excluded, filled, last = before[-1].read if before else 0, 0, 0, 0, True
    batch: list[Document] = []
    batch_bytes, began = 0, time.monotonic()
    for document in documents:
        read += 1
        if document.problem is not None:
            if not skip_bad:
                raise CorpusError(document.problem)
            skipped += 1
            continue
        batch.append(document)
        batch_bytes += document.size
        filled += document.size
        slow = time.monotonic() - began > _BATCH_SECONDS
        if batch_bytes >= _BATCH_BYTES or len(batch) >= _BATCH_DOCUMENTS or slow:
            excluded += _encode(job, batch, gathered, report)
            batch, batch_bytes, began = [], 0, time.monotonic()
        if filled >= job.block:
            last = False
            break
    excluded += _encode(job, batch, gathered, report)
    tensors: dict[str, NDArray[Any]] = {}
    counts = {}
    for split, piece in sorted(gathered.items()):
        tensors |= _tensors(split, piece, job)
        tokens = sum(map(len, piece.tokens))
        counts[split] = {"documents": piece.documents, "bytes": piece.bytes, "tokens": tokens}
    metadata: dict[str, Any] = {"corpus": job.corpus, "tokenizer": job.tokenizer.spec, "splits": counts}
    metadata |= {"last": last, "read": read, "skipped": skipped} | ({"excluded": excluded} if excluded else {})
    path = job.folder / _name(job.key, len(before))
    return _described(artifact.write(path, tensors, kind=KIND, metadata=metadata))


def _tensors(split: str, piece: _Gathered, job: ShardJob) -> dict[str, NDArray[Any]]:
    """The tensors of a split: its tokens, ends and targets of documents kept whole, digests of own splits."""
    tensors: dict[str, NDArray[Any]] = {split: np.concatenate(piece.tokens)}
    if job.whole:
        tensors[f"{split}.ends"] = np.cumsum(np.concatenate(piece.lengths)).astype(np.uint32)
        tensors[f"{split}.targets"] = np.concatenate(piece.targets)
    if job.part.split not in (None, TRAIN):
        tensors[f"{split}.digests"] = np.unique(np.concatenate(piece.digests))
    return tensors


def _encode(job: ShardJob, batch: list[Document], gathered: dict[str, _Gathered], report: Report) -> int:
    """Encode a batch and add its documents to their splits, each followed by end-of-text.

    Returns the number of documents that are skipped because they are also in another split.
    """
    if not batch:
        return 0
    given = len(batch)
    digests = np.array([document.digest for document in batch], np.uint64)
    if job.part.split in (None, TRAIN) and len(job.excluded):
        nearest = np.minimum(np.searchsorted(job.excluded, digests), len(job.excluded) - 1)
        kept = job.excluded[nearest] != digests
        batch, digests = [document for document, keep in zip(batch, kept, strict=True) if keep], digests[kept]
    splits = [job.part.split or split_of(int(digest), job.held_out) for digest in digests]
    end = np.array([job.tokenizer.eos_id], job.tokenizer.dtype)
    encoded = iter(job.tokenizer.encode_batch([text for document in batch for text in _texts(document)]))
    pieces: dict[str, list[Ids]] = {}
    marks: dict[str, list[NDArray[np.bool_]]] = {}
    for document, split in zip(batch, splits, strict=True):
        question = next(encoded)
        answer = end if document.answer is None else np.concatenate([next(encoded), end])
        pieces.setdefault(split, []).extend((question, answer))
        piece = gathered.setdefault(split, _Gathered())
        piece.documents += 1
        piece.bytes += document.size
        if job.whole:
            mark = np.zeros(len(question) + len(answer), bool)
            mark[len(question) if document.answer is not None else 1 :] = True
            marks.setdefault(split, []).append(mark)
    tokens = 0
    for split, arrays in pieces.items():
        piece = gathered[split]
        piece.tokens.append(np.concatenate(arrays).astype(job.tokenizer.dtype, copy=False))
        tokens += len(piece.tokens[-1])
        if job.whole:
            piece.targets.append(np.concatenate(marks[split]))
            piece.lengths.append(np.array([len(mark) for mark in marks[split]], np.int64))
        if job.part.split not in (None, TRAIN):
            piece.digests.append(digests)
    report(len(batch), sum(document.size for document in batch), tokens)
    return given - len(batch)


def _texts(document: Document) -> tuple[bytes, ...]:
    return (document.content,) if document.answer is None else (document.content, document.answer)
