"""Opening a corpus by name, path, pattern or hub id."""

from __future__ import annotations

from collections.abc import Sequence

from proctool.corpora import files, installed
from proctool.corpora.documents import Corpus, Part

DEFAULT_FIELD = "text"


def open_corpus(name: str, *, text_field: str | None = None) -> Corpus:
    """The corpus that `name` names.

    `python`            the standard library's sources; `python:site` adds the installed packages'
    a file, a folder or a glob pattern (.txt, source code, .jsonl, .parquet; .gz or .zst)

    `text_field` is the field of JSON lines and parquet that holds the text. Raises CorpusError when there is nothing
    of that name, or nothing to read in it.
    """
    base, _, variant = name.partition(":")
    if base == "python" and variant in ("", "site"):
        sources = installed.standard_library()
        if variant:
            sources += installed.site_packages()
        return _of_files(name, sources)
    return _of_files(name, files.listed(files.find(name)), text_field or DEFAULT_FIELD)


def _of_files(name: str, found: Sequence[files.File], text_field: str = DEFAULT_FIELD) -> Corpus:
    parts: tuple[Part, ...] = files.parts_of(found, text_field=text_field)
    return Corpus(name, parts, stored_bytes=sum(file.size for file in found))
