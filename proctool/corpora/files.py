"""Local files as corpora: their identity, and their division into parts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proctool.corpora import formats, kinds
from proctool.corpora.documents import Document, Part, block_size
from proctool.errors import CorpusError

HASHED_BELOW = 256 << 20
"""Total bytes up to which files are identified by their contents; above it by size and modification time."""


@dataclass(frozen=True)
class File:
    """The state of a file when the corpus was opened."""

    path: str
    name: str
    """Its path relative to the opened folder, the same on every machine."""
    size: int
    mtime_ns: int
    digest: str | None = None
    """SHA-256 of its contents, if the corpus is small enough to read it twice."""

    @property
    def identity(self) -> list[Any]:
        """The values that show whether the file changed."""
        return [self.name, self.size, self.digest if self.digest is not None else self.mtime_ns]

    def check_unchanged(self) -> None:
        """Raise CorpusError if the file changed."""
        try:
            now = os.stat(self.path)
        except OSError as error:
            raise CorpusError(
                f"{self.path}: {error.strerror or error}; it existed when the build started: restore it"
            ) from None
        if (now.st_size, now.st_mtime_ns) != (self.size, self.mtime_ns):
            raise CorpusError(
                f"{self.path}: changed while the corpus was being read; run again to read the new contents"
            )


@dataclass(frozen=True)
class Span:
    """A range of one file, in bytes (text and JSON lines) or row groups (parquet); `stop` None is the end."""

    file: File
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True)
class FilesPart(Part):
    """Consecutive files, or a range of a large file."""

    spans: tuple[Span, ...]
    text_field: str = "text"
    split: str | None = None
    reading: str | None = None
    """The format (see `formats.READERS`); None: by each file's suffix."""

    @property
    def label(self) -> str:
        """The first file and the number of others."""
        first = self.spans[0]
        more = f" and {len(self.spans) - 1} more" if len(self.spans) > 1 else ""
        place = f" from {first.start}" if first.start else ""
        return f"{first.file.path}{place}{more}"

    @property
    def identity(self) -> dict[str, Any]:
        """Files by name and contents, ranges, the field and the format."""
        tables = any(kinds.kind_of(span.file.path) == "table" for span in self.spans) and self.reading is None
        return {
            # Earlier versions read table files as text.
            **({"kinds": [kinds.kind_of(span.file.path) for span in self.spans]} if tables else {}),
            "files": [[*span.file.identity, span.start, span.stop] for span in self.spans],
            "text_field": self.text_field,
            "split": self.split,
            "reading": self.reading,
            "formats": formats.VERSION,
        }

    @property
    def size(self) -> int | None:
        """Size of the files in bytes."""
        return sum(
            span.file.size if span.stop is None or kinds.kind_of(span.file.path) == "parquet"
            else min(span.stop, span.file.size) - span.start
            for span in self.spans
        )  # fmt: skip

    def documents(self) -> Iterator[Document]:
        """The documents of each span in order; each file is checked for changes before and after."""
        for span in self.spans:
            span.file.check_unchanged()
            yield from formats.read(span.file.path, span.start, span.stop, self.text_field, self.reading)
            span.file.check_unchanged()


def listed(found: Iterable[tuple[Path, str]]) -> list[File]:
    """The current state of files; contents are hashed if the total size is small. Raises CorpusError."""
    files = []
    for path, name in found:
        try:
            status = path.stat()
        except OSError as error:
            raise CorpusError(f"{path}: {error.strerror or error}") from None
        files.append(File(str(path.absolute()), name, status.st_size, status.st_mtime_ns))
    if sum(file.size for file in files) > HASHED_BELOW:
        return files
    return [File(file.path, file.name, file.size, file.mtime_ns, _digest(file.path)) for file in files]


def _digest(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise CorpusError(f"{path}: {error.strerror or error}") from None


def parts_of(
    files: Sequence[File], *, text_field: str = "text", split: str | None = None, reading: str | None = None
) -> tuple[FilesPart, ...]:
    """Divide files into parts of about one block: small files together, large files in ranges.

    A compressed file cannot be read from the middle, so it is one part, whatever its size.
    """
    block = block_size(sum(file.size for file in files))
    parts: list[FilesPart] = []
    group: list[Span] = []

    def close() -> None:
        if group:
            parts.append(FilesPart(tuple(group), text_field, split, reading))
            group.clear()

    filled = 0
    for file in files:
        pieces = formats.stretches(file.path, file.size, block, reading)
        if len(pieces) > 1 or filled + file.size > block:
            close()
            filled = 0
        for start, stop in pieces:
            group.append(Span(file, start, stop))
            if len(pieces) > 1:
                close()
        filled += 0 if len(pieces) > 1 else file.size
    close()
    return tuple(parts)
