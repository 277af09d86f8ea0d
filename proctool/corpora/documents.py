"""A corpus: documents in a fixed order, in parts that workers read independently."""

from __future__ import annotations

import hashlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from proctool.errors import CorpusError

TRAIN, VALIDATION = "train", "validation"

SMALL_CORPUS = 1 << 30
"""File size of a corpus in bytes: below it 5 % of the documents are for validation, from it on 1 %."""


SMALLEST_BLOCK, LARGEST_BLOCK = 16 << 20, 128 << 20


class Document(NamedTuple):
    """One document as bytes. Text is UTF-8 and decoded only when a tokenizer needs it.

    With `answer`, `content` is the question before it, and only the answer is a target. With `problem`, the document
    could not be read, and the line says which document, why, and what to do.
    """

    content: bytes
    answer: bytes | None = None
    problem: str | None = None

    @property
    def size(self) -> int:
        """Number of bytes of question and answer together."""
        return len(self.content) + len(self.answer or b"")

    @property
    def digest(self) -> int:
        """A 64-bit hash of the contents, the same on every machine."""
        hashed = hashlib.blake2b(self.content, digest_size=8)
        if self.answer is not None:
            hashed.update(b"\0" + self.answer)
        return int.from_bytes(hashed.digest(), "little")


class Part(ABC):
    """A piece of a corpus. Subclasses are frozen dataclasses that are sent to workers."""

    split: str | None
    """The split of its documents; None if the hash of each document decides."""

    @property
    @abstractmethod
    def label(self) -> str:
        """Its name in error messages and progress."""

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Everything that decides its documents, JSON-ready; the part is read again if this changes."""

    @property
    @abstractmethod
    def size(self) -> int | None:
        """Approximate bytes of text, if known before reading."""

    @property
    def work(self) -> int | None:
        """The work of this part, as the bytes of text that take equally long to tokenise."""
        return self.size

    @abstractmethod
    def documents(self) -> Iterator[Document]:
        """Its documents in order. Raises CorpusError if reading cannot continue."""


@dataclass
class Skipped:
    """The skipped bad documents; each counts once, however often it is read."""

    problems: set[str] = field(default_factory=set)

    def note(self, problem: str) -> None:
        """Skip this document."""
        self.problems.add(problem)

    @property
    def notes(self) -> tuple[str, ...]:
        """A line with their number and the first of them; empty if there are none."""
        if not self.problems:
            return ()
        return (f"{bad_documents(len(self.problems))} skipped, for example {min(self.problems)}",)


@dataclass(frozen=True)
class Corpus:
    """A named list of parts."""

    name: str
    """The name it was opened with: `python`, `c4`, a path."""
    parts: tuple[Part, ...]
    whole: bool = False
    """Whether documents are kept whole within a row (questions with their answers)."""
    stored_bytes: int | None = None
    """Size of its files, if known before reading."""
    notes: tuple[str, ...] = ()
    """Notes for the user: skipped files, the origin of its splits."""
    validation: str | None = None
    """The other corpus that gives its validation documents."""
    skipped: Skipped | None = None
    """Counts skipped bad documents; None if the first bad document is an error."""

    @property
    def block(self) -> int:
        """Bytes of text per shard: about a thousandth of the corpus, so that shards are few and resuming is cheap."""
        if self.stored_bytes is None:
            return 4 * SMALLEST_BLOCK
        return block_size(self.stored_bytes)

    @property
    def held_out(self) -> float:
        """The share of documents for validation if the parts set no split: 5 % of a corpus with files under 1 GiB, 1 %
        of a larger corpus or one of unknown size."""
        return 0.05 if self.stored_bytes is not None and self.stored_bytes < SMALL_CORPUS else 0.01

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of its splits, train and validation first."""
        own = {part.split for part in self.parts}
        names = {TRAIN, VALIDATION} if None in own else set()
        names |= {split for split in own if split is not None}
        return tuple(sorted(names, key=lambda name: (name != TRAIN, name != VALIDATION, name)))

    def documents(self, split: str | None = None) -> Iterator[Document]:
        """The documents of one split (of all splits if None), in order.

        Raises CorpusError at the first bad document, unless bad documents are skipped.
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


def no_validation(name: str, documents: int, splits: Sequence[str] = (TRAIN,)) -> str:
    """The error line for a corpus that has so many documents, all of them in other splits."""
    which = "its only document is" if documents == 1 else f"all of its {documents} documents are"
    return (
        f"corpus {name}: its validation split is empty ({which} in {' and '.join(splits)}); give a folder or more "
        "documents, or a validation corpus (--validation, or `validation:` under `pretrain` in a recipe)"
    )


def bad_documents(count: int) -> str:
    """`1 bad document`, `2 bad documents`."""
    return f"{count} bad document{'s' if count > 1 else ''}"


def split_of(digest: int, held_out: float) -> str:
    """The split of a document by its `Document.digest`.

    Equal contents always get the same split, so exact duplicates are never in both. The order and the other documents
    do not matter.
    """
    return VALIDATION if digest < held_out * 2.0**64 else TRAIN


def block_size(stored_bytes: int) -> int:
    """A thousandth of the corpus as a power of two, between 16 and 128 MiB."""
    wanted = 1 << max(0, stored_bytes // 1024 - 1).bit_length()
    return min(max(SMALLEST_BLOCK, wanted), LARGEST_BLOCK)
