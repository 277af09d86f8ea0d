"""Tasks as PyTorch datasets, for HF Trainer, Accelerate, Lightning or your own training loop.

`TaskDataset` is map-style and `TaskStream` iterable. Both give samples of the form

    input_ids   (length,) int64
    labels      (length,) int64: the token if it is a target, -100 elsewhere

Labels are not shifted. Models of transformers shift them; in your own loop, compare logits[:, :-1] with labels[:, 1:].
"""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from proctool.api.tasks import IGNORED, load_task
from proctool.arguments import count_of
from proctool.errors import OptionError, notice
from proctool.procedural.mixture import Spec
from proctool.procedural.registry import Task
from proctool.procedural.samples import Samples
from proctool.procedural.streams import BLOCK

__all__ = ["IGNORED", "Collator", "TaskDataset", "TaskStream", "collate"]

Sample = dict[str, Tensor]

_AT_ONCE = 32
"""Samples of a stream that are converted to tensors at once."""
_WASTEFUL = 32
"""Drawn samples per used sample above which a dataset reports that its cache is too small."""


class TaskDataset(Dataset[Sample]):
    """The first `length` samples of a task's stream, by index.

    Samples are drawn in blocks of 1024. Each process caches the last used blocks, up to `cache_bytes`, so reading in
    order draws every block once. Samples are independent, so shuffling has no effect on training, and it is slow if
    the dataset does not fit `cache_bytes` (a `Notice` says so). Raises OptionError for an invalid specification, seed,
    split or length.
    """

    def __init__(
        self, spec: Spec | Task, seed: int = 0, split: str = "train", *, length: int, cache_bytes: int = 256 << 20
    ) -> None:
        length, cache_bytes = count_of("length", length, 1), count_of("cache_bytes", cache_bytes, 0)
        self.task = load_task(spec)
        self.stream = self.task.stream(seed, split)
        self.length = length
        per_block = BLOCK * self.task.length * (self.task.dtype().itemsize + 1)
        self._most_blocks = max(1, cache_bytes // per_block)
        self._forget()

    def _forget(self) -> None:
        self._blocks: OrderedDict[int, Samples] = OrderedDict()
        self._drawn = self._used = 0
        self._said = False

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        return self.__getitems__([operator.index(index)])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """The samples at several indices; a DataLoader reads its batches with this method."""
        places = np.asarray(indices, np.int64)
        if outside := [int(place) for place in places if not -self.length <= place < self.length]:
            raise IndexError(f"sample {outside[0]} of a dataset of {self.length}")
        places %= self.length
        tokens = np.empty((len(places), self.task.length), self.task.dtype)
        targets = np.empty(tokens.shape, bool)
        of_block = places // BLOCK
        for number in np.unique(of_block).tolist():
            mine = of_block == number
            block = self._block(number)
            tokens[mine], targets[mine] = block.tokens[places[mine] % BLOCK], block.targets[places[mine] % BLOCK]
        self._used += len(places)
        return _tensors(Samples(tokens, targets))

    def _block(self, number: int) -> Samples:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        self._drawn += BLOCK
        if self._drawn > _WASTEFUL * (self._used + BLOCK) and not self._said:
            self._said = True
            notice(
                f"{self.task.spec}: samples are read in random order and the {self.length} samples of the dataset do "
                "not fit its cache, so most drawn samples are discarded; set shuffle=False (samples are independent), "
                "or give a larger cache_bytes"
            )
        block = self.stream.read(number * BLOCK, (number + 1) * BLOCK)
        self._blocks[number] = block
        if len(self._blocks) > self._most_blocks:
            self._blocks.popitem(last=False)
        return block

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_blocks"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()


class TaskStream(IterableDataset[Sample]):
    """A task's endless stream, divided over ranks and DataLoader workers in blocks of 1024 samples.

    All workers of all ranks together give every sample exactly once, and each block is drawn by one worker. Each
    iteration starts at the first sample of the stream, or at the position of `load_state_dict`.

    `rank` and `world_size` come from torch.distributed by default (0 and 1 if it is not initialised). HF Trainer and
    Accelerate divide iterable datasets themselves: give `rank=0, world_size=1` there.
    Raises OptionError.
    """

    def __init__(
        self,
        spec: Spec | Task,
        seed: int = 0,
        split: str = "train",
        *,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        if (rank is None) != (world_size is None):
            raise OptionError("rank and world_size: give both or neither")
        if rank is not None and world_size is not None:
            rank, world_size = count_of("rank", rank, 0), count_of("world_size", world_size, 1)
        if rank is not None and world_size is not None and not rank < world_size:
            raise OptionError(f"rank = {rank} with world_size = {world_size}: ranks are 0 to world_size - 1")
        self.task = load_task(spec)
        self.stream = self.task.stream(seed, split)
        self._rank, self._world_size = rank, world_size
        self._given = 0
        self._loaded: Mapping[str, Any] | None = None

    def __iter__(self) -> Iterator[Sample]:
        shard, shards = self._shard()
        self._given = self._begin(shard, shards)
        while True:
            turn, done = divmod(self._given, BLOCK)
            start = (turn * shards + shard) * BLOCK
            samples = self.stream.read(start + done, start + min(done + _AT_ONCE, BLOCK))
            for sample in _tensors(samples):
                self._given += 1
                yield sample

    def _begin(self, shard: int, shards: int) -> int:
        """Samples of this shard that earlier iterations gave."""
        if self._loaded is None:
            return 0
        state, self._loaded = self._loaded, None
        if (state["shard"], state["shards"]) != (shard, shards):
            raise OptionError(
                f"the state belongs to part {state['shard']} of {state['shards']} of the stream, but this is part "
                f"{shard} of {shards}; use as many ranks and workers as when it was saved"
            )
        return int(state["given"])

    def _ranks(self) -> tuple[int | None, int | None]:
        if self._rank is None and torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return self._rank, self._world_size

    def _shard(self) -> tuple[int, int]:
        """The number of this part of the stream, and the number of parts (ranks times workers)."""
        rank, ranks = self._ranks()
        worker = get_worker_info()
        workers, number = (1, 0) if worker is None else (worker.num_workers, worker.id)
        return (rank or 0) * workers + number, (ranks or 1) * workers

    def state_dict(self) -> dict[str, Any]:
        """The position in the stream, as numbers and text.

        It is the position of this process. With DataLoader workers, use torchdata's StatefulDataLoader, which saves and
        restores their states.
        """
        if self._loaded is not None:
            return dict(self._loaded)
        shard, shards = self._shard()
        return {**self._identity(), "shard": shard, "shards": shards, "given": self._given}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Start the next iteration at the position of `state`. Raises OptionError for the state of another stream."""
        mine = self._identity()
        if missing := sorted({*mine, "shard", "shards", "given"} - state.keys()):
            raise OptionError(f"not the state of a TaskStream: it has no {missing[0]}")
        for name, value in mine.items():
            if state[name] != value:
                raise OptionError(f"the state belongs to a stream with {name} = {state[name]}, not {value}")
        if not isinstance(state["given"], int) or state["given"] < 0:
            raise OptionError(f"not the state of a TaskStream: given = {state['given']!r}")
        self._loaded = dict(state)

    def _identity(self) -> dict[str, Any]:
        return {"task": self.task.spec, "seed": self.stream.seed, "split": self.stream.split}

    def __getstate__(self) -> dict[str, Any]:
        # torch.distributed is not initialised in a new worker, so it gets its rank with the dataset.
        rank, world_size = self._ranks()
        return {**vars(self), "_rank": rank, "_world_size": world_size}


@dataclass(frozen=True)
class Collator:
    """Makes a batch of samples: `input_ids` and `labels` (B, L) int64, where L is the longest sample's length.

    If lengths differ, shorter samples are padded at the end with `pad_id`, labels with -100, and the batch has an
    `attention_mask` (B, L) int64: 1 at tokens, 0 at padding. `multiple_of` rounds L up.
    """

    pad_id: int = 0
    multiple_of: int = 1

    def __post_init__(self) -> None:
        for name, least in (("pad_id", 0), ("multiple_of", 1)):
            if not isinstance(value := getattr(self, name), int) or value < least:
                raise OptionError(f"{name} = {value!r}: must be a whole number of at least {least}")

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Make a batch from samples of these datasets or of `to_datasets`. Raises OptionError for an empty list."""
        if not samples:
            raise OptionError("a batch needs at least one sample")
        rows = [{name: torch.as_tensor(sample[name]) for name in ("input_ids", "labels")} for sample in samples]
        lengths = [len(row["input_ids"]) for row in rows]
        longest = -(-max(lengths) // self.multiple_of) * self.multiple_of
        if min(lengths) == longest:
            return {name: torch.stack([row[name] for row in rows]).long() for name in ("input_ids", "labels")}
        batch = {
            "input_ids": torch.full((len(rows), longest), self.pad_id),
            "labels": torch.full((len(rows), longest), IGNORED),
            "attention_mask": torch.zeros((len(rows), longest), dtype=torch.int64),
        }
        for number, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            batch["input_ids"][number, :length] = row["input_ids"]
            batch["labels"][number, :length] = row["labels"]
            batch["attention_mask"][number, :length] = 1
        return batch


collate = Collator()
"""Makes a batch of samples; shorter samples are padded with token 0 (`Collator(pad_id=...)` for another token)."""


def _tensors(samples: Samples) -> list[Sample]:
    """The samples as tensors that share no memory with the cache."""
    tokens = samples.tokens.astype(np.int64)  # (n, length)
    labels = np.where(samples.targets, tokens, IGNORED)
    return [
        {"input_ids": ids, "labels": wanted}
        for ids, wanted in zip(torch.from_numpy(tokens).unbind(), torch.from_numpy(labels).unbind(), strict=True)
    ]
