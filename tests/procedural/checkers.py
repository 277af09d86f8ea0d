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

Options = dict[str, Any]
Checker = Callable[[Options, list[int], list[bool]], None]


def all_but_first(targets: list[bool]) -> None:
    assert targets == [False] + [True] * (len(targets) - 1)


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
    assert agreeing >= 0.9 * sum(seen.total() - 1 for seen in repeated)


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


def rnn(o: Options, tokens: list[int], targets: list[bool]) -> None:
    """The format alone: any sequence has some probability. test_random_models.py follows the networks."""
    all_but_first(targets)
    assert len(tokens) == o["length"]
    assert all(0 <= token < o["symbols"] for token in tokens)


def pcfg(o: Options, tokens: list[int], targets: list[bool]) -> None:
    """What strings of one such grammar have in common. test_random_models.py parses them with the grammar."""
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
    assert len({string[0] for string in strings if string}) <= o["rules"], "the start has so many rules"
    assert len(set(tokens)) <= o["nonterminals"] * o["rules"] + 1
    # Each expansion leaves at most one nonterminal more, so a string goes on alike after equal stacks: a symbol alone
    # comes from a first rule or from one without children.
    if o["depth"] == 1:
        assert all(len(string) <= 1 for string in strings)
    if o["branching"] == 0:
        assert all(len(string) <= 1 for string in strings)


def markov(o: Options, tokens: list[int], targets: list[bool]) -> None:
    """No context is followed by more symbols than it has branches."""
    all_but_first(targets)
    assert len(tokens) == o["length"]
    assert all(0 <= token < o["symbols"] for token in tokens)
    after: dict[tuple[int, ...], set[int]] = {}
    for place in range(o["order"], len(tokens)):
        after.setdefault(tuple(tokens[place - o["order"] : place]), set()).add(tokens[place])
    assert all(len(symbols) <= o["branches"] for symbols in after.values())


def life(o: Options, tokens: list[int], targets: list[bool]) -> None:
    """Every cell of every frame by the rule's words."""
    height, width, states = o["height"], o["width"], o["states"]
    cells = height * width
    frames = [tokens[start : start + cells] for start in range(0, len(tokens), cells)]
    assert len(frames) == o["steps"] + 1
    assert targets == [False] * cells + [True] * (len(tokens) - cells)
    born, stays = o["rule"].removeprefix("B").split("/S")
    for frame, after in itertools.pairwise(frames):
        for y in range(height):
            for x in range(width):
                near = [
                    frame[(y + dy) % height * width + (x + dx) % width]
                    for dy in (-1, 0, 1)
                    for dx in (-1, 0, 1)
                    if dy or dx
                ]
                state, living = frame[y * width + x], str(near.count(1))
                assert 0 <= state < states
                if state == 0:
                    expected = 1 if living in born else 0
                elif state == 1 and living in stays:
                    expected = 1
                else:
                    expected = (state + 1) % states
                assert after[y * width + x] == expected


def _lime(o: Options, tokens: list[int], targets: list[bool], order: str) -> None:
    """The alphabets, and a case that makes the result of the rule. `order` names rule, case, result in order."""
    first, colon, opens, closes, comma, separator, pad = (o["vocab"] + index for index in (0, 4, 5, 6, 7, 8, 9))
    space = o["vocab"] + 3
    text = list(tokens)
    padding = 0
    while text[-1] == pad:
        text.pop()
        padding += 1
    assert pad not in text
    end = text.index(separator)
    assert text.count(separator) == 1
    assert targets == [False] * (end + 1) + [True] * (len(text) - end - 1) + [False] * padding
    names, given, other = " ".join(map(str, text[:end])).split(f" {space} ")
    named = names.split()
    lower, signs = named.index(str(first + 1)), named.index(str(first + 2))
    assert named[0] == str(first)
    capitals, small, signs_ = named[1:lower], named[lower + 1 : signs], named[signs + 1 :]
    assert 1 <= len(capitals) <= 5
    assert (len(small), len(signs_)) == (24, 20)
    assert len({*capitals, *small, *signs_}) == len(capitals) + 44
    assert all(0 <= int(symbol) < o["vocab"] for symbol in (*capitals, *small, *signs_))
    parts = dict(zip(order, (given.split(), other.split(), [str(token) for token in text[end + 1 :]]), strict=True))
    case: dict[str, list[str]] = {}
    for entry in " ".join(parts["c"]).split(f" {comma} "):
        letter, is_, open_, *replaced, close = entry.split()
        assert (is_, open_, close) == (str(colon), str(opens), str(closes))
        assert 2 <= len(replaced) <= 8
        assert set(replaced) <= {*small, *signs_}
        case[letter] = replaced
    rule = parts["r"]
    assert sorted(case) == sorted(capitals) == sorted({symbol for symbol in rule if symbol in capitals})
    letters = [symbol for symbol in rule if symbol in capitals]
    assert len(letters) in (6, 8, 10)
    assert len(capitals) <= len(letters) // 2
    others = [symbol for symbol in rule if symbol not in capitals]
    assert set(others) <= set(signs_)
    assert min(5, o["most"]) <= len(others) <= o["most"]
    assert parts["t"] == [part for symbol in rule for part in case.get(symbol, [symbol])]


