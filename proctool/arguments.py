"""Arguments of the Python API that have a wrong type: one-line errors that name the argument."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from proctool.errors import OptionError


def path_of(name: str, value: object) -> Path:
    """A path that is given as text or as a path. Raises OptionError."""
    if isinstance(value, str | os.PathLike) and isinstance(os.fspath(value), str):
        return Path(value)
    raise _wrong(name, "text or a path", value)


def count_of(name: str, value: Any, least: int) -> int:
    """A whole number from `least`; numpy's are fine, truth values are not. Raises OptionError."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise _wrong(name, "a whole number", value)
    if number < least:
        raise OptionError(f"{name} = {number}: must be at least {least}")
    return number


def truth_of(name: str, value: object) -> bool:
    """True or False. Raises OptionError."""
    if not isinstance(value, bool):
        raise _wrong(name, "True or False", value)
    return value


def require_callable(name: str, value: Callable[..., Any]) -> None:
    """Raise OptionError for anything that cannot be called."""
    if not callable(value):
        raise _wrong(name, "a function", value)


def listed(name: str, value: Any) -> list[Any]:
    """The items of a sequence; a single text, number or None is a mistake. Raises OptionError."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise _wrong(name, "a list", value)
    return list(value)


def _wrong(name: str, wanted: str, value: object) -> OptionError:
    return OptionError(f"{name}: expected {wanted}, got a value of type {type(value).__name__}")
