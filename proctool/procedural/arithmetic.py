"""Arithmetic, digit by digit: addition, reversed-addition, multiplication; and sums modulo a number."""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from proctool.procedural.draws import Tokens, packed
from proctool.procedural.registry import Task, require, require_fits, task
from proctool.procedural.samples import Samples

_OPERATOR, _EQUALS, _PAD, _ANSWER, _STOP = 10, 11, 12, 20, 30


@dataclass(frozen=True)
class Arithmetic(Task):
    """`a OP b = answer STOP PAD...`, the loss on the answer's digits and the stop.

    Both numbers have exactly `digits` digits, the first not 0. Ids as published: digits 0..9 in the question, the
    operator 10, = 11, padding 12, digits 20..29 in the answer, the stop 30. The official scoring of the published code
    counts the answer without its first digit, the stop, and the padding after the stop.
    """

    digits: int = 5
    """Digits of each number."""
    scoring: Literal["answer", "official"] = "answer"
    """answer: score the answer and its stop; official: as published."""

    presets: ClassVar = {"small": {"digits": 3}}
    targets_determined: ClassVar = True
    size_option: ClassVar = "digits"
    least_significant_first: ClassVar = False

    def __post_init__(self) -> None:
        require(self.digits >= 1, self, "digits", "must be at least 1")
        require_fits(self, length="digits", vocabulary="digits")

    @property
    @abstractmethod
    def answer_digits(self) -> int:
        """Digits of the longest answer."""

    @property
    def length(self) -> int:
        """Two numbers, the operator, the equals sign, the longest answer and the stop."""
        return 2 * self.digits + 2 + self.answer_digits + 1

    @property
    def layout(self) -> dict[str, range]:
        """The published ids, including unused ones."""
        return {
            "digit": range(10),
            "operator": range(_OPERATOR, _OPERATOR + 1),
            "equals": range(_EQUALS, _EQUALS + 1),
            "pad": range(_PAD, _PAD + 1),
            "unused": range(_PAD + 1, _ANSWER),
            "answer": range(_ANSWER, _ANSWER + 10),
            "stop": range(_STOP, _STOP + 1),
        }

    @property
    def min_entropy_bits(self) -> float:
        """The entropy of both numbers, which are uniform."""
        return 2 * math.log2(9 * 10 ** (self.digits - 1))

    @abstractmethod
    def answer(self, a: Tokens, b: Tokens) -> Tokens:
        """The result's digits. Least significant first: (digits, n) each -> (answer_digits, n)."""

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw n samples."""
        numbers = rng.integers(0, 10, (2, self.digits, n), dtype=self.dtype)
        numbers[:, -1] = rng.integers(1, 10, (2, n), dtype=self.dtype)
        a, b = numbers
        answer = self.answer(a, b)
        if not self.least_significant_first:
            a, b, answer = a[::-1], b[::-1], answer[::-1]
        question = 2 * self.digits + 2
        tokens = np.empty((n, self.length), self.dtype)
        tokens[:, : self.digits] = a.T
        tokens[:, self.digits] = _OPERATOR
        tokens[:, self.digits + 1 : question - 1] = b.T
        tokens[:, question - 1] = _EQUALS
        written = np.empty((n, self.answer_digits + 1), self.dtype)
        written[:, :-1] = answer.T + self.dtype(_ANSWER)
        written[:, -1] = _STOP
        # Only the most significant digit can be a leading zero.
        top = self.answer_digits - 1 if self.least_significant_first else 0
        kept = np.ones(written.shape, bool)
        kept[:, top] = written[:, top] != _ANSWER
        targets = np.zeros(tokens.shape, bool)
        tokens[:, question:], targets[:, question:] = packed(written, kept, _PAD)
        if self.scoring == "official":
            targets[:, 1:] = tokens[:, :-1] >= _ANSWER
        return Samples(tokens, targets)


def _added(a: Tokens, b: Tokens) -> Tokens:
    """The digits of a + b, least significant first. (digits, n) each -> (digits + 1, n)."""
    answer = np.empty((len(a) + 1, a.shape[1]), a.dtype)
    answer[:-1] = a
    answer[:-1] += b
    answer[-1] = 0
    for digit, after in itertools.pairwise(answer):
        carry = digit > 9
        digit -= carry * digit.dtype.type(10)
        after += carry
    return answer


@task("addition")
@dataclass(frozen=True)
class Addition(Arithmetic):
    """Addition, most significant digit first.

        tokens   4 7 + 8 5 = 1 3 2 !      (n, 3 * digits + 4)
        targets  . . . . . . x x x x

    Source: the diagnostics of Procedural Pretraining (arXiv 2601.21725); published with 5 digits.
    """

    @property
    def answer_digits(self) -> int:
        """One digit more than the numbers."""
        return self.digits + 1

    def answer(self, a: Tokens, b: Tokens) -> Tokens:
        """The sum."""
        return _added(a, b)


@task("reversed-addition")
@dataclass(frozen=True)
class ReversedAddition(Addition):
    """Addition, least significant digit first.

        tokens   7 4 + 5 8 = 2 3 1 !      (n, 3 * digits + 4)
        targets  . . . . . . x x x x

    Source: the diagnostics of Procedural Pretraining (arXiv 2601.21725); published with 10 digits.
    """

    digits: int = 10
    """Digits of each number."""

    least_significant_first: ClassVar = True


@task("multiplication")
@dataclass(frozen=True)
class Multiplication(Arithmetic):
    """Multiplication, most significant digit first.

        tokens   4 7 * 8 5 = 3 9 9 5 !      (n, 4 * digits + 3)
        targets  . . . . . . x x x x x

    Source: the diagnostics of Procedural Pretraining (arXiv 2601.21725); published with 5 digits.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.digits <= 1000, self, "digits", "must be at most 1000")

    @property
    def answer_digits(self) -> int:
        """The digits of both numbers together."""
        return 2 * self.digits

    def answer(self, a: Tokens, b: Tokens) -> Tokens:
        """The product."""
        columns = np.zeros((2 * self.digits, a.shape[1]), np.uint32)
        for place, digit in enumerate(b.astype(np.uint32)):
            columns[place : place + self.digits] += a * digit
        for column, after in itertools.pairwise(columns):
            carry = column // 10
            column -= carry * 10
            after += carry
        return columns.astype(a.dtype)


