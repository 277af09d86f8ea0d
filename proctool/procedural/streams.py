"""Seeded, index-addressed streams of samples.

Sample i of a stream is the same bits for any batch size, order, worker or resume point: samples are drawn in blocks of
fixed size, each from a generator keyed by (seed, split, task name, block). Seeds are part of this key and never added
to something, so neighbouring seeds share nothing.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from proctool import config
from proctool.errors import OptionError
from proctool.procedural.registry import Task
from proctool.procedural.samples import Samples

BLOCK = 1024
"""Samples drawn at once. Part of a stream's identity: changing it changes every stream."""

SPLITS = ("train", "validation", "test")

# With fewer bits, two splits of a billion samples probably share a sequence (birthday bound).
_APART_BELOW_BITS = 64
# The content classes, of 16, of each split, if splits are separated by content.
_CLASSES = {"train": range(12), "validation": range(12, 14), "test": range(14, 16)}
_MOST_ROUNDS = 200


@dataclass(frozen=True)
class Stream:
    """The endless stream of a task's samples for one seed and split.

    Raises OptionError for an unknown split, a negative seed, or (on reading) options that leave a split empty.
    """

    task: Task
    seed: int = 0
    split: str = "train"

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise OptionError(f'unknown split "{self.split}"{config.suggestion(self.split, SPLITS)}')
        if not isinstance(self.seed, int | np.integer) or self.seed < 0:
            raise OptionError(f"seed = {self.seed!r}: must be a whole number of at least 0")

    def read(self, start: int, stop: int) -> Samples:
        """Samples start..stop - 1. Raises IndexError unless 0 <= start <= stop."""
        if not 0 <= start <= stop:
            raise IndexError(f"samples {start} to {stop}: start must be at least 0 and stop at least start")
        blocks = range(start // BLOCK, -(-stop // BLOCK))
        parts = []
        for number in blocks:
            block = _block(self, number)
            first, last = max(start - number * BLOCK, 0), min(stop - number * BLOCK, BLOCK)
            parts.append((block.tokens[first:last], block.targets[first:last]))
        if len(parts) == 1:
            return Samples(*parts[0])
        if not parts:
            empty = (0, self.task.length)
            return Samples(np.empty(empty, self.task.dtype), np.empty(empty, bool))
        tokens, targets = zip(*parts, strict=True)
        return Samples(np.concatenate(tokens), np.concatenate(targets))


@functools.lru_cache(maxsize=8)
def _block(stream: Stream, number: int) -> Samples:
    # Hash the whole key, so that seeds and names of any size cannot collide.
    key = f"{stream.seed}/{stream.split}/{stream.task.name}/{number}"
    entropy = int.from_bytes(hashlib.sha256(key.encode()).digest(), "little")
    rng = np.random.Generator(np.random.PCG64(entropy))
    samples = stream.task.sample(rng, BLOCK)
    if stream.task.min_entropy_bits < _APART_BELOW_BITS:
        samples = _keep_split(stream, rng, samples)
    samples.tokens.flags.writeable = samples.targets.flags.writeable = False
    return samples


def _keep_split(stream: Stream, rng: np.random.Generator, samples: Samples) -> Samples:
    """Draw samples until a block has only samples whose contents belong to the stream's split."""
    classes = _CLASSES[stream.split]
    tokens, targets = [], []
    found = 0
    for _ in range(_MOST_ROUNDS):
        kind = content_hash(samples.tokens) % np.uint64(16)
        mine = (kind >= classes.start) & (kind < classes.stop)
        tokens.append(samples.tokens[mine])
        targets.append(samples.targets[mine])
        found += int(np.count_nonzero(mine))
        if found >= BLOCK:
            return Samples(np.concatenate(tokens)[:BLOCK], np.concatenate(targets)[:BLOCK])
        # Draw about as many samples as the missing ones need.
        samples = stream.task.sample(rng, (BLOCK - found) * 16 // len(classes) + 16)
    raise OptionError(
        f"{stream.task.spec}: has too few different sequences for a separate {stream.split} split; "
        "use longer sequences or more symbols"
    )


def content_hash(tokens: NDArray[np.unsignedinteger]) -> NDArray[np.uint64]:
    """A 64-bit hash of each row, the same on every platform. tokens (n, length) -> (n,)."""
    # Four tokens per word, for speed. Tokens with 32 bits are split into two halves.
    narrow = tokens.astype("<u2" if tokens.dtype.itemsize <= 2 else "<u4").view("<u2")
    words = np.zeros((len(tokens), -(-narrow.shape[1] // 4)), "<u8")
    words.view("<u2")[:, : narrow.shape[1]] = narrow
    hashed = np.full(len(tokens), 0x9E3779B97F4A7C15 ^ narrow.shape[1], np.uint64)
    for column in words.T:
        hashed ^= column
        hashed *= np.uint64(0xD6E8FEB86659FD93)
        hashed ^= hashed >> np.uint64(32)
    # The finaliser of splitmix64.
    hashed ^= hashed >> np.uint64(30)
    hashed *= np.uint64(0xBF58476D1CE4E5B9)
    hashed ^= hashed >> np.uint64(27)
    hashed *= np.uint64(0x94D049BB133111EB)
    return hashed ^ (hashed >> np.uint64(31))
