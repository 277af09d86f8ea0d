"""Paths from users: on the command line, in YAML and after --set, all read the same way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from proctool.errors import OptionError


def user_path(written: str | Path) -> Path:
    """The path that a user wrote; `~` and `~name` are home folders. Raises OptionError if there is no such folder."""
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
        raise OptionError(f'{written}: there is no user "{name}"; for a path with this name write ./{written}')
    raise OptionError(f"{written}: this user has no home folder; set HOME, or write the path without ~")


AS_PATH: dict[str, Any] = {"parser": user_path, "metavar": "PATH"}
"""Settings of a typer.Argument or typer.Option that is a path: shells do not expand the ~ in --runs=~/x."""


def is_path(written: str) -> bool:
    """Whether it can only be a path, even if it does not exist, and not a name on the hub."""
    path = user_path(written)
    if written.startswith(("/", "./", "../", "~")) or written in (".", "..") or written.endswith("/"):
        return True
    return path.exists() or len(path.parts) > 2 or (len(path.parts) == 2 and path.parent.is_dir())
