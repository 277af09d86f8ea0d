"""Opening a corpus by name, path, pattern or hub id."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from proctool import config
from proctool.cache import cache_folder
from proctool.corpora import files, hub, installed, mathematics
from proctool.corpora.documents import Corpus, Part
from proctool.errors import CorpusError

DEFAULT_FIELD = "text"

NAMES = {
    "python": "the standard library's sources; python:site adds the installed packages'",
    "docstrings": "English from the docstrings of all installed Python",
    "mathematics": "questions made on the spot ([math]); mathematics:30000 a module; mathematics:FOLDER a tree",
    "c4": "allenai/c4 en, streamed; c4:FOLDER local files of its schema",
    "codeparrot": "codeparrot/codeparrot-clean-train and -valid, streamed; codeparrot:FOLDER",
    "wikitext": "WikiText-103 (raw); wikitext:FOLDER",
    "wikitext-2": "WikiText-2 (raw); wikitext-2:FOLDER",
}


def open_corpus(name: str, *, text_field: str | None = None, cache_dir: Path | str | None = None) -> Corpus:
    """The corpus that `name` names.

    A name of the table above; a file, folder or glob pattern (.txt, source code, .jsonl, .parquet; .gz or .zst); or
    hub:OWNER/NAME[:CONFIGURATION] for any dataset of the hub (`hub:` may be left out where no such path exists).
    `text_field` is the field of a record that holds its text. Raises CorpusError when there is nothing of that name,
    or nothing to read in it.
    """
    base, _, variant = name.partition(":")
    if base == "python" and variant in ("", "site"):
        sources = installed.standard_library()
        if variant:
            sources += installed.site_packages()
        return _of_files(name, sources, DEFAULT_FIELD)
    if name == "docstrings":
        sources = installed.standard_library() + installed.site_packages()
        return Corpus(name, installed.docstrings(sources), stored_bytes=sum(file.size for file in sources) // 10)
    if base == "mathematics":
        return mathematics.open_mathematics(name, variant)
    memory = Path(cache_dir or cache_folder()) / "hub"
    if base in hub.PUBLISHED:
        return hub.open_published(name, hub.PUBLISHED[base], variant, text_field, memory)
    field = text_field or DEFAULT_FIELD
    if base == "hub" or (re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.-]+)?", name) and not Path(name).exists()):
        repository, _, configuration = name.removeprefix("hub:").partition(":")
        return hub.open_repository(name, repository, configuration or None, field, memory)
    if re.fullmatch(r"[\w-]+", name) and not Path(name).exists():
        raise CorpusError(f'no corpus, file or folder "{name}"{config.suggestion(name, NAMES)}')
    return _of_files(name, files.listed(files.find(name)), field)


def _of_files(name: str, found: Sequence[files.File], text_field: str) -> Corpus:
    parts: tuple[Part, ...] = files.parts_of(found, text_field=text_field)
    return Corpus(name, parts, stored_bytes=sum(file.size for file in found))
