"""Opening a corpus by name, path, pattern or hub id."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from proctool import config
from proctool.cache import cache_folder
from proctool.corpora import compression, files, hub, installed, kinds, mathematics, walk
from proctool.corpora.documents import TRAIN, VALIDATION, Corpus, Part, Skipped
from proctool.errors import CorpusError
from proctool.paths import is_path

DEFAULT_FIELD = "text"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")

NAMES = {
    "python": "the standard library's sources; python:site adds the installed packages'",
    "docstrings": "English from the docstrings of all installed Python",
    "mathematics": "questions made on the spot ([math]); mathematics:30000 a module; mathematics:FOLDER a tree",
    "c4": "allenai/c4 en, streamed; c4:FOLDER local files of its schema",
    "codeparrot": "codeparrot/codeparrot-clean-train and -valid, streamed; codeparrot:FOLDER",
    "wikitext": "WikiText-103 (raw); wikitext:FOLDER",
    "wikitext-2": "WikiText-2 (raw); wikitext-2:FOLDER",
}


def open_corpus(
    name: str,
    *,
    text_field: str | None = None,
    validation: str | None = None,
    skip_bad: bool | None = None,
    cache_dir: Path | str | None = None,
) -> Corpus:
    """The corpus that `name` names.

    A name of the table above; a file, folder or glob pattern (text, source code, records; compressed or not); or
    hub:OWNER/NAME[:CONFIGURATION] for any dataset of the hub (`hub:` may be left out where no such path exists).
    `text_field` is the field of a record that holds its text. `validation` names another corpus, whose documents become
    the validation split: all of `name` is then for training. `skip_bad` leaves out documents that cannot be read.
    Raises CorpusError when there is nothing of that name, or nothing to read in it.
    """
    if not name or validation == "":
        raise CorpusError(f"{'--validation' if name else 'the corpus'} is empty; give a corpus by name, or a path")
    memory = Path(cache_dir or cache_folder()) / "hub"
    corpus = _opened(name, text_field, memory)
    if validation is not None:
        corpus = _with_validation(corpus, _opened(validation, text_field, memory))
    return replace(corpus, skipped=Skipped()) if skip_bad else corpus


def _opened(name: str, text_field: str | None, memory: Path) -> Corpus:
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
    if base in hub.PUBLISHED:
        return hub.open_published(name, hub.PUBLISHED[base], variant, text_field, memory)
    field = text_field or DEFAULT_FIELD
    if _is_repository(name):
        repository, _, configuration = name.removeprefix("hub:").partition(":")
        return hub.open_repository(name, repository, configuration or None, field, memory)
    if re.fullmatch(r"[\w-]+", name) and not Path(name).exists():
        raise CorpusError(f'no corpus, file or folder "{name}"{config.suggestion(name, NAMES)}')
    return _local(name, field)


def _local(name: str, field: str) -> Corpus:
    try:
        found = walk.find(name)
    except CorpusError as error:
        if _HUB_ID.fullmatch(name) and not Path(name).exists():
            raise CorpusError(f"{error}; for a dataset of the hub write hub:{name}") from None
        raise
    listed = files.listed(found.files)
    if not found.splits:
        return replace(_of_files(name, listed, field), notes=found.notes)
    named = set(found.splits.values())
    parts: list[Part] = []
    for split in sorted(named, key=lambda split: split == TRAIN):  # training documents come last
        own = [file for file in listed if found.splits[file.name] == split]
        divided = split == TRAIN and VALIDATION not in named  # then some of them are for validation
        parts += files.parts_of(own, text_field=field, split=None if divided else split)
    return Corpus(name, tuple(parts), stored_bytes=sum(file.size for file in listed), notes=found.notes)


def _with_validation(corpus: Corpus, given: Corpus) -> Corpus:
    """The corpus, all of it for training, with the documents of `given` for validation.

    Where `given` has a validation split of its own, that is taken; otherwise all of it. Raises CorpusError.
    """
    if corpus.whole != given.whole:
        raise CorpusError(f"{given.name}: mathematics and other text cannot validate each other; give one of its kind")
    own = [part for part in given.parts if part.split == VALIDATION]
    own = own or [_in_split(part, VALIDATION) for part in given.parts if part.split in (None, TRAIN)]
    rest = [_in_split(part, part.split or TRAIN) for part in corpus.parts if part.split != VALIDATION]
    notes = (*corpus.notes, *given.notes, f"{corpus.name}: validation documents come from {given.name}")
    return replace(corpus, parts=(*own, *rest), notes=notes, validation=given.name)


def _in_split(part: Any, split: str) -> Part:
    made: Part = part if part.split == split else replace(part, split=split)
    return made


def is_local(name: str) -> bool:
    """Whether `name` stands for files on this machine: neither a name of the table above nor a repository."""
    base, _, variant = name.partition(":")
    if base in NAMES:
        return bool(variant) and base not in ("python", "docstrings") and not variant.isdecimal()
    return not _is_repository(name)


def _is_repository(name: str) -> bool:
    """Whether it is hub:NAME, or OWNER/NAME that nothing here has and that does not end as a file does."""
    if name.startswith("hub:"):
        return True
    if not _HUB_ID.fullmatch(name) or is_path(name) or Path(name).is_symlink():
        return False
    return kinds.kind_of(name) is None and compression.of(name) is None


def _of_files(name: str, found: Sequence[files.File], text_field: str) -> Corpus:
    parts: tuple[Part, ...] = files.parts_of(found, text_field=text_field)
    return Corpus(name, parts, stored_bytes=sum(file.size for file in found))
