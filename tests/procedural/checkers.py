"""One plain, slow checker per task, written from its definition alone: nothing here comes from the generators.

A checker takes the options, one sample's tokens and its targets (lists), and asserts everything the definition says.
`CHECKERS` finds it by the task's name.
"""

from __future__ import annotations

import itertools
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.procedural.model_checkers import MODEL_CHECKERS, MODEL_SETTINGS, all_but_first

Options = dict[str, Any]
Checker = Callable[[Options, list[int], list[bool]], None]


def dyck(o: Options, tokens: list[int], targets: list[bool]) -> None:
    assert len(tokens) == o["length"]
    all_but_first(targets)
    stack: list[int] = []
    for place, token in enumerate(tokens):
        assert 0 <= token < 2 * o["k"]
        if token < o["k"]:
            assert len(stack) < o["length"] - place, "opens what cannot close"
            stack.append(token)
        else:
            assert stack.pop() == token - o["k"]
    assert stack == []


def shuffle_dyck(o: Options, tokens: list[int], targets: list[bool]) -> None:
    assert len(tokens) == o["length"]
    all_but_first(targets)
    opened = Counter[int]()
    for token in tokens:
        assert 0 <= token < 2 * o["k"]
        opened[token % o["k"]] += 1 if token < o["k"] else -1
        assert min(opened.values()) >= 0
        assert sum(opened.values()) <= o["max_depth"]
    if o["balanced"]:
        assert sum(opened.values()) == 0


def _transduced(
    o: Options, tokens: list[int], targets: list[bool], prompts: int, answer: Callable[..., list[int]], *sizes: int
) -> None:
    """The prompts of these sizes, a separator after each, the answer, padding; the answer alone is a target."""
    separator, pad = o["symbols"], o["symbols"] + 1
    parts, start = [], 0
    for size in sizes:
        part = tokens[start : start + size]
        assert tokens[start + size] == separator
        assert separator not in part
        assert pad not in part
        parts.append(part)
        start += size + 1
    assert len(parts) == prompts
    for symbol in parts[0]:
        assert 0 <= symbol < o["symbols"]
    expected = answer(*parts)
    padding = len(tokens) - start - len(expected)
    assert padding >= 0
    assert tokens[start:] == expected + [pad] * padding
    assert targets == [False] * start + [True] * len(expected) + [False] * padding


def _drawn(o: Options, symbols: list[int]) -> None:
    for symbol in symbols:
        assert 1 <= symbol < o["symbols"]


def identity(o: Options, tokens: list[int], targets: list[bool]) -> None:
    assert len(tokens) == 2 * o["inputs"] + 1
    _transduced(o, tokens, targets, 1, lambda x: (_drawn(o, x), list(x))[1], o["inputs"])


def reverse(o: Options, tokens: list[int], targets: list[bool]) -> None:
    assert len(tokens) == 2 * o["inputs"] + 1
    _transduced(o, tokens, targets, 1, lambda x: (_drawn(o, x), list(reversed(x)))[1], o["inputs"])


def duplicate(o: Options, tokens: list[int], targets: list[bool]) -> None:
    assert len(tokens) == 3 * o["inputs"] + 1
    _transduced(o, tokens, targets, 1, lambda x: (_drawn(o, x), x + x)[1], o["inputs"])


def sort(o: Options, tokens: list[int], targets: list[bool]) -> None:
    assert len(tokens) == 2 * o["inputs"] + 1
    _transduced(o, tokens, targets, 1, lambda x: (_drawn(o, x), sorted(x))[1], o["inputs"])


def unique(symbols: list[int]) -> list[int]:
    return list(dict.fromkeys(symbols))


def set_(o: Options, tokens: list[int], targets: list[bool]) -> None:
    assert len(tokens) == 2 * o["inputs"] + 1
    _transduced(o, tokens, targets, 1, lambda x: (_drawn(o, x), unique(x))[1], o["inputs"])


def union(o: Options, tokens: list[int], targets: list[bool]) -> None:
    half = o["inputs"] // 2
    assert len(tokens) == 2 * o["inputs"] + 2
    _transduced(o, tokens, targets, 2, lambda a, b: (_drawn(o, a + b), unique(a + b))[1], half, half)


def intersect(o: Options, tokens: list[int], targets: list[bool]) -> None:
    half = o["inputs"] // 2
    assert len(tokens) == 3 * half + 2
    _transduced(o, tokens, targets, 2, lambda a, b: (_drawn(o, a + b), unique([s for s in a if s in b]))[1], half, half)


