"""SHA-256 of every tensor in a safetensors file; those of large files are remembered."""

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
"""Bytes of a file from which its hashes are kept: smaller ones are hashed in less than a second."""

_SETTLED = 2.0
"""Seconds since its last change before a file is remembered: a change within the clock's step leaves the time alone."""


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
            raise ArtifactError(f"{path}: was cut short while it was being read") from None
        with mapped, memoryview(mapped) as view:
            if len(view) < max((last for _, _, _, last in entries.values()), default=0):
                raise ArtifactError(f"{path}: was cut short while it was being read")
            found = {}
            for name, (_, _, first, last) in entries.items():
                with view[first:last] as data:
                    found[name] = hashlib.sha256(data).hexdigest()
            return found
