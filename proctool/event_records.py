"""Frozen dataclasses to JSON objects and back, by the types of their fields (see event_values.py)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, get_args, get_type_hints

Made = TypeVar("Made")


_READERS: dict[type, Mapping[str, Callable[[Any], Any]]] = {}


def readers(made: type) -> Mapping[str, Callable[[Any], Any]]:
    """The function that reads each field of a dataclass from JSON."""
    if made not in _READERS:
        _READERS[made] = _readers(made)
    return _READERS[made]


def _readers(made: type) -> dict[str, Callable[[Any], Any]]:
    found = {}
    for name, hint in get_type_hints(made, include_extras=True).items():
        for each in (hint, *get_args(hint)):  # of `Count | None`, Count
            if hasattr(each, "__metadata__"):
                (found[name],) = each.__metadata__
    return found


def read_record(made: type[Made], found: Mapping[str, Any], **more: Any) -> Made:
    """The dataclass in a JSON object. Raises ValueError that names an invalid or missing field."""
    values = dict(more)
    for name, read in readers(made).items():
        if name in found:
            try:
                values[name] = read(found[name])
            except ValueError:
                raise ValueError(f"{name} = {found[name]!r:.40}") from None
    for each in fields(made):  # type: ignore[arg-type]
        if each.name not in values and each.default is MISSING and each.default_factory is MISSING:
            raise ValueError(f"no {each.name}")
    return made(**values)


def write_record(value: Any) -> dict[str, Any]:
    """The JSON object of a dataclass, without `metadata` and without fields that have their default."""
    found = {}
    for each in fields(value):
        held = getattr(value, each.name)
        if each.name == "metadata" or (
            held == each.default and not each.metadata
        ):  # nan differs from every default, so it is written
            continue
        found[each.name] = _written(held)
    return found


def _written(held: Any) -> Any:
    if is_dataclass(held):
        return write_record(held)
    if isinstance(held, tuple):
        return [_written(each) for each in held]
    return None if isinstance(held, float) and not math.isfinite(held) else held
