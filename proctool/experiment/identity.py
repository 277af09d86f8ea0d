"""What an option that names a file stands for in a stage's key: what will be read, wherever it lies.

A changed file gives another key; an unchanged one that was moved, linked or named otherwise gives the same. Where
nothing can be read the option stands for itself: `inputs.py` refuses it before anything is trained.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from proctool import artifact
from proctool.errors import CorpusError, ProctoolError
from proctool.models.shapes import parse_model, start_of
from proctool.paths import user_path


def identity(option: str, value: Any) -> Any:
    """The value of an option as a key has it: the same, or a mapping where it names files."""
    if isinstance(value, list):
        return [identity(option, each) for each in value]
    if isinstance(value, dict):
        return {name: identity(name, each) for name, each in value.items()}
    return _read(option, value) if option in _READERS and isinstance(value, str) else value


@functools.cache
def _read(option: str, value: str) -> Any:
    try:
        found = _READERS[option](value)
    except (ProctoolError, OSError):
        return value
    return value if found is None else {"content": found}


def forget() -> None:
    """Look at files again: they may have changed since the last plan."""
    _read.cache_clear()


def _corpus(value: str) -> str | None:
    """Files by name and contents (large ones by size and time), as the token store tells them apart."""
    from proctool.corpora.catalog import is_local, open_corpus

    if not is_local(value):
        return None
    return _digest([part.identity for part in open_corpus(value).parts])


def _tokenizer(value: str) -> str | None:
    """All that decides how it encodes."""
    from proctool.corpora.subwords import load_tokenizer
    from proctool.corpora.tokenizer_files import TokenizerFiles
    from proctool.corpora.tokenizers import BUILT_IN

    path = user_path(value)
    if value in BUILT_IN or not path.exists():
        return None
    try:
        return load_tokenizer(value).fingerprint
    except CorpusError:  # it may be readable with the stage's other options, such as end_of_text
        files = dict(TokenizerFiles.of_folder(path if path.is_dir() else path.parent).contents)
        if path.is_file():
            files[path.name] = path.read_bytes()
        return _digest({name: hashlib.sha256(content).hexdigest() for name, content in files.items()})


def _configuration(value: str) -> str:
    """A configuration by its bytes; a shape with how it starts, which is a default that may change."""
    found = parse_model(value)
    if isinstance(found, Path):
        return hashlib.sha256(found.read_bytes()).hexdigest()
    start = start_of(value)
    assert start is not None, "only a configuration says itself how it starts"
    return f"{value} {start.init_std:g} {start.tied}"


def _weights(value: str) -> str | None:
    """An artifact's tensors and metadata; the configuration and the tensors of a model folder."""
    from proctool.models.folder import read_folder

    path = user_path(value)
    if path.is_dir():
        configuration = hashlib.sha256((path / "config.json").read_bytes()).hexdigest()
        return _digest([configuration, read_folder(path).content])
    if not path.exists():
        donors = [each.strip() for each in value.split(",")]  # averaged
        return _digest([_weights(each) or each for each in donors]) if len(donors) > 1 else None
    header = artifact.read_header(path)
    return _digest([header.content, header.metadata])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


_READERS: dict[str, Callable[[str], str | None]] = {
    "corpus": _corpus,
    "validation": _corpus,
    "tokenizer": _tokenizer,
    "model": _configuration,
    **dict.fromkeys(
        ("init", "data", "base", "attention", "mixer", "mlp", "norms", "positions", "embeddings_from"), _weights
    ),
}
