"""Mathematics questions from DeepMind's generator (Saxton et al. 2019, arXiv 1904.01557).

The package `mathematics-dataset` 1.0.1 is from 2019 and cannot be imported with current sympy and numpy. Some of its
questions also depend on the order of sets, which differs between processes. `modules` loads it with these lines
patched in memory; the installed files do not change.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from proctool.corpora.documents import TRAIN, VALIDATION, Document, Part
from proctool.errors import CorpusError

MAX_QUESTION, MAX_ANSWER = 160, 30
"""Longest question in characters; longer problems are drawn again, as in the package's generate.py."""

PER_PART = 20
"""Questions per module and level in a part: small, so that any budget has all of them in equal shares."""

LEVELS = ("train-easy", "train-medium", "train-hard")
EXTRAPOLATE = "extrapolate"
OWN_SPLITS = {VALIDATION: "interpolate", EXTRAPOLATE: EXTRAPOLATE}
"""The splits that are not for training, and their levels."""

_MOST_DRAWS = 50
"""Most problems drawn per question: in comparison__sort_more (extrapolate) one in 300 is short enough."""

# In the order of their imports.
_MENDS = {
    "mathematics_dataset.sample.number": (
        # sympy's gcd of two small integers took an eighth of the time.
        ("sympy.gcd(value, coprime_to) == 1", "math.gcd(value, coprime_to) == 1"),
    ),
    "mathematics_dataset.sample.polynomials": (
        ("from sympy.solvers.diophantine import", "from sympy.solvers.diophantine.diophantine import"),
        ("dtype=np.object)", "dtype=object)"),
        ("coeffs.itemset(index, value)", "coeffs[index] = value"),
        ("expanded_coefficients.itemset(power, coeffs)", "expanded_coefficients[power] = coeffs"),
        # The order of these sets depends on the process, but a seed must give the same questions everywhere.
        ("zip(indices, entropies)", "zip(sorted(indices), entropies)"),
    ),
    "mathematics_dataset.util.composition": (
        ("random.choice(list(allowed))", "random.choice(sorted(allowed))"),
        ("entities = set(context.child_entities)", "entities = dict.fromkeys(context.child_entities)"),
        ("entities.add(maybe_entity)", "entities[maybe_entity] = None"),
    ),
    "mathematics_dataset.modules.numbers": (
        # Python 3.12 no longer accepts floats here.
        (
            "randint(remainder_range_lower, remainder_range_upper)",
            "randint(int(remainder_range_lower), int(remainder_range_upper))",
        ),
    ),
}

Problem = Callable[[], Any]


@functools.cache
def modules() -> dict[str, dict[str, Problem]]:
    """The samplers by level (train-easy, train-medium, train-hard, interpolate, extrapolate) and module name.

    Raises CorpusError if the package is not installed.
    """
    for name, changes in _MENDS.items():
        _load_mended(name, changes)
    every = importlib.import_module("mathematics_dataset.modules.modules")
    spaces = importlib.import_module("mathematics_dataset.util.probability")
    spaces.SampleWithoutReplacementSpace.probability = _without_replacement
    made = {level: every.train(_within(third)) for third, level in enumerate(LEVELS)}
    made |= {"interpolate": every.test(), "extrapolate": every.test_extra()}
    return {level: dict(sorted(_flat(tree))) for level, tree in made.items()}


