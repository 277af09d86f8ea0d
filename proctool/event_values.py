"""What a field of an event may hold. Each reader takes a value from JSON and raises ValueError for an invalid one."""

from __future__ import annotations

import math
from typing import Annotated, Any

_MOST = 1e30


def read_amount(value: Any) -> float:
    """A number from 0 to 1e30."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MOST:
        raise ValueError
    return value


def read_count(value: Any) -> int:
    """A count."""
    return int(read_amount(value))


def read_measure(value: Any) -> float:
    """A number, nan for null."""
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        raise ValueError
    try:
        return value if value is not None and math.isfinite(value) else math.nan
    except OverflowError:  # an integer too large for a float
        raise ValueError from None


def read_flag(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError
    return value


def read_text(value: Any) -> str:
    """A text."""
    if not isinstance(value, str):
        raise ValueError
    return value


def read_mapping(value: Any) -> dict[str, Any]:
    """A mapping."""
    if not isinstance(value, dict):
        raise ValueError
    return value


def read_scores(value: Any) -> dict[str, float | None]:
    """Numbers by name, None for those that are not finite."""
    found = {name: read_measure(each) for name, each in read_mapping(value).items()}
    return {name: each if math.isfinite(each) else None for name, each in found.items()}


def read_carried(value: Any) -> list[Any]:
    """Rows of what was carried over, none for null."""
    rows = value or []
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and {"component", "source"} <= row.keys() for row in rows
    ):
        raise ValueError
    return rows


def read_rows(value: Any) -> list[Any]:
    """Scores of heads."""
    rows: list[Any] = value if isinstance(value, list) else [None]
    if not all(isinstance(row, dict) and {"layer", "head"} <= row.keys() for row in rows):
        raise ValueError
    return rows


# A field's type names the function that reads its value from JSON and raises ValueError for invalid values.
Count = Annotated[int, read_count]
Amount = Annotated[float, read_amount]
Measure = Annotated[float, read_measure]
Flag = Annotated[bool, read_flag]
Text = Annotated[str, read_text]
