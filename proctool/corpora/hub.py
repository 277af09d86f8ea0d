"""Corpora streamed with `datasets`: from the hub, or from local files of the same schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proctool import artifact
from proctool.corpora import fields, files, kinds, walk
from proctool.corpora.documents import TRAIN, VALIDATION, Corpus, Document, Part
from proctool.corpora.layouts import articles, open_text, split_of
from proctool.errors import CorpusError
from proctool.hub import Trouble, reason_of, trouble_of


@dataclass(frozen=True)
class PublishedCorpus:
    """A corpus on the hub with a short name."""

    repository: str
    configuration: str | None = None
    text_field: str = "text"
    validation_repository: str | None = None
    """The repository of its validation split, if that is a separate one."""
    articles: bool = False
    """Whether records are lines that must be joined into articles."""
    is_tokens: bool = False
    """Whether the field has a list of code tokens."""
    layout: str | None = None
    """How its text files hold documents (layouts.py); None if it has none."""
    language: str | None = None
    """The language code of its texts."""


PUBLISHED = {
    "c4": PublishedCorpus("allenai/c4", "en", language="en"),
    "codeparrot": PublishedCorpus(
        "codeparrot/codeparrot-clean-train",
        text_field="content",
        validation_repository="codeparrot/codeparrot-clean-valid",
    ),
    "wikitext": PublishedCorpus(
        "Salesforce/wikitext", "wikitext-103-raw-v1", articles=True, layout="articles", language="en"
    ),
    "wikitext-2": PublishedCorpus(
        "Salesforce/wikitext", "wikitext-2-raw-v1", articles=True, layout="articles", language="en"
    ),
    # Eldan and Li 2023, arXiv 2305.07759.
    "tinystories": PublishedCorpus("roneneldan/TinyStories", layout="stories", language="en"),
    # The GitHub Java Corpus (Allamanis and Sutton 2013) as CodeXGLUE prepares it for token completion.
    "javacorpus": PublishedCorpus(
        "google/code_x_glue_cc_code_completion_token", "java", text_field="code", is_tokens=True, layout="programs"
    ),
}


@dataclass(frozen=True)
class HubSource:
    """The arguments of `datasets.load_dataset`, for streaming."""

    path: str
    """A repository on the hub, or the name of a format ("json", "parquet") for local files."""
    configuration: str | None = None
    split: str = TRAIN
    revision: str | None = None
    local: tuple[files.File, ...] = ()

    def open(self) -> Any:
        """The IterableDataset. Raises CorpusError."""
        import datasets

        # The progress bar for "resolving files" would break ours.
        datasets.disable_progress_bars()
        paths = {self.split: [file.path for file in self.local]} if self.local else None
        return datasets.load_dataset(
            self.path, self.configuration, split=self.split, revision=self.revision, data_files=paths, streaming=True
        )


@dataclass(frozen=True)
class HubPart(Part):
    """One file (a shard, in terms of `datasets`) of a streamed dataset."""

    source: HubSource
    text_field: str
    split: str | None
    number: int = 0
    of: int = 1
    articles: bool = False
    is_tokens: bool = False

    @property
    def label(self) -> str:
        """The file, or its number in the split of the repository."""
        if self.source.local:
            return self.source.local[0].path
        return f"{self.source.path} {self.source.split} file {self.number + 1} of {self.of}"

    @property
    def identity(self) -> dict[str, Any]:
        """The repository with its revision, or local files by name and contents."""
        source = self.source
        return {
            "dataset": [source.path, source.configuration, source.split, source.revision, self.number, self.of],
            "files": [file.identity for file in source.local],
            "text_field": self.text_field,
            "split": self.split,
            "articles": self.articles,
            **({"tokens": True} if self.is_tokens else {}),
        }

    @property
    def size(self) -> int | None:
        """Size in bytes, for local files."""
        return sum(file.size for file in self.source.local) if self.source.local else None

    def documents(self) -> Iterator[Document]:
        """Records in order. Raises CorpusError if the network or a file fails."""
        for file in self.source.local:
            file.check_unchanged()
        try:
            rows = self.source.open()
            if self.of > 1:
                rows = rows.shard(num_shards=self.of, index=self.number)
            named = (
                fields.of_record(row, self.text_field, f"{self.label}: record {count}", is_tokens=self.is_tokens)
                for count, row in enumerate(rows, 1)
            )
            found = articles(named) if self.articles else named
            yield from (document for document in found if document.content or document.problem)
        except CorpusError:
            raise
        except Exception as error:  # datasets, pyarrow, fsspec and the network raise different errors
            raise CorpusError(_explained(self.label, error, local=bool(self.source.local))) from None
        for file in self.source.local:
            file.check_unchanged()


def open_published(name: str, known: PublishedCorpus, folder: str, text_field: str | None, memory: Path) -> Corpus:
    """A corpus of the table above, from local files below `folder` or from the hub."""
    field = text_field or known.text_field
    if folder:
        return _local(name, known, folder, field)
    sources = [(TRAIN, HubSource(known.repository, known.configuration))]
    if known.validation_repository:
        sources.append((VALIDATION, HubSource(known.validation_repository)))
    else:
        sources.append((VALIDATION, HubSource(known.repository, known.configuration, VALIDATION)))
    return _remote(name, sources, field, memory, articles=known.articles, is_tokens=known.is_tokens)


def open_repository(name: str, repository: str, configuration: str | None, text_field: str, memory: Path) -> Corpus:
    """Any dataset of the hub: its splits `train` and, if it exists, `validation`."""
    sources = [
        (TRAIN, HubSource(repository, configuration)),
        (VALIDATION, HubSource(repository, configuration, VALIDATION)),
    ]
    return _remote(name, sources, text_field, memory)


def _remote(name: str, sources: Sequence[tuple[str, HubSource]], field: str, memory: Path, **how: bool) -> Corpus:
    """The parts as the hub lists them the first time. The list (with the revision) is stored, so that a node without
    network can open a finished token store, and a change of the repository does not change the corpus."""
    remembered = _listing(name, memory)
    listing = _remembered(remembered)
    if listing is None:
        listing = _ask_the_hub(name, sources)
        memory.mkdir(parents=True, exist_ok=True)
        with artifact.replacing(remembered) as file:
            file.write(json.dumps(listing).encode())
    parts: list[HubPart] = []
    for split, source in reversed(sources):
        known = listing.get(split)
        if known is None:
            continue
        pinned = HubSource(source.path, source.configuration, source.split, known["revision"])
        own = split if VALIDATION in listing else None
        parts += [HubPart(pinned, field, own, n, known["files"], **how) for n in range(known["files"])]
    return Corpus(name, tuple(parts))


def is_remembered(name: str, memory: Path) -> bool:
    """Whether the hub has listed this corpus before, so that opening it needs no network."""
    return _remembered(_listing(name, memory)) is not None


def _listing(name: str, memory: Path) -> Path:
    return memory / f"{re.sub(r'[^A-Za-z0-9.-]+', '-', name)}.json"


def _remembered(path: Path) -> dict[str, dict[str, Any]] | None:
    try:
        listing: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return listing


def _ask_the_hub(name: str, sources: Sequence[tuple[str, HubSource]]) -> dict[str, dict[str, Any]]:
    listing = {}
    for split, source in sources:
        try:
            import huggingface_hub

            revision = huggingface_hub.HfApi().dataset_info(source.path).sha
            pinned = HubSource(source.path, source.configuration, source.split, revision)
            listing[split] = {"revision": revision, "files": int(pinned.open().num_shards)}
        except Exception as error:
            if split == VALIDATION and listing and isinstance(error, ValueError):
                continue  # datasets raises this for a split that does not exist
            raise CorpusError(_explained(f"corpus {name}: {source.path}", error, local=False)) from None
    return listing


def _local(name: str, known: PublishedCorpus, folder: str, field: str) -> Corpus:
    found = files.listed(walk.find(folder).files)
    if known.layout and all(kinds.kind_of(file.path) == "text" for file in found):
        return open_text(name, found, known.layout)
    formats_by_kind = {"lines": "json", "parquet": "parquet"}
    splits = {file: split_of(file.name) for file in found}
    has_both = {TRAIN, VALIDATION} <= set(splits.values())
    parts = []
    for file in sorted(found, key=lambda file: (splits[file] != VALIDATION, file.name)):
        kind = kinds.kind_of(file.path)
        if kind not in formats_by_kind:
            raise CorpusError(f"{file.path}: {name.partition(':')[0]} is read from .jsonl, .json.gz or .parquet files")
        split = splits[file] if has_both or splits[file] == "test" else None
        source = HubSource(formats_by_kind[kind], local=(file,))
        parts.append(HubPart(source, field, split, articles=known.articles, is_tokens=known.is_tokens))
    return Corpus(name, tuple(parts), stored_bytes=sum(file.size for file in found))


def _explained(what: str, error: BaseException, *, local: bool) -> str:
    reason = reason_of(error)
    if local:
        return f"{what}: reading stopped ({reason}); the text before is kept; fix the file, or lower --budget"
    trouble = trouble_of(error)
    if trouble is Trouble.NOT_FOUND:
        return f"{what}: no such file or folder here, and no such dataset on the hub, or no access to it"
    if trouble in (Trouble.OFFLINE, Trouble.UNREACHABLE) or isinstance(error, OSError):
        return (
            f"{what}: the hub cannot be reached ({reason}); finished shards are kept; run again with network access, "
            "or use local files (c4:FOLDER, ...) or the corpora python, docstrings and mathematics"
        )
    return f"{what}: {reason}"


def repositories(corpus: Corpus) -> tuple[str, ...]:
    """The hub datasets that a corpus is read from; empty for local files."""
    found = [part.source.path for part in corpus.parts if isinstance(part, HubPart) and not part.source.local]
    return tuple(dict.fromkeys(found))
