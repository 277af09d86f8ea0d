"""Noise in a corpus: random tokens in the place of some of its tokens, and rows of random tokens."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proctool.corpora.order import mixed
from proctool.procedural.draws import after_the_first
from proctool.procedural.samples import Samples


@dataclass(frozen=True)
class TokenNoise:
    """Replaces a share of the tokens by uniform draws from the vocabulary.

    Which tokens, and by what, depends on the seed, the row and the place in it alone: the same row has the same noise
    in each epoch, whatever batch it is in. A random draw may be the token that was there. Targets stay: the model is
    trained to predict the noise too.
    """

    share: float
    vocab_size: int
    seed: int

    def applied(self, samples: Samples, rows: NDArray[np.int64]) -> Samples:
        """The samples with noise; `rows` are their rows in the corpus. (n, context)"""
        which, what = _words("noise", self.seed, rows, samples.tokens.shape[1], 2)
        is_noise = which < np.uint64(round(self.share * 2**32))
        drawn = _tokens(what, self.vocab_size).astype(samples.tokens.dtype)
        return Samples(np.where(is_noise, drawn, samples.tokens), samples.targets, samples.procedural)


class RandomRows:
    """Rows of uniform draws from the vocabulary, without end. Every token but the first of a row is a target.

    Row i is the same whatever is read with it. Source: the noise in the code of arXiv 2605.10129.
    """

    def __init__(self, vocab_size: int, context: int, seed: int) -> None:
        self.vocab_size, self.length, self.seed = vocab_size, context, seed

    def read(self, start: int, stop: int) -> Samples:
        """Rows start..stop - 1."""
        (words,) = _words("noise-rows", self.seed, np.arange(start, stop), self.length, 1)
        return Samples(_tokens(words, self.vocab_size), after_the_first(stop - start, self.length))

    def metadata(self) -> dict[str, Any]:
        """The seed."""
        return {"seed": self.seed}


def _words(kind: str, seed: int, rows: NDArray[np.int64], context: int, count: int) -> list[NDArray[np.uint64]]:
    """`count` independent words of 32 random bits for each place of each row: (n, context) each."""
    place = rows.astype(np.uint64)[:, None] * np.uint64(context) + np.arange(context, dtype=np.uint64)
    keys = np.frombuffer(hashlib.sha256(f"{kind}/{seed}".encode()).digest(), "<u8").astype(np.uint64)[:count]
    # Two mixes of the key and the place: a single one keeps traces of neighbouring places.
    return [mixed(mixed(place ^ key) ^ key) >> np.uint64(32) for key in keys]


def _tokens(words: NDArray[np.uint64], vocab_size: int) -> NDArray[np.uint32]:
    """Words as uniform draws from the vocabulary."""
    return (words * np.uint64(vocab_size) >> np.uint64(32)).astype(np.uint32)
