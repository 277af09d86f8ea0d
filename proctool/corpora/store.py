"""The token store: a corpus tokenised once, then memory-mapped.

A store's folder holds shards, each the tokens of a block of consecutive documents of one part, named by the hash of
everything that shaped them; an index says which of them make up the corpus. The context is not part of it: the same
shards serve rows of any length. Nor is the budget: a store grows when more is asked of it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proctool import artifact
from proctool.cache import cache_folder, unwritable
from proctool.corpora.build import Goal, Listener, build, locked
from proctool.corpora.documents import TRAIN, VALIDATION, Corpus, Part, bad_documents
from proctool.corpora.rows import Rows, mapped
from proctool.corpora.shards import FORMAT, Shard, ShardJob
from proctool.corpora.tokenizers import Tokenizer
from proctool.errors import CorpusError

HELD_OUT_BYTES = 64 << 20
"""Text taken of a corpus's own validation (or test) split: the first 64 MiB, to the end of a shard."""


@dataclass(frozen=True)
class TokenStore:
    """A corpus as rows of `context` tokens, memory-mapped."""

    corpus: str
    folder: Path
    tokenizer: Tokenizer
    context: int
    budget: int | None
    """Training tokens asked for; the train split is cut to the rows that hold them."""
    own: tuple[Shard, ...]
    """Of validation and further splits that the corpus brings with it."""
    train: tuple[Shard, ...]
    """Of all other documents."""
    whole: bool
    splits: tuple[str, ...]
    validation: str | None = None
    """The other corpus that validation documents come from."""
    corpus_notes: tuple[str, ...] = ()

    @property
    def shards(self) -> tuple[Shard, ...]:
        """All of them."""
        return (*self.own, *self.train)

    def split(self, name: str = TRAIN) -> Rows:
        """The rows of a split. Raises CorpusError where there is no such split, or not one row of it."""
        if name not in self.splits:
            raise CorpusError(f'corpus {self.corpus} has no split "{name}"; it has {", ".join(self.splits)}')
        most = -(-self.budget // self.context) if self.budget is not None and name == TRAIN else None
        source = self.validation if name == VALIDATION and self.validation else self.corpus
        return Rows(
            source, self.folder, self.shards, name, self.context, self.tokenizer.eos_id, self.tokenizer.dtype,
            whole=self.whole, most=most, bad=self._bad.get(source, 0),
        )  # fmt: skip

    @property
    def content(self) -> str:
        """SHA-256 of what the rows hold: equal for equal tokens, on any machine."""
        held = [[shard.content, shard.splits] for shard in self.shards]
        shown = {"shards": held, "context": self.context, "budget": self.budget, "eos": self.tokenizer.eos_id}
        return hashlib.sha256(artifact.canonical(shown).encode()).hexdigest()

    @property
    def skipped(self) -> int:
        """Bad documents that were left out."""
        return sum(shard.skipped for shard in self.shards)

    @property
    def _bad(self) -> Mapping[str, int]:
        """Bad documents that were left out, by the corpus that they stand in."""
        found = Counter({self.corpus: sum(shard.skipped for shard in self.train)})
        found[self.validation or self.corpus] += sum(shard.skipped for shard in self.own)
        return found

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines to say where the store is used: the corpus's own, and how many documents were left out."""
        notes = [
            f"{name}: {bad_documents(count)} left out of its token store" for name, count in self._bad.items() if count
        ]
        if excluded := sum(shard.excluded for shard in self.train):
            others = self.validation or " and ".join(each for each in self.splits if each != TRAIN)
            some = f"{excluded} documents are" if excluded > 1 else "1 document is"
            notes.append(f"{self.corpus}: {some} in {others} too, and left out of training")
        return (*self.corpus_notes, *notes)

    def count(self, split: str, what: str = "tokens") -> int:
        """`what` ("tokens", "bytes", "documents") a split holds, rows or not."""
        return sum(shard.count(split, what) for shard in self.shards)

    def verify(self) -> None:
        """Read every shard and check its hashes. Raises ArtifactError naming the first that is damaged."""
        for shard in self.shards:
            artifact.verify(artifact.read_header(self.folder / shard.file))


def open_store(
    corpus: Corpus,
    tokenizer: Tokenizer,
    context: int,
    *,
    budget: int | None = None,
    cache_dir: Path | str | None = None,
    progress: Listener | None = None,
    workers: int | None = None,
    needs_row: bool = True,
) -> TokenStore:
    """The token store of a corpus, built where it is missing.

    `budget` training tokens are taken from the corpus's beginning (all of it when None). Building is parallel over
    `workers` processes, may be killed and run again, and may be asked of several processes at once: one builds, the
    others wait.
    Raises CorpusError: nothing to read, a bad document, too few tokens for one training row (if `needs_row`).
    """
    if context < 2:
        raise CorpusError(f"context = {context}: a row needs at least 2 tokens")
    if budget is not None and budget < 1:
        raise CorpusError(f"budget = {budget}: must be at least 1 token")
    folder = store_folder(corpus, tokenizer, cache_dir)
    goal = Goal(TRAIN, "tokens", budget)
    listed = _listed(folder, corpus, tokenizer, goal)
    if listed is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ".lock").touch()
        except OSError as error:
            raise unwritable(folder, error) from None
        with locked(folder, progress):
            # Whoever held the lock before may have built it.
            listed = _listed(folder, corpus, tokenizer, goal)
            if listed is None:
                own = build_own_splits(corpus, tokenizer, folder, workers=workers, listen=progress)
                jobs = train_jobs(corpus, tokenizer, folder, own)
                made = build(jobs, goal, workers=workers, skip_bad=corpus.skipped is not None, listen=progress)
                write_index(folder, corpus, tokenizer, own, made, parts=len(jobs))
                listed = own, made
    store = TokenStore(
        corpus.name, folder, tokenizer, context, budget, tuple(listed[0]), tuple(listed[1]), corpus.whole,
        corpus.splits, corpus.validation, corpus.notes,
    )  # fmt: skip
    if needs_row:
        store.split(TRAIN)  # too little text is said here, not in the middle of a run
    return store


