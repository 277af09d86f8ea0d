"""Statistics of token sequences: compressed size, entropies, repetition, vocabulary.

The same function measures samples of a task and rows of a corpus, so that they can be compared.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proctool.errors import OptionError
from proctool.procedural.registry import Task
from proctool.procedural.samples import Samples

BIAS = 0.1
"""Largest estimated bias, in bits, of a reliable entropy."""
LONGEST = 5
"""The longest counted n-gram."""
TOKENS = 1 << 20
"""Approximate number of tokens to measure by default."""
_FARTHEST = 12  # the last interval of copy distances starts above 2^11


@dataclass(frozen=True)
class Statistics:
    """Statistics of a set of sequences of equal length."""

    sequences: int
    length: int
    """Tokens in a sequence."""
    vocab_size: int
    used: int
    """Number of different tokens."""
    gzip_ratio: float
    """Size of the tokens compressed by gzip (level 9), with 1, 2 or 4 bytes per token, as a share of their size."""
    entropies: tuple[float, ...]
    """Entropy of a token in bits given the 0, 1, ... 4 tokens before it, estimated from counts in these sequences."""
    biases: tuple[float, ...]
    """Bias of each entropy (how much too low, in bits), by the first-order estimate of Miller and Madow. Each value is
    the largest up to this order, because the estimate decreases again if contexts appear only once."""
    determined: float | None
    """Share of tokens that the tokens before determine, if the task knows it."""
    determined_by_ngrams: float
    """A lower bound of that share from n-grams: tokens whose 4 previous tokens appear at least twice, always with the
    same next token. A finite sample can exceed the true bound by chance."""
    copies: tuple[float, ...]
    """Share of tokens by the distance to the previous equal token of the sequence: 1, 2, 3-4, ... (`intervals`)."""
    new: float
    """Share of tokens that appear for the first time in their sequence."""

    def intervals(self) -> list[str]:
        """The distances of `copies` as text."""
        edges = ["1", "2", *(f"{2 ** (power - 1) + 1}-{2**power}" for power in range(2, _FARTHEST))]
        return [*edges, f"over {2 ** (_FARTHEST - 1)}"][: len(self.copies)]

    def lines(self) -> Iterator[tuple[str, str]]:
        """Each statistic with its name, as text."""
        yield "tokens", f"{self.sequences * self.length} in {self.sequences} sequences of {self.length}"
        yield "vocabulary used", f"{self.used} of {self.vocab_size} ({self.used / self.vocab_size:.1%})"
        yield "gzip ratio", f"{self.gzip_ratio:.3f}"
        for order, (bits, bias) in enumerate(zip(self.entropies, self.biases, strict=True), 1):
            doubt = "" if bias <= BIAS else f" (too few tokens: too low by {bias:.2f} or more)"
            yield f"{order}-gram entropy", f"{bits:.3f} bits a token{doubt}"
        if self.determined is not None:
            yield "determined by the past", f"{self.determined:.1%}"
        yield "determined by 5-grams (lower bound)", f"{self.determined_by_ngrams:.1%}"
        yield "new in its sequence", f"{self.new:.1%}"
        for interval, share in zip(self.intervals(), self.copies, strict=True):
            yield f"last seen {interval} before", f"{share:.1%}"

    def plain(self) -> dict[str, Any]:
        """The statistics by name, JSON-ready."""
        found = dataclasses.asdict(self)
        found |= {"entropies": list(self.entropies), "biases": list(self.biases)}
        found["copies"] = dict(zip(self.intervals(), self.copies, strict=True))
        return found


def of_task(task: Task, *, samples: int | None = None, seed: int = 0, split: str = "train") -> Statistics:
    """The statistics of the first samples of a task's stream (default: about a million tokens).

    Raises OptionError for fewer than 1.
    """
    count = max(1, TOKENS // task.length) if samples is None else samples
    if count < 1:
        raise OptionError(f"samples = {count}: must be at least 1")
    drawn = task.stream(seed, split).read(0, count)
    return measure(drawn, task.vocab_size, determined=task.determined(drawn))


def measure(samples: Samples, vocab_size: int, *, determined: NDArray[np.bool_] | None = None) -> Statistics:
    """The statistics of sequences (n, length) over a vocabulary.

    `determined` marks the tokens that are determined by those before them in their sequence. (n, length).
    """
    tokens = samples.tokens
    distances, new = _copies(tokens)
    entropies, biases, by_ngrams = _ngrams(tokens)
    return Statistics(
        sequences=len(tokens),
        length=tokens.shape[1],
        vocab_size=vocab_size,
        used=len(np.unique(tokens)),
        gzip_ratio=gzip_ratio(tokens, vocab_size),
        entropies=entropies,
        biases=biases,
        determined=None if determined is None else float(determined.mean()),
        determined_by_ngrams=by_ngrams,
        copies=distances,
        new=new,
    )


def gzip_ratio(tokens: NDArray[np.unsignedinteger[Any]], vocab_size: int) -> float:
    """Gzip-compressed size of tokens in the smallest bytes for the vocabulary (1, 2 or 4), as a share of their size."""
    kind = "<u1" if vocab_size <= 1 << 8 else "<u2" if vocab_size <= 1 << 16 else "<u4"
    data = np.ascontiguousarray(tokens.astype(kind)).tobytes()
    return len(zlib.compress(data, 9, wbits=31)) / len(data)


def _ngrams(tokens: NDArray[np.unsignedinteger[Any]]) -> tuple[tuple[float, ...], tuple[float, ...], float]:
    """The conditional entropies of 1- to 5-grams, their biases, and the share of tokens determined by 5-grams."""
    words = tokens.astype(np.int64)
    grams = words = np.unique(words, return_inverse=True)[1].reshape(words.shape)
    kinds = int(words.max()) + 1
    entropies, alike = [_bits(np.bincount(words.ravel()), words.size)], 0
    biases = [(len(np.unique(words)) - 1) / (2 * math.log(2) * words.size)]
    for order in range(2, min(LONGEST, tokens.shape[1]) + 1):
        contexts = grams[:, :-1]
        seen = np.bincount(contexts.ravel())
        pairs = contexts * kinds + words[:, order - 1 :]
        found, inverse, counts = np.unique(pairs, return_inverse=True, return_counts=True)
        entropies.append(_bits(counts, pairs.size) - _bits(seen[seen > 0], pairs.size))
        bias = (len(found) - np.count_nonzero(seen)) / (2 * math.log(2) * pairs.size)
        biases.append(max(bias, biases[-1]))
        whole = seen[found // kinds]
        alike = int(counts[(counts == whole) & (whole > 1)].sum()) if order == LONGEST else 0
        grams = inverse.reshape(pairs.shape)
    return tuple(max(0.0, bits) for bits in entropies), tuple(biases), alike / tokens.size


def _bits(counts: NDArray[np.integer[Any]], total: int) -> float:
    """The entropy of the distribution with these counts."""
    shares = counts[counts > 0] / total
    return float(-(shares * np.log2(shares)).sum())


def _copies(tokens: NDArray[np.unsignedinteger[Any]]) -> tuple[tuple[float, ...], float]:
    """Shares of tokens by the distance to the previous equal token, and the share of tokens without one."""
    order = tokens.argsort(axis=1, kind="stable")
    ordered = np.take_along_axis(tokens, order, axis=1)
    again = ordered[:, 1:] == ordered[:, :-1]
    distances = np.diff(order, axis=1)[again]
    powers = np.minimum(np.ceil(np.log2(distances)).astype(np.int64), _FARTHEST)
    counts = np.bincount(powers, minlength=1)
    return tuple((counts / tokens.size).tolist()), 1 - len(distances) / tokens.size
