"""Checkers of the tasks that draw a model, a rule or a derivation: see checkers.py."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

Options = dict[str, Any]


def all_but_first(targets: list[bool]) -> None:
    assert targets == [False] + [True] * (len(targets) - 1)


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
    if o["depth"] == 1 or o["branching"] == 0:
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


MODEL_CHECKERS: dict[str, Callable[[Options, list[int], list[bool]], None]] = {
    check.__name__: check for check in (abduct, deduct, derivations, induct, life, markov, pcfg, rnn)
}

_LIME: list[Options] = [{"vocab": 68, "most": 1}, {"most": 60}]
MODEL_SETTINGS: dict[str, list[Options]] = {
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
}
