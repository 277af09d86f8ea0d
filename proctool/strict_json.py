"""JSON from strangers: refused before it costs anything where it is larger or deeper than anything of ours.

What the standard library would take and we do not: a key given twice (readers differ in which one they believe), NaN
and infinities, half a surrogate pair (no file name and no output can hold one), text or nesting without bounds.
"""

from __future__ import annotations

import gc
import json
import re
from typing import Any

MOST_BRACKETS = 1 << 19
"""Lists and objects in one document: a safetensors header has three a tensor, ours another two in its metadata."""
MOST_COMMAS = 1 << 21
MOST_DEPTH = 400
"""Lists and objects within each other: two a generation of a lineage."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def loads(raw: bytes | str) -> Any:
    """The value of a JSON text. Raises ValueError: malformed, too large, too deep, a key twice, NaN, half a
    surrogate pair.
    """
    text = raw.decode() if isinstance(raw, bytes) else raw  # UTF-8 alone: `json` would take UTF-16 too
    if text.count("[") + text.count("{") > MOST_BRACKETS or text.count(",") > MOST_COMMAS:
        raise ValueError("more values than any document of ours holds")
    collecting = gc.isenabled()
    gc.disable()  # a million new lists would be looked through again and again
    try:
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_refused)
        if _SURROGATE.search(text):
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