def _load_mended(name: str, changes: tuple[tuple[str, str], ...]) -> None:
    if name in sys.modules:
        return
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.loader is None:
        raise CorpusError(
            "corpus mathematics: generating questions needs DeepMind's package; pip install 'proctool[math]', or give "
            "the official files as mathematics:FOLDER"
        )
    source = spec.loader.get_source(name)  # type: ignore[attr-defined]
    for old, new in changes:
        source = source.replace(old, new)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        exec(compile(source, spec.origin or name, "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    parent, _, child = name.rpartition(".")
    setattr(sys.modules[parent], child, module)


def _without_replacement(space: Any, event: Any) -> Any:
    """The probability that drawing without replacement gives one of the event's sequences.

    The package computes it for each of up to 200,000 sequences, which took a third of the time. Here it is computed
    once for all sequences with the same weights.
    """
    numbers = {weight: number for number, weight in enumerate(set(space._weights.values()))}
    weights = list(numbers)
    kinds = {thing: numbers[weight] for thing, weight in space._weights.items()}
    sequences = (sequence for sequence in event.all_sequences() if len(set(sequence)) == len(sequence))
    patterns = Counter(
        tuple(kinds[thing] for thing in sequence) for sequence in sequences if kinds.keys() >= set(sequence)
    )
    total: Any = 0
    for pattern, count in patterns.items():
        probability: Any = 1
        removed: Any = 0
        for kind in pattern:
            probability *= weights[kind] / (1 - removed)
            removed += weights[kind]
        total += count * probability
    return total


def _within(third: int) -> Callable[[tuple[float, float]], tuple[float, float]]:
    """The part of an entropy range that belongs to a level: easy, medium and hard are thirds."""

    def narrowed(whole: tuple[float, float]) -> tuple[float, float]:
        width = whole[1] - whole[0]
        return whole[0] + third / 3 * width, whole[0] + (third + 1) / 3 * width

    return narrowed


def _flat(tree: dict[str, Any], above: str = "") -> Iterator[tuple[str, Problem]]:
    for name, found in tree.items():
        if isinstance(found, dict):
            yield from _flat(found, f"{above}{name}__")
        else:
            yield above + name, found


@contextlib.contextmanager
def _seeded(key: str) -> Iterator[None]:
    """Seed the three global generators that the package and sympy use, and restore them afterwards."""
    from sympy.core.random import rng as sympy_random

    digest = hashlib.sha256(key.encode()).digest()
    before = random.getstate(), np.random.get_state(), sympy_random.getstate()  # noqa: NPY002
    random.seed(digest)
    np.random.seed(np.frombuffer(digest, "<u4"))  # noqa: NPY002
    sympy_random.seed(digest)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        sympy_random.setstate(before[2])


def draw(level: str, module: str, number: int, count: int) -> list[tuple[str, str]]:
    """`count` questions with answers of a module, the same for the same `number` in every process.

    Returns fewer if nearly all problems are too long. Raises CorpusError for an unknown level or module.
    """
    try:
        sampler = modules()[level][module]
    except KeyError:
        raise CorpusError(f"mathematics: there is no module {module} at level {level}") from None
    drawn: list[tuple[str, str]] = []
    with _seeded(f"{level}/{module}/{number}"):
        for _ in range(_MOST_DRAWS * count):
            if len(drawn) == count:
                break
            problem = sampler()
            question, answer = str(problem.question), str(problem.answer)
            if len(question) <= MAX_QUESTION and len(answer) <= MAX_ANSWER:
                drawn.append((question, answer))
    return drawn


@dataclass(frozen=True)
class QuestionsPart(Part):
    """A few questions of every module at every level of a split."""

    number: int
    split: str | None = TRAIN

    @property
    def label(self) -> str:
        """The split and the number."""
        return f"mathematics {self.split} {self.number}"

    @property
    def identity(self) -> dict[str, Any]:
        """The split, the number, and the versions of everything that computes the questions."""
        from importlib import metadata

        versions = {name: metadata.version(name) for name in ("mathematics-dataset", "sympy", "numpy")}
        return {"questions": self.number, "split": self.split, "each": PER_PART, "made_by": versions}

    @property
    def size(self) -> int | None:
        """About 60 bytes per question."""
        modules = {TRAIN: 3 * 56, VALIDATION: 56, EXTRAPOLATE: 15}[str(self.split)]
        return 60 * PER_PART * modules

    @property
    def work(self) -> int | None:
        """sympy takes about 6 ms per question (25 ms for large ones), as long as tokenising 18 kB."""
        return (1200 if self.split == EXTRAPOLATE else 300) * (self.size or 0)

    def documents(self) -> Iterator[Document]:
        """The questions, level by level and module by module."""
        levels = LEVELS if self.split == TRAIN else (OWN_SPLITS[str(self.split)],)
        for level in levels:
            for module in modules()[level]:
                for question, answer in draw(level, module, self.number, PER_PART):
                    yield of_pair(question, answer)


def of_pair(question: str, answer: str) -> Document:
    """A document with a question, a newline, and the answer, which is the target."""
    return Document(f"{question}\n".encode(), f"{answer}".encode())