def difference(o: Options, tokens: list[int], targets: list[bool]) -> None:
    half = o["inputs"] // 2
    assert len(tokens) == 3 * half + 2
    _transduced(
        o, tokens, targets, 2, lambda a, b: (_drawn(o, a + b), unique([s for s in a if s not in b]))[1], half, half
    )


def delete(o: Options, tokens: list[int], targets: list[bool]) -> None:
    assert len(tokens) == 2 * o["inputs"] + 3

    def answer(x: list[int], d: list[int]) -> list[int]:
        _drawn(o, x + d)
        left = list(x)
        if d[0] in left:
            left.remove(d[0])
        return left

    _transduced(o, tokens, targets, 2, answer, o["inputs"], 1)


def stack(o: Options, tokens: list[int], targets: list[bool]) -> None:
    assert len(tokens) == 2 * o["inputs"] + 1

    def answer(operations: list[int]) -> list[int]:
        held: list[int] = []
        for step, operation in enumerate(operations):
            if operation == 0:
                assert len(held) > 1, "with at most one element, push"
                held.pop()
            else:
                assert operation not in held
                assert not (step == len(operations) - 1 and len(held) > 1), "the last step pops"
                held.append(operation)
        return held[::-1]

    _transduced(o, tokens, targets, 1, answer, o["inputs"])


def first(o: Options, tokens: list[int], targets: list[bool]) -> None:
    assert len(tokens) == o["inputs"] + 2
    _transduced(o, tokens, targets, 1, lambda x: (_drawn(o, x), [x[0]])[1], o["inputs"])


def last(o: Options, tokens: list[int], targets: list[bool]) -> None:
    assert len(tokens) == o["inputs"] + 2
    _transduced(o, tokens, targets, 1, lambda x: (_drawn(o, x), [x[-1]])[1], o["inputs"])


def select(o: Options, tokens: list[int], targets: list[bool]) -> None:
    assert len(tokens) == o["inputs"] + 4
    zero = o["symbols"] + 2

    def answer(x: list[int], place: list[int]) -> list[int]:
        _drawn(o, x)
        assert 0 <= place[0] - zero < o["inputs"]
        return [x[place[0] - zero]]

    _transduced(o, tokens, targets, 2, answer, o["inputs"], 1)


def search(o: Options, tokens: list[int], targets: list[bool]) -> None:
    assert len(tokens) == o["inputs"] + 4
    zero = o["symbols"] + 2
    _transduced(o, tokens, targets, 2, lambda x, d: (_drawn(o, x + d), [zero + x.index(d[0])])[1], o["inputs"], 1)


def count(o: Options, tokens: list[int], targets: list[bool]) -> None:
    assert len(tokens) == o["inputs"] + 4
    zero = o["symbols"] + 2

    def answer(x: list[int], d: list[int]) -> list[int]:
        _drawn(o, x + d)
        assert d[0] in x
        return [zero + x.count(d[0])]

    _transduced(o, tokens, targets, 2, answer, o["inputs"], 1)


def replace(o: Options, tokens: list[int], targets: list[bool]) -> None:
    assert len(tokens) == 2 * o["inputs"] + 4

    def answer(x: list[int], pair: list[int]) -> list[int]:
        _drawn(o, x + pair)
        assert pair[0] in x
        return [pair[1] if symbol == pair[0] else symbol for symbol in x]

    _transduced(o, tokens, targets, 2, answer, o["inputs"], 2)


def ww(o: Options, tokens: list[int], targets: list[bool]) -> None:
    assert len(tokens) == 2 * o["half"]
    all_but_first(targets)
    assert tokens[: o["half"]] == tokens[o["half"] :]
    assert all(0 <= token < o["symbols"] for token in tokens)


def eca(o: Options, tokens: list[int], targets: list[bool]) -> None:
    bits = "".join(format(token, f"0{o['patch']}b") for token in tokens)
    width = o["width"]
    rows = [bits[start : start + width] for start in range(0, len(bits), width)]
    assert len(rows) == o["steps"] + 1
    assert len(bits) == len(rows) * width
    # Wolfram: the neighbourhoods 111, 110, ..., 000 in order map to the rule's binary digits.
    becomes = dict(zip([format(7 - i, "03b") for i in range(8)], format(o["rule"], "08b"), strict=True))
    for row, below in itertools.pairwise(rows):
        for place in range(width):
            spelt = row[place - 1] + row[place] + row[(place + 1) % width]
            assert below[place] == becomes[spelt]
    in_first = width // o["patch"]
    assert targets == [False] * in_first + [True] * (len(tokens) - in_first)


