"""LIME's three tasks: find a rule, a case or a result from the other two."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from proctool.procedural.draws import Mask, packed, shuffled, shuffled_rows
from proctool.procedural.mqar import distinct
from proctool.procedural.registry import Task, require, require_fits, task
from proctool.procedural.samples import Samples

_UPPER, _LOWER, _MATH = 24, 24, 20
_LETTERS = range(3, 6)  # possible numbers of upper-case letters in a rule
_REPLACED = range(2, 9)  # possible numbers of symbols that replace a letter
_FEWEST = 5  # fewest mathematical symbols in a rule

Part = tuple[NDArray[np.unsignedinteger[Any]], Mask]
"""Tokens and the mask of used tokens: (n, width) each."""


@dataclass(frozen=True)
class Lime(Task):
    """`U letters L letters M symbols / given / given / wanted`."""

    vocab: int = 1000
    """Number of symbols that letters and signs are drawn from."""
    most: int = 19
    """Maximum number of mathematical symbols in a rule."""

    presets: ClassVar = {"small": {"vocab": 80, "most": 6}}
    size_option: ClassVar = "most"

    def __post_init__(self) -> None:
        needed = _UPPER + _LOWER + _MATH
        require(self.vocab >= needed, self, "vocab", f"must be at least {needed}")
        require(self.most >= 1, self, "most", "must be at least 1")
        require_fits(self, length="most", vocabulary="vocab")

    @property
    def length(self) -> int:
        """The length of the longest sample."""
        return self._alphabet + sum(self._longest.values()) + 2

    @property
    def _alphabet(self) -> int:
        """The maximum number of tokens that list letters and signs, with the space after them."""
        return 3 + _LETTERS[-1] + _LOWER + _MATH + 1

    @property
    def _longest(self) -> dict[str, int]:
        """The maximum number of tokens of each of the three parts."""
        letters = _LETTERS[-1]
        return {
            "rule": 2 * letters + self.most,
            "case": letters * (_REPLACED[-1] + 5) - 1,
            "result": 2 * letters * _REPLACED[-1] + self.most,
        }

    @property
    def layout(self) -> dict[str, range]:
        """The symbols, three names of alphabets, a space, the signs `: [ ] ,` of a case, a separator, padding."""
        parts, end = {"symbol": range(self.vocab)}, self.vocab
        sizes = {"alphabet": 3, "space": 1, "colon": 1, "bracket": 2, "comma": 1, "separator": 1, "pad": 1}
        for role, size in sizes.items():
            parts[role] = range(end, end + size)
            end += size
        return parts

    @property
    def min_entropy_bits(self) -> float:
        """Which letters and signs a sample lists in order."""
        return sum(math.log2(self.vocab - taken) for taken in range(_LOWER + _MATH))

    @staticmethod
    @abstractmethod
    def _order() -> tuple[str, str, str]:
        """The three parts in their order; the last is the target."""

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw n samples."""
        written = self._draw(rng, n)
        ids = {role: span.start for role, span in self.layout.items()}
        first, second, wanted = (written[name] for name in self._order())
        parts = [
            written["alphabet"],
            first,
            self._single(n, ids["space"]),
            second,
            self._single(n, ids["separator"]),
            wanted,
        ]
        rows = np.concatenate([tokens for tokens, _ in parts], axis=1)
        kept = np.concatenate([mask for _, mask in parts], axis=1)
        tokens, front = packed(rows, kept, ids["pad"])
        answer = np.count_nonzero(wanted[1], axis=1)
        before = np.count_nonzero(kept, axis=1) - answer
        targets = front & (np.arange(tokens.shape[1]) >= before[:, None])
        return Samples(np.ascontiguousarray(tokens[:, : self.length]), np.ascontiguousarray(targets[:, : self.length]))

    def _single(self, n: int, token: int) -> Part:
        return np.full((n, 1), token, self.dtype), np.ones((n, 1), bool)

    def _draw(self, rng: np.random.Generator, n: int) -> dict[str, Part]:
        """The alphabet, the rule, the case and the result."""
        dtype, ids = self.dtype, {role: span.start for role, span in self.layout.items()}
        count = _UPPER + _LOWER + _MATH
        few = self.vocab <= 4 * count
        drawn = shuffled(rng, n, self.vocab)[:, :count] if few else distinct(rng, n, count, self.vocab)
        symbols = drawn.astype(dtype)
        upper, lower_math, math_ = symbols[:, :_UPPER], symbols[:, _UPPER:], symbols[:, _UPPER + _LOWER :]
        most = _LETTERS[-1]

        # The rule: twice as many letters as there are different ones, and the signs, in random order.
        letters = rng.integers(_LETTERS[0], _LETTERS[-1] + 1, n)[:, None]
        fewest = min(_FEWEST, self.most)
        signs = rng.integers(fewest, self.most + 1, n)[:, None]
        which = (rng.random((n, 2 * most), dtype=np.float32) * letters).astype(np.intp)
        places = np.concatenate(
            [which, rng.integers(0, _MATH, (n, self.most)) + most], axis=1
        )  # letters 0..4, signs from 5
        counts = np.concatenate(
            [np.arange(2 * most) < 2 * letters, np.arange(self.most) < signs],
            axis=1,
        )
        present = np.zeros((n, most), bool)
        for index in range(most):
            present[:, index] = ((which == index) & counts[:, : 2 * most]).any(axis=1)
        nothing = most + _MATH
        rule = np.where(counts, places, nothing)
        rule = shuffled_rows(rng, rule, nothing + 1, last=~counts).astype(np.intp)
        held = rule < nothing
        named = np.concatenate([upper[:, :most], math_], axis=1)
        rule_tokens = np.take_along_axis(named, np.minimum(rule, nothing - 1), axis=1)

        # The case: the symbols that replace each letter.
        sizes = rng.integers(_REPLACED[0], _REPLACED[-1] + 1, (n, most))
        longest = _REPLACED[-1]
        chosen = rng.integers(0, _LOWER + _MATH, (n, most * longest))
        replaced = np.take_along_axis(lower_math, chosen, axis=1).reshape(n, most, longest)
        inside = np.arange(longest) < sizes[:, :, None]

        # The result: the symbols of each letter, and the signs unchanged.
        is_letter = rule < most
        letter = np.where(is_letter, rule, 0)
        rows = np.arange(n)[:, None]
        expanded, shown = replaced[rows, letter], inside[rows, letter] & is_letter[:, :, None]
        expanded[..., 0] = np.where(is_letter, expanded[..., 0], rule_tokens)
        shown[..., 0] = held

        case = np.empty((n, most, longest + 5), dtype)
        case[:, :, 0] = upper[:, :most]
        case[:, :, 1] = ids["colon"]
        case[:, :, 2] = ids["bracket"]
        case[:, :, 3:-2] = replaced
        case[:, :, -2] = ids["bracket"] + 1
        case[:, :, -1] = ids["comma"]
        case_mask = np.broadcast_to(present[:, :, None], case.shape).copy()
        case_mask[:, :, 3:-2] &= inside
        ending = most - 1 - present[:, ::-1].argmax(axis=1)
        case_mask[np.arange(n), ending, -1] = False  # no comma after the last

        names = [np.full((n, 1), ids["alphabet"] + index, dtype) for index in range(3)]
        always = np.ones((n, 1), bool)
        alphabet = np.concatenate(
            [
                names[0],
                upper[:, :most],
                names[1],
                lower_math[:, :_LOWER],
                names[2],
                math_,
                self._single(n, ids["space"])[0],
            ],
            axis=1,
        )
        alphabet_mask = np.concatenate([always, present, np.ones((n, 2 + _LOWER + _MATH + 1), bool)], axis=1)
        return {
            "alphabet": (alphabet, alphabet_mask),
            "rule": (rule_tokens, held),
            "case": (case.reshape(n, -1), case_mask.reshape(n, -1)),
            "result": (expanded.reshape(n, -1), shown.reshape(n, -1)),
        }


