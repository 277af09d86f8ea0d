"""The cache folder: $PROCTOOL_CACHE, or ~/.cache/proctool. Everything in it can be rebuilt."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from proctool.errors import CorpusError, OptionError
from proctool.paths import user_path

_VARIABLES = {"PROCTOOL_CACHE": "proctool", "HF_HOME": "huggingface", "MPLCONFIGDIR": "matplotlib"}
"""Environment variables that set a cache folder, and their default in ~/.cache."""


def cache_folder() -> Path:
    """$PROCTOOL_CACHE, or ~/.cache/proctool. Raises OptionError if neither gives a folder."""
    chosen = os.environ.get("PROCTOOL_CACHE")
    try:
        return user_path(chosen or "~/.cache/proctool")
    except OptionError as error:
        hint = "" if chosen else "; or set PROCTOOL_CACHE to a folder for proctool's cache"
        raise OptionError(f"{error}{hint}") from None


def unwritable(folder: Path, error: OSError) -> CorpusError:
    """The error for a cache folder that cannot be written."""
    return CorpusError(f"{folder}: {error.strerror or error}; set PROCTOOL_CACHE or --cache-dir to a writable folder")


def settle() -> None:
    """Use a temporary folder for a command's caches, and say so, if the home folder is not writable."""
    if not (lacking := [name for name, folder in _VARIABLES.items() if not (os.environ.get(name) or _fits(folder))]):
        return
    try:
        place = _temporary()
    except OSError:
        return  # the code that needs a cache raises the error
    for name in lacking:
        os.environ[name] = str(place / _VARIABLES[name])
    print(
        f"proctool: ~/.cache is not writable; using {place} for caches (set {', '.join(lacking)} to change this)",
        file=sys.stderr,
    )


def _fits(folder: str) -> bool:
    home = os.path.expanduser("~")
    if not os.path.isabs(home):
        return False
    kept = Path(home, ".cache", folder)
    try:
        if kept.is_dir():
            return True  # a read-only cache is enough for reading
        kept.parent.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(kept.parent, os.W_OK)


def _temporary() -> Path:
    """A folder of this user. Raises OSError if another user owns it, because kernels are loaded from it."""
    place = Path(tempfile.gettempdir(), f"proctool-{os.getuid()}")
    place.mkdir(mode=0o700, exist_ok=True)
    found = place.lstat()
    if place.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise OSError(f"{place}: belongs to another user")
    return place
