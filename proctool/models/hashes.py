"""SHA-256 of every tensor in a safetensors file; hashes of large files are cached."""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import time
from pathlib import Path

from proctool.artifact import read_layout, replacing
from proctool.errors import ArtifactError

REMEMBERED_FROM = 256 << 20
"""Hashes of files of at least this many bytes are cached: smaller files take less than a second."""

_SETTLED = 2.0
"""A file is cached only this many seconds after its last change: two quick changes may have the same time stamp."""


def tensor_hashes(path: Path) -> dict[str, str]:
    """SHA-256 of each tensor's bytes, by its name in the file. Raises ArtifactError, OSError."""
    before = path.stat()
    if before.st_size < REMEMBERED_FROM:
        return _hashed(path)
    kept = _record(path)
    state = [before.st_size, before.st_mtime_ns, before.st_ctime_ns, before.st_ino]
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        record = json.loads(kept.read_text(encoding="utf-8"))
        if record["file"] == state:
            return dict(record["sha256"])
    found = _hashed(path)
    if before.st_mtime < time.time() - _SETTLED:
        with contextlib.suppress(OSError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            with replacing(kept) as file:
                file.write(json.dumps({"file": state, "sha256": found}).encode())
    return found


def _record(path: Path) -> Path:
    from proctool.cache import cache_folder

    return cache_folder() / "hashes" / f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]}.json"


def _hashed(path: Path) -> dict[str, str]:
    _, entries = read_layout(path)
    with path.open("rb") as file:
        try:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise ArtifactError(f"{path}: the file became shorter while it was read") from None
        with mapped, memoryview(mapped) as view:
            if len(view) < max((last for _, _, _, last in entries.values()), default=0):
                raise ArtifactError(f"{path}: the file became shorter while it was read")
            found = {}
            for name, (_, _, first, last) in entries.items():
                with view[first:last] as data:
                    found[name] = hashlib.sha256(data).hexdigest()
            return found
