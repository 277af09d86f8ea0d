"""Numbers as people write and read them: 2M, 1.5B, 5e-4, 3 min 20 s."""

from __future__ import annotations

import math
import sys

from proctool.errors import OptionError

LARGEST_COUNT = 10**18
"""Largest accepted count; arrays and files use 64 bits."""
_SUFFIXES = {"k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}


def parse_number(text: str | float) -> float:
    """Parse a real number with an optional suffix k, M, B (or G), T. Raises OptionError for other text."""
    written = str(text).strip().replace("_", "")
    scale = _SUFFIXES.get(written[-1:].lower(), 1)
    try:
        value = float(written[:-1] if scale > 1 else written)
    except ValueError:
        raise OptionError(f"{text!r} is not a number; write for example 20000, 2M, 1.5B or 5e-4") from None
    if not math.isfinite(value * scale):
        raise OptionError(f"{text!r} is not a finite number")
    return value * scale


def parse_count(text: str | float) -> int:
    """Parse a whole number with an optional suffix: 20000, 2M, 1.5B. Raises OptionError for other text."""
    value = text if isinstance(text, int) else parse_number(text)
    if abs(value) > LARGEST_COUNT:
        raise OptionError(f"{text!r} is too large; the limit is {LARGEST_COUNT:.0e}")
    if value != round(value):
        raise OptionError(f"{text!r} is not a whole number; write for example 20000, 2M or 1.5B")
    return round(value)


def format_count(value: float) -> str:
    """Three significant digits with a suffix: 1234567 -> 1.23M."""
    for suffix, scale in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= scale:
            return f"{value / scale:.3g}{suffix}"
    return f"{value:.3g}"


def counted(number: float, noun: str, *, exact: bool = False) -> str:
    """A number with its noun, which gets an s unless the number is 1: 1 row, 1.23M rows, or exact: 1234567 rows."""
    return f"{number if exact else format_count(number)} {noun}" + ("" if number == 1 else "s")


def format_seconds(seconds: float) -> str:
    """A duration with its two largest units: 200 -> 3 min 20 s."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def format_bytes(size: float) -> str:
    """A size in binary units: 1536 -> 1.5 KiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def to_perplexity(loss: float) -> float | None:
    """The perplexity for a loss in nats per token; None if it is not a finite number."""
    return math.exp(loss) if loss < math.log(sys.float_info.max) else None
