"""The description of a file whose format has no metadata: `FILE.json` beside `FILE`.

    proctool   kind of the contents: "data"
    about      what the files hold, as in the metadata of an artifact
    versions   of proctool and the libraries that made them
    content    the content hash of an artifact with the same contents
    files      {name: {"bytes", "sha256"}}: the described files, all in the same folder
    seal       SHA-256 over everything above

proctool recognises its own files by the size and hash in the description, so it does not recognise an edited file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from proctool.artifact.files import replacing
from proctool.artifact.layout import DOCUMENT_LIMIT, digest, versions
from proctool.untrusted import parse_json


def sidecar_of(path: Path) -> Path:
    """The path of the description of `path`."""
    return path.with_name(f"{path.name}.json")


def read_sidecar(path: Path) -> dict[str, Any] | None:
    """The description in the file `path`; None if it is missing or changed since proctool wrote it."""
    try:
        if path.stat().st_size > DOCUMENT_LIMIT:
            return None
        found = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("files"), dict):
        return None
    seal = found.pop("seal", None)
    return found if seal == digest(found) else None


def is_sidecar(path: Path) -> bool:
    """Whether proctool wrote this description."""
    return read_sidecar(path) is not None


def is_described(path: Path, sidecar: Path | None = None) -> bool:
    """Whether `path` is unchanged since proctool described it in `FILE.json`, or in `sidecar` if that is given."""
    found = read_sidecar(sidecar or sidecar_of(path))
    files = {} if found is None else found["files"]
    said = files.get(path.name) if sidecar is not None or len(files) == 1 else None
    if not isinstance(said, Mapping) or said.get("bytes") != path.stat().st_size:
        return False
    with path.open("rb") as file:
        return said.get("sha256") == hashlib.file_digest(file, "sha256").hexdigest()


class Hashed:
    """A binary file open for writing whose bytes are hashed and counted."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._bytes = 0

    def write(self, data: bytes | memoryview) -> None:
        """Write all of `data`."""
        self._file.write(data)
        self._hash.update(data)
        self._bytes += len(data)

    @property
    def facts(self) -> dict[str, Any]:
        """Its entry in a description."""
        return {"bytes": self._bytes, "sha256": self._hash.hexdigest()}


@contextlib.contextmanager
def described(
    paths: Sequence[Path], sidecar: Path, *, kind: str, about: Mapping[str, Any], content: Callable[[], str]
) -> Iterator[list[Hashed]]:
    """Open files for writing; they appear together with their description when the block succeeds.

    `content` returns the content hash after everything is written. Old files are removed before the new description
    appears, so a process killed at any moment leaves no file with a wrong description. Raises OSError.
    """
    with contextlib.ExitStack() as renamed:
        files = [renamed.enter_context(replacing(path)) for path in reversed(paths)][::-1]
        hashed = [Hashed(file) for file in files]
        yield hashed
        for file in files:
            file.flush()
            os.fsync(file.fileno())
        document = {
            "proctool": kind,
            "about": dict(about),
            "versions": versions(),
            "content": content(),
            "files": {path.name: each.facts for path, each in zip(paths, hashed, strict=True)},
        }
        document["seal"] = digest(document)
        with replacing(sidecar) as file:
            file.write((json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
            for path in paths:
                path.unlink(missing_ok=True)
