"""Folders written by other tools: which of their files are data, and the split of each file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from proctool.corpora import compression, kinds
from proctool.corpora.documents import TRAIN, VALIDATION
from proctool.errors import CorpusError
from proctool.untrusted import parse_json

Named = tuple[Path, str]
"""A file, and its name relative to the opened folder."""

_PAPERS = re.compile(r"(readme|licen[cs]e|citation|notice|changelog|datasheet|croissant)(\.\w+)?", re.IGNORECASE)
_DESCRIPTIONS = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json")
_SPLITS = {
    "train": TRAIN, "training": TRAIN,
    "validation": VALIDATION, "valid": VALIDATION, "val": VALIDATION, "dev": VALIDATION,
    "test": "test", "testing": "test",
}  # fmt: skip


def data_files(files: Sequence[Named]) -> list[Named]:
    """The data files of a folder, without files that describe them (README.md, LICENSE.txt, dataset_infos.json).

    In a folder of `datasets` (save_to_disk), these are the arrow files in state.json; other arrow files are old.
    Raises CorpusError if state.json cannot be read.
    """
    names = {name for _, name in files}
    saved = {_folder(name) for _, name in files if _is_saved(_folder(name), names)}
    listed = {
        folder: _listed(path) for path, name in files if (folder := _folder(name)) in saved and _is(name, "state.json")
    }
    kept = [
        (path, name)
        for path, name in files
        if not (
            _is(name, "dataset_infos.json", "dataset_dict.json")
            or (_folder(name) in saved and _is(name, *_DESCRIPTIONS))
        )
        and not (_folder(name) in saved and name.endswith(".arrow") and _last(name) not in listed[_folder(name)])
    ]
    if not any(kinds.kind_of(name) in kinds.RECORDS for _, name in kept):
        return kept
    return [(path, name) for path, name in kept if not _PAPERS.fullmatch(_last(name))]


def splits_of(names: Sequence[str]) -> tuple[dict[str, str], str | None]:
    """The split of each file if every name gives one and they are not all `train`; and a note for the user.

    The name of the folder (train/, validation/, valid/, val/, dev/, test/) or a part of the file name gives the split
    (train.jsonl, train-00000-of-00001.parquet, wiki.valid.txt). For source code only the folder counts.
    """
    found = {name: _split(name) for name in names}
    named = {split for split in found.values() if split is not None}
    if TRAIN not in named or len(named) == 1:
        return {}, None
    if nameless := [name for name, split in found.items() if split is None]:
        data = [name for name in found if kinds.kind_of(name) not in (None, "source")]
        if VALIDATION in named and set(nameless) & set(data):
            return {}, f"{nameless[0]}: its name gives no split, so all documents are split by their hash"
        return {}, None
    splits = {name: split for name, split in found.items() if split is not None}
    order = sorted(named, key=lambda split: (split != TRAIN, split != VALIDATION, split))
    counted = ", ".join(f"{split} {list(splits.values()).count(split)}" for split in order)
    return splits, f"splits by file names: {counted}"


def _split(name: str) -> str | None:
    *folders, last = name.split("/")
    for folder in folders:
        if folder.lower() in _SPLITS:
            return _SPLITS[folder.lower()]
    if kinds.kind_of(name) == "source":
        return None
    stem = compression.without_suffix(last).rpartition(".")[0] or last
    told = {_SPLITS[word] for word in re.split(r"[^a-z]+", stem.lower()) if word in _SPLITS}
    return told.pop() if len(told) == 1 else None


def _is_saved(folder: str, names: set[str]) -> bool:
    return {f"{folder}state.json", f"{folder}dataset_info.json"} <= names


def _listed(path: Path) -> set[str]:
    try:
        state = parse_json(path.read_bytes())
        if state.get("_indices_files"):
            raise CorpusError(
                f"{path}: an index file selects the rows, which is not supported; save again after flatten_indices()"
            )
        return {str(each["filename"]) for each in state["_data_files"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise CorpusError(f"{path}: does not list the folder's arrow files; save the dataset again") from None


def _folder(name: str) -> str:
    return name[: name.rfind("/") + 1]


def _last(name: str) -> str:
    return name[name.rfind("/") + 1 :]


def _is(name: str, *wanted: str) -> bool:
    return _last(name) in wanted
