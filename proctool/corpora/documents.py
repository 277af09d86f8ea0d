"""What a corpus is: documents in a fixed order, in parts that workers read on their own."""

from __future__ import annotations

import hashlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from proctool.errors import CorpusError

TRAIN, VALIDATION = "train", "validation"

SMALL_CORPUS = 1 << 30
"""Bytes as stored below which a corpus gives 5 % of its documents to validation, and from which on it gives 1 %."""


SMALLEST_BLOCK, LARGEST_BLOCK = 16 << 20, 128 << 20


class Document(NamedTuple):
    """One document. It is bytes, which is what files hold: text is their UTF-8, decoded where a tokenizer needs it.

    Where `answer` is given, `content` is the question before it and only the answer is to be predicted.
    Where `problem` is given, the document could not be read and the line says which, why, and what to do.
    """

    content: bytes
    answer: bytes | None = None
    problem: str | None = None

    @property
    def size(self) -> int:
        """Bytes, question and answer together."""
        return len(self.content) + len(self.answer or b"")

    @property
    def digest(self) -> int:
        """A 64-bit hash of the contents, the same on every machine."""
        hashed = hashlib.blake2b(self.content, digest_size=8)
        if self.answer is not None:
            hashed.update(b"\0" + self.answer)
        return int.from_bytes(hashed.digest(), "little")


class Part(ABC):
    """A piece of a corpus. Subclasses are frozen dataclasses, sent to the worker that reads them."""

    split: str | None
    """The split its documents belong to; None where each goes by the hash of its contents."""

    @property
    @abstractmethod
    def label(self) -> str:
        """How error messages and progress name it."""

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """JSON-ready: everything that decides which documents it gives, so that it is read again when one changes."""

    @property
    @abstractmethod
    def size(self) -> int | None:
        """About how many bytes of text it holds, where that is known beforehand."""

    @property
    def work(self) -> int | None:
        """Bytes of text that take as long to tokenise as it takes to make its documents, where that is longer."""
        return self.size

    @abstractmethod
    def documents(self) -> Iterator[Document]:
        """Its documents in order. Raises CorpusError where reading cannot go on."""


@dataclass
class Skipped:
    """Bad documents that were left out, each counted once however often it is read."""

    problems: set[str] = field(default_factory=set)

    def note(self, problem: str) -> None:
        """Leave this one out."""
        self.problems.add(problem)

    @property
    def notes(self) -> tuple[str, ...]:
        """A line about them, and the first of them; none where there was none."""
        if not self.problems:
            return ()
        return (f"{bad_documents(len(self.problems))} left out, such as {min(self.problems)}",)


@dataclass(frozen=True)
class Corpus:
    """A named list of parts."""

    name: str
    """What it was opened as: `python`, `c4`, a path."""
    parts: tuple[Part, ...]
    whole: bool = False
    """Documents are kept whole within a row (questions with their answers)."""
    stored_bytes: int | None = None
    """Size of its files, where that is known beforehand."""
    notes: tuple[str, ...] = ()
    """Lines to say where it is used: what was left out, where its splits come from."""
    validation: str | None = None
    """The other corpus that its validation documents come from."""
    skipped: Skipped | None = None
    """Where bad documents are counted and left out; None where the first one is an error."""

    @property
    def block(self) -> int:
        """Bytes of text in one shard: about a thousandth of the corpus, so shards stay few and resuming cheap."""
        if self.stored_bytes is None:
            return 4 * SMALLEST_BLOCK
        return block_size(self.stored_bytes)

    @property
    def held_out(self) -> float:
        """The fraction of documents that goes to validation where the parts do not say: 5 % of a corpus under 1 GiB
        as stored, 1 % of a larger one or one of unknown size."""
        return 0.05 if self.stored_bytes is not None and self.stored_bytes < SMALL_CORPUS else 0.01

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of its splits, train and validation first."""
        own = {part.split for part in self.parts}
        names = {TRAIN, VALIDATION} if None in own else set()
        names |= {split for split in own if split is not None}
        return tuple(sorted(names, key=lambda name: (name != TRAIN, name != VALIDATION, name)))

    def documents(self, split: str | None = None) -> Iterator[Document]:
        """The documents of one split (all of them when None), in order.

        Raises CorpusError on the first bad one, unless they are to be left out.
        """
        return itertools.chain.from_iterable(self._read(part, split) for part in self.parts)

    def _read(self, part: Part, split: str | None) -> Iterator[Document]:
        if split is not None and part.split not in (None, split):
            return
        for document in part.documents():
            if document.problem and self.skipped is None:
                raise CorpusError(document.problem)
            if document.problem and self.skipped is not None:
                self.skipped.note(document.problem)
            elif split is None or split == (part.split or split_of(document.digest, self.held_out)):
                yield document


def bad_documents(count: int) -> str:
    """`1 bad document`, `2 bad documents`."""
    return f"{count} bad document{'s' if count > 1 else ''}"


def split_of(digest: int, held_out: float) -> str:
    """The split of a document by its `Document.digest`.

    The same contents always land on the same side, so exact duplicates never face each other across the split, and
    neither the order of the documents nor the presence of others matters.
    """
    return VALIDATION if digest < held_out * 2.0**64 else TRAIN


def block_size(stored_bytes: int) -> int:
    """A thousandth of the corpus as a power of two, between 16 and 128 MiB."""
    wanted = 1 << max(0, stored_bytes // 1024 - 1).bit_length()
    return min(max(SMALLEST_BLOCK, wanted), LARGEST_BLOCK)
