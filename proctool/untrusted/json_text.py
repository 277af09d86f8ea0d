"""JSON that is refused where it is larger, deeper or of another form than anything of ours.

What the standard library would take and we do not: a key given twice (readers differ in which one they believe), NaN
and infinities, half a surrogate pair (no file name and no output can hold one), text or nesting without bounds.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import json
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

MOST_BRACKETS = 1 << 19
"""Lists and objects in one document: a safetensors header has three a tensor, ours another two in its metadata."""
MOST_COMMAS = 1 << 21
MOST_DEPTH = 400
"""Lists and objects within each other: two a generation of a lineage."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(raw: bytes | str, *, any_text: bool = False) -> Any:
    """The value of a JSON text. Raises ValueError: malformed, too large, too deep, a key twice, NaN, half a
    surrogate pair (which `any_text` accepts: a file name that is not UTF-8 has one for each such byte).
    """
    text = raw.decode() if isinstance(raw, bytes) else raw  # UTF-8 alone: `json` would take UTF-16 too
    if text.count("[") + text.count("{") > MOST_BRACKETS or text.count(",") > MOST_COMMAS:
        raise ValueError("more values than any document of ours holds")
    collecting = gc.isenabled()
    gc.disable()  # a million new lists would be looked through again and again
    try:
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_refused)
        if not any_text and _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()  # raises where a half has no other half
        return value
    except RecursionError:
        raise ValueError("nested too deeply") from None
    finally:
        if collecting:
            gc.enable()


def require_shallow(value: Any, most: int = MOST_DEPTH) -> None:
    """Raise ValueError when lists and objects stand more than `most` deep within each other."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(most + 1):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise ValueError(f"nested more than {most} deep")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key is given twice")
    return made


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


class Malformed(ValueError):
    """A document is not of its form; the message is the place, such as stages.ab12.tokens."""


def typed(kind: Any, value: Any, place: str = "") -> Any:
    """A JSON value as the annotated type `kind`: text, counts, finite numbers, bool, tuples, mappings, dataclasses.

    Unlike options (`config.build`) nothing is converted, since a program wrote it. Keys that a dataclass does not have
    are left out: a later version may write more. Raises Malformed.
    """
    origin, of = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return None if value is None else typed(of[0], value, place)
    if origin is tuple and isinstance(value, list):
        return tuple(typed(of[0], each, place) for each in value)
    if origin in (Mapping, dict) and isinstance(value, dict):
        return {key: typed(of[1], each, _within(place, key)) for key, each in value.items()}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and isinstance(value, dict):
        required, hints = _form(kind)
        if lacking := [name for name in required if name not in value]:
            raise Malformed(_within(place, lacking[0]))
        held = {name: of_field for name, of_field in hints.items() if name in value}
        return kind(**{name: typed(of_field, value[name], _within(place, name)) for name, of_field in held.items()})
    # Whole numbers count things in 64 bits; one may be beyond all floats, which compares well and converts badly.
    fits = (
        kind is Any
        or (origin is Literal and value in of)
        or (kind in (str, bool) and type(value) is kind)
        or (kind is int and type(value) is int and 0 <= value < 1 << 63)
        or (kind is float and type(value) in (int, float) and -1e30 < value < 1e30)
    )
    if not fits:
        raise Malformed(place or "the whole")
    return value


@functools.cache
def _form(kind: Any) -> tuple[list[str], dict[str, Any]]:
    """The fields of a dataclass that must be there, and the type of each."""
    missing = dataclasses.MISSING
    fields = [field for field in dataclasses.fields(kind) if field.default is field.default_factory is missing]
    return [field.name for field in fields], typing.get_type_hints(kind)


def _within(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key
