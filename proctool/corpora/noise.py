"""Noise in a corpus: random tokens in the place of some of its tokens."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proctool.corpora.order import mixed
from proctool.procedural.samples import Samples


@dataclass(frozen=True)
class TokenNoise:
    """Replaces a share of the tokens by uniform draws from the vocabulary.

    Which tokens, and by what, depends on the seed, the row and the place in it alone: the same row has the same noise
    in each epoch, whatever batch it is in. A random draw may be the token that was there. Targets stay: the model is
    trained to predict the noise too. Source: the corpora with noise of arXiv 2605.10129, whose code adds whole rows of
    uniform tokens instead.
    """

    share: float
    vocab_size: int
    seed: int

    def applied(self, samples: Samples, rows: NDArray[np.int64]) -> Samples:
        """The samples with noise; `rows` are their rows in the corpus. (n, context)"""
        context = samples.tokens.shape[1]
        place = rows.astype(np.uint64)[:, None] * np.uint64(context) + np.arange(context, dtype=np.uint64)
        keys = np.frombuffer(hashlib.sha256(f"noise/{self.seed}".encode()).digest()[:16], "<u8").astype(np.uint64)
        # Two mixes of the key and the place: a single one keeps traces of neighbouring places.
        which, what = (mixed(mixed(place ^ key) ^ key) >> np.uint64(32) for key in keys)
        is_noise = which < np.uint64(round(self.share * 2**32))
        drawn: NDArray[Any] = (what * np.uint64(self.vocab_size) >> np.uint64(32)).astype(samples.tokens.dtype)
        return Samples(np.where(is_noise, drawn, samples.tokens), samples.targets, samples.procedural)
