"""Where what can be made again is kept: $PROCTOOL_CACHE, or ~/.cache/proctool."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from proctool.errors import CorpusError, OptionError
from proctool.paths import user_path

_VARIABLES = {"PROCTOOL_CACHE": "proctool", "HF_HOME": "huggingface", "MPLCONFIGDIR": "matplotlib"}
"""Variables that place a cache, and the folder in ~/.cache that they stand for."""


def cache_folder() -> Path:
    """$PROCTOOL_CACHE, or ~/.cache/proctool. Raises OptionError where there is no such place."""
    chosen = os.environ.get("PROCTOOL_CACHE")
    try:
        return user_path(chosen or "~/.cache/proctool")
    except OptionError as error:
        hint = "" if chosen else "; or set PROCTOOL_CACHE to a folder for what proctool keeps"
        raise OptionError(f"{error}{hint}") from None


def unwritable(folder: Path, error: OSError) -> CorpusError:
    """The error of a cache that cannot be written."""
    return CorpusError(
        f"{folder}: {error.strerror or error}; set PROCTOOL_CACHE or --cache-dir to a folder that can be written"
    )


def settle() -> None:
    """Give the caches of a command a temporary folder, and say so, where the home folder can hold none."""
    if not (lacking := [name for name, folder in _VARIABLES.items() if not (os.environ.get(name) or _fits(folder))]):
        return
    try:
        place = _temporary()
    except OSError:
        return  # what needs a cache says so
    for name in lacking:
        os.environ[name] = str(place / _VARIABLES[name])
    print(
        f"proctool: ~/.cache cannot be written; caches go to {place} (set {', '.join(lacking)} to keep them elsewhere)",
        file=sys.stderr,
    )


def _fits(folder: str) -> bool:
    home = os.path.expanduser("~")
    if not os.path.isabs(home):
        return False
    kept = Path(home, ".cache", folder)
    try:
        if kept.is_dir():
            return True  # one that may only be read serves those who read
        kept.parent.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(kept.parent, os.W_OK)


def _temporary() -> Path:
    """This user's own folder. Raises OSError where another user has made it: kernels are loaded from it."""
    place = Path(tempfile.gettempdir(), f"proctool-{os.getuid()}")
    place.mkdir(mode=0o700, exist_ok=True)
    found = place.lstat()
    if place.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise OSError(f"{place}: belongs to another user")
    return place