def induct(o: Options, tokens: list[int], targets: list[bool]) -> None:
    _lime(o, tokens, targets, "tcr")


def deduct(o: Options, tokens: list[int], targets: list[bool]) -> None:
    _lime(o, tokens, targets, "rct")


def abduct(o: Options, tokens: list[int], targets: list[bool]) -> None:
    _lime(o, tokens, targets, "rtc")


def derivations(o: Options, tokens: list[int], targets: list[bool]) -> None:
    """Every whole line follows by its rule."""
    all_but_first(targets)
    assert len(tokens) == o["length"]
    implies, and_, or_ = range(o["atoms"], o["atoms"] + 3)
    rules = ["premise", "detach", "join", "left", "right", "weaken"]
    zero = or_ + 1 + len(rules)
    stop, separator = zero + o["lines"], zero + o["lines"] + 1

    def parsed(formula: list[int]) -> tuple[object, ...]:
        """A tree from prefix notation, with nothing left over."""

        def tree(place: int) -> tuple[tuple[object, ...], int]:
            if formula[place] < o["atoms"]:
                return (formula[place],), place + 1
            assert formula[place] in (implies, and_, or_)
            left, middle = tree(place + 1)
            right, end = tree(middle)
            return (formula[place], left, right), end

        whole, end = tree(0)
        assert end == len(formula)
        return whole

    lines: list[tuple[object, ...]] = []
    line: list[int] = []
    for token in tokens:
        if token == separator:
            assert line == []
            assert len(lines) == o["lines"]
            lines = []
        elif token != stop:
            line.append(token)
        else:
            rule = rules[line[0] - or_ - 1]
            count = {"premise": 0, "detach": 2, "join": 2}.get(rule, 1)
            used = [lines[number - zero] for number in line[1 : 1 + count]]
            assert all(number >= zero for number in line[1 : 1 + count])
            assert len(line) - 1 - count <= o["size"]
            found = parsed(line[1 + count :])
            if rule == "premise":
                atoms = all(isinstance(part, int) or len(part) == 1 for part in found)
                assert atoms or (found[0] == implies and found[1] in lines and len(found[2]) == 1)  # type: ignore[arg-type]
            elif rule == "detach":
                assert used[0] == (implies, used[1], found)
            elif rule == "join":
                assert found == (and_, *used)
            elif rule == "weaken":
                assert found[:2] == (or_, used[0])
                assert len(found[2]) == 1  # type: ignore[arg-type]
            else:
                assert used[0][0] == and_
                assert found == used[0][1 if rule == "left" else 2]
            lines.append(found)
            line = []


CHECKERS: dict[str, Checker] = {
    "set": set_,
    "shuffle-dyck": shuffle_dyck,
    "reversed-addition": reversed_addition,
    **{
        check.__name__: check
        for check in (
            *(addition, count, delete, dfa, difference, duplicate, dyck, eca, first, haystack, identity, intersect),
            *(last, modular, mqar, multiplication, nca, replace, reverse, search, select, sort, sorting, stack),
            *(union, ww, abduct, deduct, derivations, induct, life, markov, pcfg, rnn),
        )
    },
}

# Option settings to check each task under, besides its defaults and presets: small, lopsided and extreme ones.
_LIME: list[Options] = [{"vocab": 68, "most": 1}, {"most": 60}]
SETTINGS: dict[str, list[Options]] = {
    "abduct": _LIME,
    "deduct": _LIME,
    "derivations": [
        {"atoms": 1, "size": 3, "lines": 20},
        {"atoms": 2, "size": 40, "lines": 40, "length": 1500},
        {"lines": 1, "length": 9},
    ],
    "induct": _LIME,
    "life": [
        {"rule": "B/S", "height": 3, "width": 3, "steps": 1},
        {"rule": "B36/S23", "height": 5, "width": 9, "steps": 12},
        {"rule": "B012345678/S012345678", "states": 5, "height": 4, "width": 3},
        {"rule": "B1/S08", "states": 255, "height": 7, "width": 5},
    ],
    "markov": [
        {"order": 0, "symbols": 3, "branches": 2},
        {"order": 1, "branches": 1, "per_chain": 1},
        {"order": 5, "symbols": 4, "branches": 40, "length": 3},
    ],
    "pcfg": [
        {"nonterminals": 1, "rules": 2, "symbols": 1, "branching": 0.5},
        {"branching": 0, "grammar": 7},
        {"depth": 1, "per_grammar": 5},
        {"depth": 3, "branching": 1.3, "rules": 8},
    ],
    "rnn": [
        {"cell": "relu", "hidden": 3, "symbols": 2, "length": 40},
        {"cell": "gru", "hidden": 5, "symbols": 9, "length": 40, "temperature": 0.1},
        {"cell": "lstm", "hidden": 7, "symbols": 30, "length": 40, "per_network": 1, "radius": 1.5},
    ],
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
