"""How files count in the key of a stage: by their contents, not by their paths.

A changed file gives another key. A file that was moved, linked or renamed gives the same key. If a file cannot be read,
the key has the option's text, and `inputs.py` raises the error before training starts.
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
    """The value of an option for a key: unchanged, or a mapping if it names files."""
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
    """Forget cached contents: files may have changed since the last plan."""
    _read.cache_clear()


def _corpus(value: str) -> str | None:
    """Files by name and contents (large ones by size and time), as in the token store."""
    from proctool.corpora.catalog import is_local, open_corpus

    if not is_local(value):
        return None
    return _digest([part.identity for part in open_corpus(value).parts])


def _tokenizer(value: str) -> str | None:
    """Everything that decides how a tokenizer encodes."""
    from proctool.corpora.subwords import load_tokenizer
    from proctool.corpora.tokenizer_files import TokenizerFiles
    from proctool.corpora.tokenizers import BUILT_IN

    path = user_path(value)
    if value in BUILT_IN or not path.exists():
        return None
    try:
        return load_tokenizer(value).fingerprint
    except CorpusError:  # other options of the stage, such as end_of_text, may make it readable
        files = dict(TokenizerFiles.of_folder(path if path.is_dir() else path.parent).contents)
        if path.is_file():
            files[path.name] = path.read_bytes()
        return _digest({name: hashlib.sha256(content).hexdigest() for name, content in files.items()})


def _configuration(value: str) -> str:
    """A configuration by its bytes; a shape with its initialisation, because that default may change."""
    found = parse_model(value)
    if isinstance(found, Path):
        return hashlib.sha256(found.read_bytes()).hexdigest()
    start = start_of(value)
    assert start is not None, "only a configuration file sets its own initialisation"
    return f"{value} {start.init_std:g} {start.tied}"


def _weights(value: str) -> str | None:
    """A model by its tensors and metadata (an artifact), or by its configuration and tensors (a folder)."""
    from proctool.models.folder import read_folder

    path = user_path(value)
    if path.is_dir():
        configuration = hashlib.sha256((path / "config.json").read_bytes()).hexdigest()
        return _digest([configuration, read_folder(path).content])
    if not path.exists():
        donors = [each.strip() for each in value.split(",")]  # several donors are averaged
        return _digest([_weights(each) or each for each in donors]) if len(donors) > 1 else None
    header = artifact.read_header(path)
    return _digest([header.content, header.metadata])


def _task_files(value: str) -> str | None:
    """The files of a fine-tuning task by name and contents (large ones by size and time)."""
    from proctool.corpora.files import HASHED_BELOW

    folder = user_path(value)
    if not folder.is_dir():
        return None
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    states = {path.name: path.stat() for path in files}
    if sum(state.st_size for state in states.values()) > HASHED_BELOW:
        return _digest({name: [state.st_size, state.st_mtime_ns] for name, state in states.items()})
    return _digest({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files})


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


_READERS: dict[str, Callable[[str], str | None]] = {
    "corpus": _corpus,
    "validation": _corpus,
    "tokenizer": _tokenizer,
    "model": _configuration,
    "task_files": _task_files,
    **dict.fromkeys(
        ("init", "data", "base", "attention", "mixer", "mlp", "norms", "positions", "embeddings_from"), _weights
    ),
}
