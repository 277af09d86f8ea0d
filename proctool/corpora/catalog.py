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
    "python": "standard library sources; python:site adds installed packages",
    "docstrings": "English from the docstrings of installed Python packages",
    "mathematics": "generated questions ([math]); mathematics:30000 per module; mathematics:FOLDER for files",
    "c4": "allenai/c4 en, streamed; c4:FOLDER for local files of its schema",
    "codeparrot": "codeparrot/codeparrot-clean-train and -valid, streamed; codeparrot:FOLDER",
    "wikitext": "WikiText-103 (raw); wikitext:FOLDER",
    "wikitext-2": "WikiText-2 (raw); wikitext-2:FOLDER",
    "tinystories": "roneneldan/TinyStories, streamed; tinystories:FOLDER",
    "javacorpus": "Java of CodeXGLUE's token completion, streamed; javacorpus:FOLDER",
}


def open_corpus(
    name: str,
    *,
    text_field: str | None = None,
    validation: str | None = None,
    skip_bad: bool | None = None,
    cache_dir: Path | str | None = None,
) -> Corpus:
    """Open the corpus `name`.

    `name` is a name of the table above; a file, folder or glob pattern (text, source code or records, maybe
    compressed); or hub:OWNER/NAME[:CONFIGURATION] for a dataset of the hub (`hub:` is optional if no such path exists).
    `text_field` is the field of a record with its text. `validation` names another corpus that becomes the validation
    split; then all of `name` is for training. `skip_bad` skips unreadable documents. Raises CorpusError if the corpus
    does not exist or has nothing to read.
    """
    if not name or validation == "":
        raise CorpusError(f"{'--validation' if name else 'the corpus'} is empty; give the name of a corpus or a path")
    memory = _memory(cache_dir)
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
            raise CorpusError(f"{error}; for a dataset on the hub write hub:{name}") from None
        raise
    listed = files.listed(found.files)
    if not found.splits:
        return replace(_of_files(name, listed, field), notes=found.notes)
    named = set(found.splits.values())
    parts: list[Part] = []
    for split in sorted(named, key=lambda split: split == TRAIN):  # training documents last
        own = [file for file in listed if found.splits[file.name] == split]
        divided = split == TRAIN and VALIDATION not in named  # then a share of them goes to validation
        parts += files.parts_of(own, text_field=field, split=None if divided else split)
    return Corpus(name, tuple(parts), stored_bytes=sum(file.size for file in listed), notes=found.notes)


def _with_validation(corpus: Corpus, given: Corpus) -> Corpus:
    """The whole corpus for training, with the documents of `given` for validation.

    Uses the validation split of `given` if it has one, otherwise all its documents. Raises CorpusError.
    """
    if corpus.whole != given.whole:
        raise CorpusError(
            f"{given.name}: mathematics and other text cannot be mixed; give a validation corpus of the same kind"
        )
    own = [part for part in given.parts if part.split == VALIDATION]
    own = own or [_in_split(part, VALIDATION) for part in given.parts if part.split in (None, TRAIN)]
    rest = [_in_split(part, part.split or TRAIN) for part in corpus.parts if part.split != VALIDATION]
    notes = (*corpus.notes, *given.notes, f"{corpus.name}: validation documents come from {given.name}")
    return replace(corpus, parts=(*own, *rest), notes=notes, validation=given.name)


def _in_split(part: Any, split: str) -> Part:
    made: Part = part if part.split == split else replace(part, split=split)
    return made


def is_local(name: str) -> bool:
    """Whether `name` is a path on this machine: neither a name of the table above nor a repository."""
    base, _, variant = name.partition(":")
    if base in NAMES:
        return bool(variant) and base not in ("python", "docstrings") and not variant.isdecimal()
    return not _is_repository(name)


def is_here(name: str, cache_dir: Path | str | None = None) -> bool:
    """Whether `open_corpus` needs no network for `name`: it is not on the hub, or its list of files is remembered."""
    if is_local(name) or name.partition(":")[0] in ("python", "docstrings", "mathematics"):
        return True
    return hub.is_remembered(name, _memory(cache_dir))


def _memory(cache_dir: Path | str | None) -> Path:
    """The folder of the remembered listings of the hub."""
    return Path(cache_dir or cache_folder()) / "hub"


def _is_repository(name: str) -> bool:
    """Whether it is hub:NAME, or OWNER/NAME that is not a local path and has no file suffix."""
    if name.startswith("hub:"):
        return True
    if not _HUB_ID.fullmatch(name) or is_path(name) or Path(name).is_symlink():
        return False
    return kinds.kind_of(name) is None and compression.of(name) is None


def _of_files(name: str, found: Sequence[files.File], text_field: str) -> Corpus:
    parts: tuple[Part, ...] = files.parts_of(found, text_field=text_field)
    return Corpus(name, parts, stored_bytes=sum(file.size for file in found))