@task("modular")
@dataclass(frozen=True)
class Modular(Task):
    """A sum, difference or product of numbers modulo a number.

        tokens   57 + 83 = 43      (n, 2 * terms + 1), here modulo 97
        targets  .  . .  . x

    Terms are drawn uniformly from 0..modulus-1 and taken from left to right.

    Source: the modular arithmetic of grokking (Power et al., arXiv 2201.02177), with any number of terms.
    """

    modulus: int = 97
    """Numbers are 0..modulus-1, each a token."""
    terms: int = 2
    """Numbers before the equals sign."""
    operation: Literal["add", "subtract", "multiply"] = "add"
    """What joins the terms."""

    presets: ClassVar = {"small": {"modulus": 23}}
    targets_determined: ClassVar = True
    size_option: ClassVar = "terms"

    def __post_init__(self) -> None:
        require(self.modulus >= 2, self, "modulus", "must be at least 2")
        require(self.terms >= 2, self, "terms", "must be at least 2")
        require_fits(self, length="terms", vocabulary="modulus")

    @property
    def length(self) -> int:
        """The terms with an operator after each but the last, the equals sign, and the result."""
        return 2 * self.terms + 1

    @property
    def layout(self) -> dict[str, range]:
        """The numbers, the operator, the equals sign, padding."""
        end = self.modulus
        return {
            "number": range(end),
            "operator": range(end, end + 1),
            "equals": range(end + 1, end + 2),
            "pad": range(end + 2, end + 3),
        }

    @property
    def min_entropy_bits(self) -> float:
        """The entropy of the terms, which are uniform."""
        return self.terms * math.log2(self.modulus)

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw n samples."""
        terms = rng.integers(0, self.modulus, (n, self.terms), dtype=self.dtype)
        result = terms[:, 0].astype(np.int64)
        for term in terms.T[1:]:
            if self.operation == "multiply":
                result *= term
            elif self.operation == "add":
                result += term
            else:
                result -= term
            result %= self.modulus
        tokens = np.empty((n, self.length), self.dtype)
        tokens[:, 0:-1:2] = terms
        tokens[:, 1:-2:2] = self.modulus
        tokens[:, -2] = self.modulus + 1
        tokens[:, -1] = result
        targets = np.zeros(tokens.shape, bool)
        targets[:, -1] = True
        return Samples(tokens, targets)
