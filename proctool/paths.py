"""Paths as users give them, on the command line, in YAML and after --set: one way to read them all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from proctool.errors import OptionError


def user_path(written: str | Path) -> Path:
    """The path that a user wrote: `~` and `~name` are home folders. Raises OptionError where there is none."""
    path = Path(written)
    if not str(written).startswith("~"):
        return (
            path.absolute() if path.parts[:1] and path.parts[0].startswith("~") else path
        )  # Path drops the ./ of ./~x
    try:
        return path.expanduser()
    except RuntimeError:
        name = path.parts[0][1:]
    if name:
        raise OptionError(f'{written}: there is no user "{name}"; write ./{written} for a path of that name')
    raise OptionError(f"{written}: this user has no home folder; set HOME, or write the path without ~")


AS_PATH: dict[str, Any] = {"parser": user_path, "metavar": "PATH"}
"""Settings of a typer.Argument or typer.Option that is a path: shells leave the ~ in --runs=~/x alone."""


def is_path(written: str) -> bool:
    """Whether it can only be meant as a path, there or not, and never as a name on the hub."""
    path = user_path(written)
    if written.startswith(("/", "./", "../", "~")) or written in (".", "..") or written.endswith("/"):
        return True
    return path.exists() or len(path.parts) > 2 or (len(path.parts) == 2 and path.parent.is_dir())
