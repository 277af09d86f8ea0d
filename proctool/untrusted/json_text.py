"""Strict JSON with limits on size and depth.

The standard library accepts some texts that we refuse: duplicate keys (readers disagree which one counts), NaN and
infinities, half a surrogate pair (no file name and no output can hold one), and text or nesting without limits.
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
"""Most lists and objects in a document: a safetensors header has three per tensor, our metadata two more."""
MOST_COMMAS = 1 << 21
MOST_DEPTH = 400
"""Deepest nesting of lists and objects: each generation of a lineage adds two levels."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(raw: bytes | str, *, any_text: bool = False) -> Any:
    """Parse a JSON text. Raises ValueError if it is malformed, too large or too deep, or has a duplicate key, NaN or
    half a surrogate pair. `any_text` allows the last: a file name that is not UTF-8 has one for each such byte.
    """
    text = raw.decode() if isinstance(raw, bytes) else raw  # only UTF-8: `json` would accept UTF-16 too
    if text.count("[") + text.count("{") > MOST_BRACKETS or text.count(",") > MOST_COMMAS:
        raise ValueError("it has too many lists and objects")
    collecting = gc.isenabled()
    gc.disable()  # otherwise the collector scans a million new lists again and again
    try:
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_refused)
        if not any_text and _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()  # raises on half a surrogate pair
        return value
    except RecursionError:
        raise ValueError("nested too deeply") from None
    finally:
        if collecting:
            gc.enable()


def require_shallow(value: Any, most: int = MOST_DEPTH) -> None:
    """Raise ValueError when lists and objects are nested more than `most` deep."""
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
    raise ValueError(f"{name} is not a JSON number")


class Malformed(ValueError):
    """A document does not have the expected form; the message is the place, such as stages.ab12.tokens."""


def typed(kind: Any, value: Any, place: str = "") -> Any:
    """A JSON value as the annotated type `kind`: text, counts, finite numbers, bool, tuples, mappings, dataclasses.

    Unlike options (`config.build`), nothing is converted, because a program wrote the text. Unknown keys are ignored,
    because a later version may write more. Raises Malformed.
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
    # Counts have at most 64 bits. A larger integer may overflow when it is converted to a float.
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
    """The required fields of a dataclass, and the type of each field."""
    missing = dataclasses.MISSING
    fields = [field for field in dataclasses.fields(kind) if field.default is field.default_factory is missing]
    return [field.name for field in fields], typing.get_type_hints(kind)


def _within(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key
