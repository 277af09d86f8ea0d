"""Samples for measuring attention heads, such as repeated random tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from proctool.models.build import context_of, require_context
from proctool.procedural.samples import Samples

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_USUAL_REPEATS = 4  # Olsson et al.


@dataclass(frozen=True)
class Probe:
    """Samples for measuring heads; their targets also give a loss and an accuracy."""

    samples: Samples
    label: str
    length: int | None = None
    """Length of the repeated random sequence in tokens; None for other samples."""
    repeats: int | None = None

    def rows(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.bool_]]]:
        """Tokens and targets of each sample, (L,) each, cut after its last target."""
        for tokens, targets in zip(self.samples.tokens, self.samples.targets, strict=True):
            stop = int(targets.nonzero()[0].max(initial=0)) + 1
            yield tokens[:stop].astype(np.int64), targets[:stop]


def random_probe(
    config: PretrainedConfig,
    name: str,
    *,
    length: int = 25,
    repeats: int | None = None,
    samples: int = 32,
    seed: int = 0,
) -> Probe:
    """Random token sequences, repeated; targets begin with the second time.

    `repeats` defaults to 4, or to as many as fit the context, but at least 2. Raises ModelError if samples exceed
    the context; `name` names the model in errors.
    """
    limit = context_of(config)
    usual = _USUAL_REPEATS if limit is None else max(2, min(_USUAL_REPEATS, limit // length))
    repeats = repeats or usual
    require_context(
        config, length * repeats, f"{name}: a sample ({repeats} times {length})", "lower --length or --repeats"
    )
    tokens = repeated(config.vocab_size, length, repeats, samples, seed)
    targets = np.broadcast_to(np.arange(length * repeats) >= length, tokens.shape)
    return Probe(
        Samples(tokens.astype(np.uint32), targets), f"{length} random tokens, {repeats} times", length, repeats
    )


def repeated(vocab_size: int, length: int, repeats: int, samples: int, seed: int) -> NDArray[np.int64]:
    """Repeated random tokens, (samples, length * repeats), distinct within a sample if the vocabulary allows."""
    draw = np.random.default_rng(seed)
    once = [draw.choice(vocab_size, length, replace=length > vocab_size) for _ in range(samples)]
    return np.tile(np.array(once, np.int64), (1, repeats))
