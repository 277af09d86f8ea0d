"""Published text files with several documents: lines joined or cut into articles, stories or programs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from proctool.corpora import compression, files, formats
from proctool.corpora.documents import TRAIN, VALIDATION, Corpus, Document, Part
from proctool.corpora.fields import program
from proctool.errors import CorpusError

_HEADING = re.compile(r"^ = [^=].* = \n?$")
_BETWEEN_STORIES = b"<|endoftext|>"


def articles(lines: Iterator[Document]) -> Iterator[Document]:
    """WikiText's lines joined into articles; each article starts with a first-level heading, ` = Title = `."""
    gathered: list[bytes] = []
    for line in lines:
        if line.problem:
            yield line
        elif _HEADING.match(line.content.decode("utf-8", "replace")) and b"".join(gathered).strip():
            yield Document(b"".join(gathered))
            gathered = [line.content]
        else:
            gathered.append(line.content)
    if b"".join(gathered).strip():
        yield Document(b"".join(gathered))


def stories(lines: Iterator[Document]) -> Iterator[Document]:
    """The stories of TinyStories' text files, without the line `<|endoftext|>` after each."""
    gathered: list[bytes] = []
    for line in lines:
        if line.problem:
            yield line
        elif line.content.strip() != _BETWEEN_STORIES:
            gathered.append(line.content)
        elif story := b"".join(gathered).strip():
            yield Document(story)
            gathered = []
    if story := b"".join(gathered).strip():
        yield Document(story)


def programs(lines: Iterator[Document]) -> Iterator[Document]:
    """The programs of CodeXGLUE's text files, which have one in a line: its code tokens with spaces between them."""
    for line in lines:
        if line.problem:
            yield line
        else:
            yield Document(program(line.content.decode().split()).encode())


LAYOUTS: Mapping[str, Callable[[Iterator[Document]], Iterator[Document]]] = {
    "articles": articles,
    "stories": stories,
    "programs": programs,
}
"""How the lines of a text file become documents."""


@dataclass(frozen=True)
class LayoutPart(Part):
    """A text file of a published corpus."""

    file: files.File
    layout: str
    split: str | None

    @property
    def label(self) -> str:
        """The file."""
        return self.file.path

    @property
    def identity(self) -> dict[str, Any]:
        """The file by name and contents."""
        return {self.layout: self.file.identity, "split": self.split}

    @property
    def size(self) -> int | None:
        """Bytes."""
        return self.file.size

    def documents(self) -> Iterator[Document]:
        """Documents in order. Raises CorpusError."""
        self.file.check_unchanged()
        try:
            with compression.opened(self.file.path) as file:
                lines = (formats.checked_utf8(line, self.file.path) for line in file)
                yield from (each for each in LAYOUTS[self.layout](lines) if each.content or each.problem)
        except compression.broken_file_errors() as error:
            raise CorpusError(formats.damaged(self.file.path, error)) from None
        except OSError as error:
            raise CorpusError(f"{self.file.path}: {error.strerror or error}") from None
        self.file.check_unchanged()


def open_text(name: str, found: list[files.File], layout: str) -> Corpus:
    """Text files of a published corpus: train, valid and test by name; test is a separate split."""
    ordered = sorted(found, key=lambda file: (not is_validation(file.name), "train" in file.name, file.name))
    parts = [LayoutPart(file, layout, split_of(file.name)) for file in ordered]
    if TRAIN not in {part.split for part in parts}:
        parts = [replace(part, split=None) for part in parts]
    return Corpus(name, tuple(parts), stored_bytes=sum(file.size for file in found))


def split_of(name: str) -> str:
    """The split that a file belongs to by its name."""
    return VALIDATION if is_validation(name) else "test" if "test" in Path(name).name else TRAIN


def is_validation(name: str) -> bool:
    """Whether a file is a validation split by its name."""
    return re.search(r"valid|\bval\b|\bdev\b", name.rpartition("/")[2]) is not None
