"""Formal derivations in propositional logic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from proctool.procedural.draws import Mask, Tokens, after_the_first, packed
from proctool.procedural.registry import Task, require, require_fits, task
from proctool.procedural.samples import Samples

_IMPLIES, _AND, _OR = range(3)
_PREMISE, _DETACH, _JOIN, _LEFT, _RIGHT, _WEAKEN = range(6)
_REFERENCES = np.array([0, 2, 2, 1, 1, 1])


@task("derivations")
@dataclass(frozen=True)
class Derivations(Task):
    """Derivations in propositional logic: each line has a rule, its input lines and a formula.

        tokens   premise > p q ; premise p ; detach #0 #1 q ; join #2 #1 & q p ; left #3 q ;      (n, length)
        targets  .       x x x x x       x x x      x  x  x x x    x  x  x x x x x    x  x x

    Formulas are in prefix notation, over atoms and the connectives > (implies), & (and) and v (or). Rules: `premise`
    writes any formula; `detach` takes A > B and A and writes B; `join` takes A and B and writes & A B; `left` and
    `right` take & A B and write A or B; `weaken` takes A and writes v A B for an atom B. A derivation has `lines`
    lines, numbered from 0; a separator follows it, then another derivation.

    Each line's rule is drawn uniformly, its lines uniformly among those to which the rule applies and whose result has
    at most `size` tokens; if there are none, it is a premise. A premise is, with probability 1/3 each: an atom; a
    connective, drawn uniformly, between two atoms; or A > B for a random line A (if that fits, and on the first line
    an atom) and an atom B. Atoms are drawn uniformly. There are no temporary assumptions.

    Source: made for proctool, after the idea of formal derivations as pretraining data (arXiv 2608.03930). The paper's
    text was not available, so its rules and distribution may differ.
    """

    atoms: int = 26
    """Number of different atoms."""
    lines: int = 16
    """Lines per derivation."""
    size: int = 15
    """Maximum tokens of a formula."""
    length: int = 512
    """Tokens in one sample."""

    presets: ClassVar = {"small": {"atoms": 6, "lines": 8, "size": 7, "length": 96}}
    size_option: ClassVar = "length"

    def __post_init__(self) -> None:
        require(1 <= self.atoms <= 4096, self, "atoms", "must be between 1 and 4096")
        require(1 <= self.lines <= 256, self, "lines", "must be between 1 and 256")
        require(3 <= self.size <= 255, self, "size", "must be between 3 and 255")
        require(self.length >= 2, self, "length", "must be at least 2")
        require_fits(self, length="length", vocabulary="atoms")

    @property
    def layout(self) -> dict[str, range]:
        """Atoms, connectives (implies, and, or), rules, line numbers, the end of a line, the separator, padding."""
        parts, end = {}, 0
        sizes = {"atom": self.atoms, "connective": 3, "rule": len(_REFERENCES), "numeral": self.lines}
        for role, size in {**sizes, "stop": 1, "separator": 1, "pad": 1}.items():
            parts[role] = range(end, end + size)
            end += size
        return parts

    @property
    def min_entropy_bits(self) -> float:
        """No bound is known, so splits are separated by content."""
        return 0.0

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw n samples."""
        rows, kept = self._derivations(rng, n)
        while np.count_nonzero(kept, axis=1).min() < self.length:
            more, shown = self._derivations(rng, n)
            rows = np.concatenate([rows, more], axis=1)
            kept = np.concatenate([kept, shown], axis=1)
        tokens = packed(rows, kept, self.layout["pad"].start)[0]
        return Samples(np.ascontiguousarray(tokens[:, : self.length]), after_the_first(n, self.length))

    def _derivations(self, rng: np.random.Generator, n: int) -> tuple[Tokens, Mask]:
        """One derivation per sample: lines of fixed width, and a mask of used tokens. (n, width) each."""
        ids = {role: span.start for role, span in self.layout.items()}
        width = self.size + 4
        written = np.full((n, self.lines, width), ids["stop"], self.dtype)
        shown = np.zeros(written.shape, bool)
        shown[:, :, [0, -1]] = True
        known = _Known(n, self.lines, self.size)
        for line in range(self.lines):
            rule, used, formula, size = self._line(rng, known, line)
            known.add(line, formula, size, self.atoms)
            written[:, line, 0] = ids["rule"] + rule
            written[:, line, 1:3] = ids["numeral"] + used
            written[:, line, 3:-1] = formula
            shown[:, line, 1:3] = np.arange(2) < _REFERENCES[rule][:, None]
            shown[:, line, 3:-1] = np.arange(self.size) < size[:, None]
        separator = np.full((n, 1), ids["separator"], self.dtype)
        rows = np.concatenate([written.reshape(n, -1), separator], axis=1)
        return rows, np.concatenate([shown.reshape(n, -1), np.ones((n, 1), bool)], axis=1)

    def _line(
        self, rng: np.random.Generator, known: _Known, line: int
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int16], NDArray[np.intp]]:
        """The next line: rules (n,), lines used (n, 2), formulas (n, size), their sizes (n,)."""
        n = len(known.formulas)
        every = np.arange(n)
        rule = rng.integers(0, len(_REFERENCES), n)
        atoms = rng.integers(0, self.atoms, (n, 2)).astype(np.int16)
        connective = self.atoms + rng.integers(0, 3, n).astype(np.int16)
        kind = rng.integers(0, 3, n)
        # Two lines of each sample, each the one with the highest random score among the suitable lines.
        scores = rng.random((2, n, max(line, 1)), dtype=np.float32)
        main = known.main[:, : max(line, 1)]
        sizes = known.sizes[:, : max(line, 1)]
        implied = known.matches[:, : max(line, 1), : max(line, 1)]
        is_and = main == self.atoms + _AND
        grows = sizes + 2 <= self.size
        allowed = np.where((rule == _DETACH)[:, None], known.usable[:, : max(line, 1)], grows)
        allowed = np.where(((rule == _LEFT) | (rule == _RIGHT))[:, None], is_and, allowed)
        first = np.where(allowed, scores[0], -1).argmax(axis=1)
        fits = sizes + (sizes[every, first] + 1)[:, None] <= self.size
        partner = np.where((rule == _DETACH)[:, None], implied[every, first], fits)
        second = np.where(partner, scores[1], -1).argmax(axis=1)
        applies = allowed[every, first] & (line > 0)
        applies &= partner[every, second] | ((rule != _DETACH) & (rule != _JOIN))
        rule[~applies] = _PREMISE
        # A premise that starts from an earlier line, if one fits.
        from_line = (rule == _PREMISE) & (kind == 2) & grows.any(axis=1) & (line > 0)
        base = np.where(grows, scores[0], -1).argmax(axis=1)
        first = np.where(from_line, base, first)

        a, b = known.formulas[every, first], known.formulas[every, second]
        size_a, size_b = known.sizes[every, first], known.sizes[every, second]
        left = known.lefts[every, first]
        places = np.arange(self.size)
        # Each rule writes a shifted part of A, or a connective, A and a second formula.
        taken = (rule == _DETACH) | (rule == _LEFT) | (rule == _RIGHT)
        start = np.where(rule == _LEFT, 1, 1 + left)
        stretch = np.where(rule == _LEFT, left, size_a - 1 - left)
        part = np.take_along_axis(a, np.minimum(places + start[:, None], self.size - 1), axis=1)

        sign = np.where(rule == _JOIN, self.atoms + _AND, self.atoms + _OR)
        sign = np.where(rule == _PREMISE, np.where(from_line, self.atoms + _IMPLIES, connective), sign).astype(np.int16)
        plain = (rule == _PREMISE) & ~from_line
        body = np.where(plain[:, None], atoms[:, :1], a)
        body_size = np.where(plain, 1, size_a)
        tail_size = np.where(rule == _JOIN, size_b, 1)
        tail = np.where((rule == _JOIN)[:, None], b, atoms[:, 1:])
        shifted = np.take_along_axis(tail, np.clip(places - 1 - body_size[:, None], 0, self.size - 1), axis=1)
        whole = np.where(places <= body_size[:, None], np.roll(body, 1, axis=1), shifted)
        whole[:, 0] = sign
        formula = np.where(taken[:, None], part, whole)
        size = np.where(taken, stretch, 1 + body_size + tail_size)
        single = plain & (kind != 1)
        formula[single, 0] = atoms[single, 0]
        size[single] = 1
        formula[places >= size[:, None]] = 0
        return rule, np.stack([first, second], axis=1), formula, size