@task("induct")
@dataclass(frozen=True)
class Induct(Lime):
    """The rule, from a result and the case.

        tokens   U A B L .. M .. / p q + r / A : [ p q ] , B : [ r ] | A + B _      (n, length)
        targets  . . . . .  . .  . . . . . . . . . . . . . . . . . . . x x x .

    A sample draws 68 of the vocabulary's symbols anew: 24 upper-case and 24 lower-case letters and 20 mathematical
    symbols. A rule has 3, 4 or 5 letters' worth of places, two each, filled with those upper-case letters uniformly,
    and 5 to `most` mathematical symbols drawn uniformly, in random order. The case replaces each letter that is there
    by 2 to 8 symbols, lower-case or mathematical. The result is the rewritten rule. All tokens before the separator
    are the prompt.

    Source: LIME (Wu et al., arXiv 2101.06223), section 3, with the numbers of its published code (vocab 1000). There
    the prompt is an encoder's input and the answer a decoder's output.
    """

    @staticmethod
    def _order() -> tuple[str, str, str]:
        return "result", "case", "rule"


@task("deduct")
@dataclass(frozen=True)
class Deduct(Lime):
    """The result, from a rule and a case.

        tokens   U A B L .. M .. / A + B / A : [ p q ] , B : [ r ] | p q + r _      (n, length)
        targets  . . . . .  . .  . . . . . . . . . . . . . . . . . . x x x x .

    Rules, cases and results are drawn as `induct` draws them.

    Source: LIME (Wu et al., arXiv 2101.06223), section 3, with the numbers of its published code.
    """

    targets_determined: ClassVar = True

    @staticmethod
    def _order() -> tuple[str, str, str]:
        return "rule", "case", "result"


@task("abduct")
@dataclass(frozen=True)
class Abduct(Lime):
    """The case, from a rule and a result.

        tokens   U A B L .. M .. / A + B / p q + r | A : [ p q ] , B : [ r ] _      (n, length)
        targets  . . . . .  . .  . . . . . . . . . . x x x x x x x x x x x x .

    Rules, cases and results are drawn as `induct` draws them. Another case may also fit; the target is the
    one that made the result, as in the paper.

    Source: LIME (Wu et al., arXiv 2101.06223), section 3, with the numbers of its published code.
    """

    @staticmethod
    def _order() -> tuple[str, str, str]:
        return "rule", "result", "case"