def nca(o: Options, tokens: list[int], targets: list[bool]) -> None:
    """The format, and that cells with equal neighbourhoods become equal (up to the temperature's rare noise)."""
    all_but_first(targets)
    assert len(tokens) == o["length"]
    side, states = o["grid"], o["states"]
    half = side // 2
    size = half * half + 2
    grids = []
    for start in range(0, len(tokens), size):
        frame = tokens[start : start + size]
        assert frame[0] == states**4
        if len(frame) == size:
            assert frame[-1] == states**4 + 1
            grid = [[0] * side for _ in range(side)]
            for index, patch in enumerate(frame[1:-1]):
                assert 0 <= patch < states**4
                y, x = 2 * (index // half), 2 * (index % half)
                for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
                    grid[y + row][x + column] = patch % states
                    patch //= states
            grids.append(grid)
    becomes: dict[tuple[int, ...], Counter[int]] = {}
    for grid, after in itertools.pairwise(grids):
        for y in range(side):
            for x in range(side):
                near = tuple(grid[(y + dy) % side][(x + dx) % side] for dy in (-1, 0, 1) for dx in (-1, 0, 1))
                becomes.setdefault(near, Counter())[after[y][x]] += 1
    repeated = [seen for seen in becomes.values() if seen.total() > 1]
    agreeing = sum(max(seen.values()) - 1 for seen in repeated)
    again = sum(seen.total() - 1 for seen in repeated)
    # Where few neighbourhoods come up again, noise may decide one or two.
    assert agreeing >= 0.9 * again - (2 if again < 20 else 0)


def compressed_share(patches: list[int]) -> float:
    """Size by gzip of patch tokens as 32-bit integers, as a share of their size."""
    data = b"".join(patch.to_bytes(4, "little") for patch in patches)
    return len(zlib.compress(data, 9, wbits=31)) / len(data)


def dfa(o: Options, tokens: list[int], targets: list[bool]) -> None:
    """Strings that one automaton with so many branches could have made."""
    all_but_first(targets)
    assert len(tokens) == o["length"]
    strings: list[list[int]] = [[]]
    for token in tokens:
        assert 0 <= token <= o["symbols"]
        if token == o["symbols"]:
            assert strings[-1], "an empty string"
            strings.append([])
        else:
            strings[-1].append(token)
    after: dict[tuple[int, ...], set[int]] = {}
    for string in strings:
        for place, symbol in enumerate(string):
            after.setdefault(tuple(string[:place]), set()).add(symbol)
    assert all(len(symbols) <= o["branches"] for symbols in after.values())
    # Distinct states number at most o["states"], so the sets of symbols that follow do too where they are complete.
    complete = {frozenset(symbols) for symbols in after.values() if len(symbols) == o["branches"]}
    assert len(complete) <= o["states"]


def haystack(o: Options, tokens: list[int], targets: list[bool]) -> None:
    keys = o["keys"] or o["pairs"]
    key, query = o["vocab"] // 2, o["vocab"] // 2 + keys
    assert len(tokens) == 2 * o["pairs"] + 2
    (end,) = [place for place, token in enumerate(tokens) if token >= query]
    assert end % 2 == 0
    assert 1 <= end // 2 <= o["pairs"]
    seen = {}
    for place in range(0, end, 2):
        assert key <= tokens[place] < query
        assert tokens[place] not in seen
        assert 1 <= tokens[place + 1] < key
        seen[tokens[place]] = tokens[place + 1]
    assert tokens[end + 1] == seen[tokens[end] - keys]
    assert set(tokens[end + 2 :]) <= {0}
    assert targets == [place == end + 1 for place in range(len(tokens))]


def sorting(o: Options, tokens: list[int], targets: list[bool]) -> None:
    items = o["items"]
    assert len(tokens) == 2 * items + 1
    assert all(0 <= token < o["symbols"] for token in tokens[:items])
    assert tokens[items] == o["symbols"]
    assert tokens[items + 1 :] == sorted(tokens[:items])
    assert targets == [False] * (items + 1) + [True] * items


def _arithmetic(
    o: Options, tokens: list[int], targets: list[bool], result: Callable[[int, int], int], backwards: bool = False
) -> None:
    letters = {**{digit: str(digit) for digit in range(10)}, 10: "@", 11: "=", 12: "_", 30: "!"}
    letters |= {20 + digit: str(digit) for digit in range(10)}
    operator, equals, stop = tokens.index(10), tokens.index(11), tokens.index(30)
    assert all(token < 10 for token in tokens[:operator] + tokens[operator + 1 : equals])
    assert all(20 <= token < 30 for token in tokens[equals + 1 : stop])
    assert all(token == 12 for token in tokens[stop + 1 :])
    written = "".join(letters[token] for token in tokens[:stop])
    question, answer = written.split("=")
    a, b = question.split("@")
    if backwards:
        a, b, answer = a[::-1], b[::-1], answer[::-1]
    for number in (a, b):
        assert len(number) == o["digits"]
        assert number[0] != "0"
    assert answer == str(result(int(a), int(b)))
    if o["scoring"] == "answer":
        assert targets == [equals < place <= stop for place in range(len(tokens))]
    else:
        assert targets == [equals + 1 < place <= stop + 1 for place in range(len(tokens))]


def addition(o: Options, tokens: list[int], targets: list[bool]) -> None:
    assert len(tokens) == 3 * o["digits"] + 4
    _arithmetic(o, tokens, targets, lambda a, b: a + b)


def reversed_addition(o: Options, tokens: list[int], targets: list[bool]) -> None:
    assert len(tokens) == 3 * o["digits"] + 4
    _arithmetic(o, tokens, targets, lambda a, b: a + b, backwards=True)


def multiplication(o: Options, tokens: list[int], targets: list[bool]) -> None:
    assert len(tokens) == 4 * o["digits"] + 3
    _arithmetic(o, tokens, targets, lambda a, b: a * b)


def modular(o: Options, tokens: list[int], targets: list[bool]) -> None:
    modulus = o["modulus"]
    assert len(tokens) == 2 * o["terms"] + 1
    terms, joints = tokens[0:-1:2], tokens[1:-1:2]
    assert joints == [modulus] * (o["terms"] - 1) + [modulus + 1]
    assert all(0 <= term < modulus for term in terms)
    result = terms[0]
    for term in terms[1:]:
        result = {"add": result + term, "subtract": result - term, "multiply": result * term}[o["operation"]]
    assert tokens[-1] == result % modulus
    assert targets == [False] * (len(tokens) - 1) + [True]


def mqar(o: Options, tokens: list[int], targets: list[bool]) -> None:
    half, pairs = o["vocab"] // 2, o["pairs"]
    assert len(tokens) == o["length"]
    keys, values = tokens[0 : 2 * pairs : 2], tokens[1 : 2 * pairs : 2]
    assert len(set(keys)) == pairs
    assert all(1 <= key < half for key in keys)
    assert all(half <= value < o["vocab"] for value in values)
    known = dict(zip(keys, values, strict=True))
    expected = [False] * len(tokens)
    asked = []
    for place in range(2 * pairs, len(tokens), 2):
        if tokens[place] == 0:
            assert tokens[place + 1] == 0
        else:
            assert tokens[place + 1] == known[tokens[place]]
            asked.append(tokens[place])
            expected[place + 1] = True
    assert sorted(asked) == sorted(keys)
    assert targets == expected


CHECKERS: dict[str, Checker] = {
    **MODEL_CHECKERS,
    "set": set_,
    "shuffle-dyck": shuffle_dyck,
    "reversed-addition": reversed_addition,
    **{
        check.__name__: check
        for check in (
            *(addition, count, delete, dfa, difference, duplicate, dyck, eca, first, haystack, identity, intersect),
            *(last, modular, mqar, multiplication, nca, replace, reverse, search, select, sort, sorting, stack),
            *(union, ww),
        )
    },
}

# Option settings to check each task under, besides its defaults and presets: small, lopsided and extreme ones.
SETTINGS: dict[str, list[Options]] = {
    **MODEL_SETTINGS,
    "addition": [{"digits": 1}, {"digits": 12}, {"scoring": "official"}],
    "count": [{"inputs": 1}, {"inputs": 200, "symbols": 3}, {"symbols": 2}],
    "delete": [{"inputs": 1, "symbols": 2}, {"inputs": 7, "symbols": 4}, {"inputs": 200}],
    "dfa": [
        {"states": 1, "symbols": 1, "branches": 1},
        {"states": 3, "symbols": 5, "branches": 5, "mean": 1},
        {"states": 2, "branches": 2, "length": 2000},
    ],
    "difference": [{"inputs": 2, "symbols": 3}, {"inputs": 40, "symbols": 5}],
    "duplicate": [{"inputs": 1, "symbols": 2}, {"inputs": 9}],
    "dyck": [
        {"k": 1, "length": 2},
        {"k": 2, "length": 10, "p_open": 0.9},
        {"k": 3, "length": 64, "p_open": 0.1},
        {"k": 4, "length": 20, "p_open": 1.0},
        {"k": 4, "length": 20, "p_open": 0.0},
        {"k": 300, "length": 256, "p_open": 0.49},
        {"k": 5, "length": 40_000},
    ],
    "eca": [
        {"rule": 30, "width": 1, "steps": 3},
        {"rule": 90, "width": 2, "steps": 5},
        {"rule": 184, "width": 12, "patch": 3, "steps": 4},
        {"rule": 255, "width": 7, "patch": 7},
        {"rule": 0, "width": 5},
        {"width": 30, "patch": 15},
    ],
    "first": [{"inputs": 1, "symbols": 2}],
    "haystack": [{"pairs": 1, "vocab": 4}, {"pairs": 5, "vocab": 21}, {"pairs": 3, "keys": 9, "vocab": 50}],
    "identity": [{"inputs": 1, "symbols": 2}, {"inputs": 300, "symbols": 1000}],
    "intersect": [{"inputs": 2, "symbols": 3}, {"inputs": 40, "symbols": 5}],
    "last": [{"inputs": 1, "symbols": 2}],
    "modular": [
        {"modulus": 2, "terms": 9},
        {"operation": "subtract", "terms": 3},
        {"operation": "multiply", "modulus": 65_000, "terms": 4},
    ],
    "mqar": [
        {"pairs": 1, "length": 4, "vocab": 4},
        {"pairs": 5, "length": 20, "vocab": 12, "power": 1.0},
        {"pairs": 64, "length": 512},
    ],
    "multiplication": [{"digits": 1}, {"digits": 2}, {"digits": 30}, {"scoring": "official"}],
    "nca": [
        {"grid": 4, "states": 2, "length": 50, "complexity": 0.1, "per_rule": 1},
        {"grid": 8, "states": 6, "length": 301, "per_rule": 5, "dropped": 0},
        {"grid": 4, "states": 15, "length": 60, "complexity": 0.1, "most_complexity": 2.0},
    ],
    "replace": [{"inputs": 1, "symbols": 3}, {"inputs": 30, "symbols": 4}],
    "reverse": [{"inputs": 1, "symbols": 2}, {"inputs": 33, "symbols": 300}],
    "reversed-addition": [{"digits": 1}, {"digits": 3}, {"scoring": "official"}],
    "search": [{"inputs": 1, "symbols": 2}, {"inputs": 50, "symbols": 5}],
    "select": [{"inputs": 1, "symbols": 2}, {"inputs": 50, "symbols": 5}],
    "set": [{"inputs": 1, "symbols": 2}, {"inputs": 5, "symbols": 4}, {"inputs": 300, "symbols": 60_000}],
    "shuffle-dyck": [
        {"k": 1, "length": 2},
        {"k": 1, "length": 10, "max_depth": 1},
        {"k": 2, "length": 30, "max_depth": 3, "p_open": 0.9},
        {"k": 3, "length": 100, "max_depth": 200, "p_open": 0.8},
        {"k": 100, "length": 300, "p_open": 0.2},
        {"k": 4, "length": 100, "balanced": False},
        {"k": 4, "length": 40, "p_open": 1.0},
        {"k": 4, "length": 40, "p_open": 0.0},
    ],
    "sort": [{"inputs": 1, "symbols": 2}, {"inputs": 90, "symbols": 5}],
    "sorting": [{"items": 1, "symbols": 1}, {"items": 40, "symbols": 7}],
    "stack": [
        {"inputs": 1, "symbols": 3},
        {"inputs": 2, "symbols": 3},
        {"inputs": 50, "symbols": 4},
        {"inputs": 200, "symbols": 300},
    ],
    "union": [{"inputs": 2, "symbols": 2}, {"inputs": 40, "symbols": 9}],
    "ww": [{"half": 1, "symbols": 1}, {"half": 3, "symbols": 5000}],
}