class _Known:
    """The lines of n derivations so far."""

    def __init__(self, n: int, lines: int, size: int) -> None:
        self.formulas = np.zeros((n, lines, size), np.int16)
        self.sizes = np.zeros((n, lines), np.intp)
        self.lefts = np.zeros((n, lines), np.intp)  # sizes of the first arguments
        self.main = np.full((n, lines), -1, np.int16)
        self.matches = np.zeros((n, lines, lines), bool)  # whether line i is an implication from line j
        self.usable = np.zeros((n, lines), bool)  # whether line i is an implication from any line
        # Formulas and antecedents packed four tokens per word, for fast comparison.
        self._words = np.zeros((-(-size // 4), n, lines), np.int64)
        self._antecedents = np.full_like(self._words, -1)

    def add(self, line: int, formula: NDArray[np.int16], size: NDArray[np.intp], atoms: int) -> None:
        """Add a line. formula (n, size), size (n,)."""
        self.formulas[:, line], self.sizes[:, line] = formula, size
        self.main[:, line] = formula[:, 0]
        # The first argument ends at the first position with one atom more than connectives.
        balance = np.cumsum(np.where(formula[:, 1:] >= atoms, np.int16(1), np.int16(-1)), axis=1, dtype=np.int16)
        left = np.where(formula[:, 0] >= atoms, (balance == -1).argmax(axis=1) + 1, 0)
        self.lefts[:, line] = left
        implies = formula[:, 0] == atoms + _IMPLIES
        antecedent = np.zeros_like(formula)
        antecedent[:, :-1] = np.where(np.arange(formula.shape[1] - 1) < left[:, None], formula[:, 1:], 0)
        antecedent[~implies] = -1
        # Sizes need no comparison, because no formula is a prefix of another (padding has the id of an atom).
        self._words[:, :, line] = _words(formula)
        self._antecedents[:, :, line] = _words(antecedent)
        from_it = _equal(self._antecedents, self._words, line)
        of_it = _equal(self._words, self._antecedents, line)
        self.matches[:, :line, line] = from_it
        self.matches[:, line, :line] = of_it
        self.usable[:, :line] |= from_it
        self.usable[:, line] = of_it.any(axis=1)


def _equal(kept: NDArray[np.int64], new: NDArray[np.int64], line: int) -> NDArray[np.bool_]:
    """Which earlier entries of `kept` equal the entry of this line in `new`. (words, n, lines) each -> (n, line)."""
    equal = np.ones((kept.shape[1], line), bool)
    for each, word in zip(kept, new, strict=True):
        equal &= each[:, :line] == word[:, line, None]
    return equal


def _words(tokens: NDArray[np.int16]) -> NDArray[np.int64]:
    """Pack four tokens per word. (n, size) -> (words, n)."""
    padded = np.zeros((len(tokens), -(-tokens.shape[1] // 4) * 4), np.int16)
    padded[:, : tokens.shape[1]] = tokens
    return padded.view(np.int64).T
