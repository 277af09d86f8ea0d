"""Atomic writing of a folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from proctool.artifact.files import umask
from proctool.errors import ArtifactError


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A temporary folder to write into; it is renamed to `folder` at the end, with the umask's permissions.

    Raises ArtifactError if `folder` exists and is not empty, or its parent is missing.
    """
    folder = Path(os.path.realpath(folder))  # a link stays a link
    require_free(folder)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.absolute().parent))
    try:
        yield unfinished
        unfinished.chmod(0o777 & ~umask())  # mkdtemp and safetensors create private files
        for path in unfinished.rglob("*"):
            path.chmod((0o777 if path.is_dir() else 0o666) & ~umask())
        unfinished.replace(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def require_free(folder: Path) -> None:
    """Raise ArtifactError unless a folder can be created with this name."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArtifactError(f"{folder}: exists and is not an empty folder; choose another folder, or delete it")
    if not folder.absolute().parent.is_dir():
        raise ArtifactError(f"{folder}: the folder {folder.absolute().parent} does not exist; create it first")
