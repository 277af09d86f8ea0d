"""WikiText: lines joined into articles, from the published text files or from the records on the hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proctool.corpora import compression, files, formats
from proctool.corpora.documents import TRAIN, VALIDATION, Corpus, Document, Part
from proctool.errors import CorpusError

_HEADING = re.compile(r"^ = [^=].* = \n?$")


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


@dataclass(frozen=True)
class ArticlesPart(Part):
    """One of WikiText's text files."""

    file: files.File
    split: str | None

    @property
    def label(self) -> str:
        """The file."""
        return self.file.path

    @property
    def identity(self) -> dict[str, Any]:
        """The file by name and contents."""
        return {"articles": self.file.identity, "split": self.split}

    @property
    def size(self) -> int | None:
        """Bytes."""
        return self.file.size

    def documents(self) -> Iterator[Document]:
        """Articles in order. Raises CorpusError."""
        self.file.check_unchanged()
        try:
            with compression.opened(self.file.path) as file:
                yield from articles(formats.checked_utf8(line, self.file.path) for line in file)
        except compression.broken_file_errors() as error:
            raise CorpusError(formats.damaged(self.file.path, error)) from None
        except OSError as error:
            raise CorpusError(f"{self.file.path}: {error.strerror or error}") from None
        self.file.check_unchanged()


def open_wikitext(name: str, found: list[files.File]) -> Corpus:
    """WikiText as text files: train, valid and test by name; test is a separate split."""
    parts = []
    for file in sorted(found, key=lambda file: (not is_validation(file.name), "train" in file.name, file.name)):
        split = VALIDATION if is_validation(file.name) else "test" if "test" in Path(file.name).name else TRAIN
        parts.append(ArticlesPart(file, split))
    if TRAIN not in {part.split for part in parts}:
        parts = [ArticlesPart(part.file, None) for part in parts]
    return Corpus(name, tuple(parts), stored_bytes=sum(file.size for file in found))


def is_validation(name: str) -> bool:
    """Whether a file is a validation split by its name."""
    return re.search(r"valid|\bval\b|\bdev\b", name.rpartition("/")[2]) is not None
