"""The register of hostile files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

MIB = 1 << 20
ROOM_MIB = 400
"""Address space that refusing may take: the larger files alone are read whole into 64 MiB."""
MARK = "PROCTOOL_WAS_BREACHED"
"""A file of this name in the working folder shows that something of a stranger's was executed."""
RUN_ME = f"open({MARK!r}, 'w').close()\n"

Make = Callable[[Path], list[str]]
CASES: dict[str, Make] = {}


def case(make: Make) -> Make:
    """Register a hostile file under its function's name; it is made in a folder and gives the command's arguments."""
    CASES[make.__name__] = make
    return make