def is_built(corpus: Corpus, tokenizer: Tokenizer, budget: int | None, cache_dir: Path | str | None = None) -> bool:
    """Whether the store is there as far as the budget asks, so that the corpus need not be read."""
    folder = store_folder(corpus, tokenizer, cache_dir)
    return _listed(folder, corpus, tokenizer, Goal(TRAIN, "tokens", budget)) is not None


def store_folder(corpus: Corpus, tokenizer: Tokenizer, cache_dir: Path | str | None = None) -> Path:
    """Where the shards of a corpus under a tokenizer lie. Shards are told apart by their keys."""
    name = re.sub(r"[^\w.=-]+", "-", Path(corpus.name).name).strip("-.")[:60] or "corpus"
    return Path(cache_dir or cache_folder()) / "tokens" / f"{name}-{tokenizer.fingerprint[:12]}"


def build_own_splits(
    corpus: Corpus,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    workers: int | None = None,
    listen: Listener | None = None,
) -> list[Shard]:
    """The shards of a corpus's own validation and further splits; none where documents are divided by their hash."""
    made: list[Shard] = []
    for split in corpus.splits:
        parts = [part for part in corpus.parts if part.split == split]
        if split != TRAIN and parts:
            jobs = [_job(corpus, tokenizer, folder, part, np.empty(0, np.uint64)) for part in parts]
            goal = Goal(split, "bytes", HELD_OUT_BYTES)
            made += build(jobs, goal, workers=workers, skip_bad=corpus.skipped is not None, listen=listen)
    return made


def train_jobs(corpus: Corpus, tokenizer: Tokenizer, folder: Path, own: list[Shard]) -> list[ShardJob]:
    """A job for each part that gives training documents; those that stand in the corpus's own splits are left out."""
    held = [
        digests for shard in own for name, digests in mapped(folder / shard.file).items() if name.endswith(".digests")
    ]
    excluded = np.unique(np.concatenate([np.empty(0, np.uint64), *held]))
    parts = [part for part in corpus.parts if part.split in (None, TRAIN)]
    return [_job(corpus, tokenizer, folder, part, excluded) for part in parts]


def _job(corpus: Corpus, tokenizer: Tokenizer, folder: Path, part: Part, excluded: NDArray[np.uint64]) -> ShardJob:
    return ShardJob(part, tokenizer, folder, corpus.name, corpus.block, corpus.held_out, corpus.whole, excluded)


def _index_path(folder: Path, corpus: Corpus, tokenizer: Tokenizer) -> Path:
    shaped = {
        "format": FORMAT,
        "parts": [part.identity for part in corpus.parts],
        "tokenizer": tokenizer.fingerprint,
        "block": corpus.block,
        "held_out": corpus.held_out,
        "held_out_bytes": HELD_OUT_BYTES,
        "whole": corpus.whole,
    }
    return folder / f"index-{hashlib.sha256(artifact.canonical(shaped).encode()).hexdigest()[:24]}.json"


def write_index(
    folder: Path, corpus: Corpus, tokenizer: Tokenizer, own: list[Shard], train: list[Shard], *, parts: int
) -> None:
    """Record which shards make up the corpus; `parts` is how many give training documents."""
    index: dict[str, Any] = {
        "own": [asdict(shard) for shard in own],
        "train": [asdict(shard) for shard in train],
        "complete": sum(shard.last for shard in train) == parts,
    }
    with artifact.replacing(_index_path(folder, corpus, tokenizer)) as file:
        file.write(json.dumps(index).encode())


def _listed(folder: Path, corpus: Corpus, tokenizer: Tokenizer, goal: Goal) -> tuple[list[Shard], list[Shard]] | None:
    """The shards of own splits, and the others up to the goal; None where the index lacks some or files are gone."""
    try:
        index = json.loads(_index_path(folder, corpus, tokenizer).read_bytes())
        own, train = ([Shard(**entry) for entry in index[group]] for group in ("own", "train"))
        complete = index["complete"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    taken: list[Shard] = []
    total = 0
    for shard in train:
        if goal.wanted is not None and total >= goal.wanted:
            break
        taken.append(shard)
        total += shard.count(TRAIN, "tokens")
    enough = complete or (goal.wanted is not None and total >= goal.wanted)
    there = all((folder / shard.file).is_file() for shard in (*own, *taken))
    return (own, taken) if enough and there else None
