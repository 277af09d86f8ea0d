"""Corpora that every machine has: the Python sources it runs, and the English in their docstrings."""

from __future__ import annotations

import sysconfig
from pathlib import Path

from proctool.corpora.files import File, listed


def standard_library() -> list[File]:
    """The standard library's .py files, its tests included, sorted by name."""
    root = Path(sysconfig.get_paths()["stdlib"])
    apart = ("site-packages", "dist-packages", "__pycache__")
    return listed(_sources(root, apart))


def site_packages() -> list[File]:
    """The installed packages' .py files, sorted by name."""
    root = Path(sysconfig.get_paths()["purelib"])
    return listed(_sources(root, ("__pycache__",)))


def _sources(root: Path, apart: tuple[str, ...]) -> list[tuple[Path, str]]:
    found = sorted((path.relative_to(root).as_posix(), path) for path in root.rglob("*.py") if path.is_file())
    return [(path, name) for name, path in found if not any(part in apart for part in name.split("/"))]
