"""The token store: a corpus tokenised once, then memory-mapped.

The folder of a store has shards and an index. A shard has the tokens of consecutive documents of one part; its name is
the hash of everything that decides them. The index lists the shards of the corpus. The same shards serve any context,
and a store grows for a larger budget.
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
"""Bytes of text used from a corpus's own validation (or test) split: the first 64 MiB, up to the end of a shard."""


@dataclass(frozen=True)
class TokenStore:
    """A corpus as rows of `context` tokens, memory-mapped."""

    corpus: str
    folder: Path
    tokenizer: Tokenizer
    context: int
    budget: int | None
    """Requested training tokens; the train split has only the rows needed for them."""
    own: tuple[Shard, ...]
    """Shards of the corpus's own validation and other splits."""
    train: tuple[Shard, ...]
    """Shards of all other documents."""
    whole: bool
    splits: tuple[str, ...]
    validation: str | None = None
    """The other corpus that gives the validation documents."""
    corpus_notes: tuple[str, ...] = ()

    @property
    def shards(self) -> tuple[Shard, ...]:
        """All of them."""
        return (*self.own, *self.train)

    def split(self, name: str = TRAIN) -> Rows:
        """The rows of a split. Raises CorpusError if there is no such split, or less than one row."""
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
        """SHA-256 of the contents of the rows: equal for equal tokens, on any machine."""
        held = [[shard.content, shard.splits] for shard in self.shards]
        shown = {"shards": held, "context": self.context, "budget": self.budget, "eos": self.tokenizer.eos_id}
        return hashlib.sha256(artifact.canonical(shown).encode()).hexdigest()

    @property
    def skipped(self) -> int:
        """Number of skipped bad documents."""
        return sum(shard.skipped for shard in self.shards)

    @property
    def _bad(self) -> Mapping[str, int]:
        """Number of skipped bad documents by corpus."""
        found = Counter({self.corpus: sum(shard.skipped for shard in self.train)})
        found[self.validation or self.corpus] += sum(shard.skipped for shard in self.own)
        return found

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user: those of the corpus, and the numbers of skipped documents."""
        notes = [
            f"{name}: {bad_documents(count)} skipped in its token store" for name, count in self._bad.items() if count
        ]
        if excluded := sum(shard.excluded for shard in self.train):
            others = self.validation or " and ".join(each for each in self.splits if each != TRAIN)
            some = f"{excluded} documents are" if excluded > 1 else "1 document is"
            notes.append(f"{self.corpus}: {some} also in {others}, and not used for training")
        return (*self.corpus_notes, *notes)

    def count(self, split: str, what: str = "tokens") -> int:
        """The number of `what` ("tokens", "bytes", "documents") in a split, also outside rows."""
        return sum(shard.count(split, what) for shard in self.shards)

    def verify(self) -> None:
        """Read every shard and check its hashes. Raises ArtifactError naming the first damaged shard."""
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
    """Open the token store of a corpus, and build what is missing.

    `budget` training tokens are taken from the beginning of the corpus (None: all). `workers` processes build in
    parallel. A killed build resumes. If several processes open the same store, one builds and the others wait.
    Raises CorpusError if there is nothing to read, a document is bad, or (with `needs_row`) training has too few tokens
    for one row.
    """
    if context < 2:
        raise CorpusError(f"context = {context}: must be at least 2 tokens")
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
            # The previous holder of the lock may have built it.
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
        store.split(TRAIN)  # raise the error about too little text here, not in the middle of a run
    return store


def is_built(corpus: Corpus, tokenizer: Tokenizer, budget: int | None, cache_dir: Path | str | None = None) -> bool:
    """Whether the store has all tokens of the budget, so that the corpus need not be read."""
    folder = store_folder(corpus, tokenizer, cache_dir)
    return _listed(folder, corpus, tokenizer, Goal(TRAIN, "tokens", budget)) is not None


def built_tokens(corpus: Corpus, tokenizer: Tokenizer, cache_dir: Path | str | None = None) -> int | None:
    """The number of training tokens of the whole corpus, if its store has them all."""
    listed = _listed(store_folder(corpus, tokenizer, cache_dir), corpus, tokenizer, Goal(TRAIN, "tokens", None))
    return None if listed is None else sum(shard.count(TRAIN, "tokens") for shards in listed for shard in shards)


def store_folder(corpus: Corpus, tokenizer: Tokenizer, cache_dir: Path | str | None = None) -> Path:
    """The folder of the shards of a corpus with a tokenizer. Shards have their keys as names."""
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
    """The shards of a corpus's own validation and other splits; none if documents are split by their hash."""
    made: list[Shard] = []
    for split in corpus.splits:
        parts = [part for part in corpus.parts if part.split == split]
        if split != TRAIN and parts:
            jobs = [_job(corpus, tokenizer, folder, part, np.empty(0, np.uint64)) for part in parts]
            goal = Goal(split, "bytes", HELD_OUT_BYTES)
            made += build(jobs, goal, workers=workers, skip_bad=corpus.skipped is not None, listen=listen)
    return made


def train_jobs(corpus: Corpus, tokenizer: Tokenizer, folder: Path, own: list[Shard]) -> list[ShardJob]:
    """A job for each part with training documents; documents in the corpus's own splits are skipped."""
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
    """Record the shards of the corpus; `parts` is the number of parts with training documents."""
    index: dict[str, Any] = {
        "own": [asdict(shard) for shard in own],
        "train": [asdict(shard) for shard in train],
        "complete": sum(shard.last for shard in train) == parts,
    }
    with artifact.replacing(_index_path(folder, corpus, tokenizer)) as file:
        file.write(json.dumps(index).encode())


def _listed(folder: Path, corpus: Corpus, tokenizer: Tokenizer, goal: Goal) -> tuple[list[Shard], list[Shard]] | None:
    """The shards of own splits, and the others up to the goal; None if the index or a file is incomplete."""
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
