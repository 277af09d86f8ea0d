"""Damage to good inputs: bytes, text and JSON values, all drawn from one random generator."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from random import Random
from typing import Any

NUMBERS = (
    "0",
    "-1",
    "1",
    "2",
    "7",
    "255",
    "256",
    "65535",
    "65536",
    "-2147483649",
    "4294967296",
    "9223372036854775808",
    "1e18",
    "1e19",
    "1e308",
    "1e309",
    "-0.0",
    "0.5",
    "1e-320",
    "nan",
    "inf",
    "-inf",
    "NaN",
    "Infinity",
    "1_000",
    "2M",
    "1.5B",
    "0x10",
    "007",
    "1:30",
    "99999999999999999999999999999999",
    "9" * 400,
)
TOKENS = (
    "",
    " ",
    "\n",
    "\t",
    "\0",
    "\r",
    "\x1b[2J",
    ":",
    ",",
    "=",
    "+",
    " + ",
    "*",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "-",
    "--",
    "/",
    "../",
    "~",
    "&a ",
    "*a",
    "<<: ",
    "!!python/name:os.system ",
    "!!binary ",
    "!!set ",
    "? ",
    "|",
    ">",
    "#",
    "%",
    "@",
    "`",
    "'",
    '"',
    "\\",
    "\\ud800",
    "é",
    "\u2028",
    "\N{PILE OF POO}",
    "null",
    "true",
    "false",
    "~",
    "none",
    "None",
    "2024-13-45",
)
_BYTES = (
    0x00,
    0x01,
    0x0A,
    0x0D,
    0x20,
    0x22,
    0x2C,
    0x30,
    0x5B,
    0x5C,
    0x5D,
    0x7B,
    0x7D,
    0x7F,
    0x80,
    0xC0,
    0xED,
    0xFE,
    0xFF,
)


def mutated(random: Random, seed: bytes, others: Sequence[bytes], words: Sequence[str]) -> bytes:
    """`seed` with one to eight kinds of damage, some of it pieces of `others` or of `words`."""
    made = bytearray(seed)
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 5, 8))):
        place = random.randrange(len(made) + 1)
        kind = random.randrange(10)
        if kind == 0 and made:
            made[place % len(made)] ^= 1 << random.randrange(8)
        elif kind == 1 and made:
            made[place % len(made)] = random.choice(_BYTES)
        elif kind == 2:
            made[place:place] = bytes(random.choice(_BYTES) for _ in range(random.randrange(1, 9)))
        elif kind == 3:
            del made[place : place + random.choice((1, 1, 2, 4, 8, 32))]
        elif kind == 4:
            end = place + random.randrange(1, 33)
            made[place:place] = made[place:end] * random.choice((1, 1, 2, 16))
        elif kind == 5:
            other = random.choice(others)
            start = random.randrange(len(other) + 1)
            made[place : place + random.randrange(33)] = other[start : start + random.randrange(65)]
        elif kind == 6:
            del made[place:]
        elif kind == 7:
            made[place:place] = random.choice(words or TOKENS).encode("utf-8", "surrogatepass")
        elif kind == 8:
            made[place:place] = random.choice(TOKENS).encode()
        else:
            _number(random, made, place)
    return bytes(made)


def _number(random: Random, made: bytearray, place: int) -> None:
    """Put an interesting number in the place of the next run of digits."""
    digits = b"0123456789."
    start = next((at for at in range(place, len(made)) if made[at] in digits), place)
    end = start
    while end < len(made) and made[end] in digits:
        end += 1
    made[start:end] = random.choice(NUMBERS).encode()


def mutated_value(random: Random, seed: Any) -> Any:
    """A JSON value with one to four of its parts replaced, removed, repeated or moved."""
    made = [copy.deepcopy(seed)]
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        holder, key = _somewhere(random, made)
        kind = random.randrange(6)
        if kind == 0 and holder is not made:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[random.choice(TOKENS)] = holder[key]
        elif kind == 2:
            other, at = _somewhere(random, made)
            holder[key] = copy.deepcopy(other[at])
        elif kind == 3 and isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
            factor = random.choice((-1, 0, 2, 10, 1e3, 10**9, 0.5, 1e300))
            holder[key] = holder[key] * factor if abs(holder[key]) < 1e6 else factor
        else:
            holder[key] = _anything(random)
    return made[0]


def _somewhere(random: Random, root: list[Any]) -> tuple[Any, Any]:
    """A random place in a value: what holds it, and its key there."""
    holder: Any = root
    key: Any = 0
    while isinstance(holder[key], dict | list) and holder[key] and random.random() < 0.8:
        holder = holder[key]
        key = random.choice(list(holder)) if isinstance(holder, dict) else random.randrange(len(holder))
    return holder, key


def _anything(random: Random) -> Any:
    simple = (
        None,
        True,
        False,
        0,
        -1,
        1,
        3,
        2**31,
        2**63,
        2**64,
        -(2**63),
        10**40,
        0.5,
        1e308,
        "",
        "x",
        "\0",
        "\x1b[2J",
    )
    made: Any = random.choice((*simple, [], {}, [0], {"a": 1}, random.choice(TOKENS), random.choice(NUMBERS)))
    for _ in range(random.choice((0, 0, 0, 0, 1, 3))):
        made = random.choice(([made], {"x": made}, [made, made]))
    return made
