"""A token store built by many jobs: each builds its share of the parts, then `merge` joins them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from proctool import artifact
from proctool.corpora.build import Goal, Listener, build, locked
from proctool.corpora.documents import TRAIN, Corpus
from proctool.corpora.shards import KIND, Shard, existing
from proctool.corpora.store import build_own_splits, store_folder, train_jobs, write_index
from proctool.corpora.tokenizers import Tokenizer
from proctool.errors import CorpusError


def parse_share(written: str) -> tuple[int, int]:
    """Parse a share written i/n, with i from 1 to n. Raises CorpusError."""
    first, slash, last = written.partition("/")
    if not (slash and first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise CorpusError(f'shard "{written}": write i/n with i from 1 to n, for example 3/16')
    return int(first), int(last)


def build_share(
    corpus: Corpus,
    tokenizer: Tokenizer,
    share: tuple[int, int],
    *,
    cache_dir: Path | str | None = None,
    progress: Listener | None = None,
    workers: int | None = None,
) -> list[Shard]:
    """Build share i of n: every n-th training part, and the corpus's own validation split, which every job needs.

    Jobs may use one cache folder or one each. Raises CorpusError.
    """
    number, of = share
    folder = store_folder(corpus, tokenizer, cache_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, progress):
        own = build_own_splits(corpus, tokenizer, folder, workers=workers, listen=progress)
    jobs = train_jobs(corpus, tokenizer, folder, own)[number - 1 :: of]
    return [*own, *build(jobs, Goal(TRAIN), workers=workers, skip_bad=corpus.skipped is not None, listen=progress)]


def merge(
    corpus: Corpus, tokenizer: Tokenizer, sources: Sequence[Path], *, cache_dir: Path | str | None = None
) -> list[Shard]:
    """Join the shares of jobs, from the cache folder and from `sources` (other cache folders), into one store.

    Shards are hard-linked if possible, otherwise copied, and checked. Raises CorpusError naming the first missing
    part, ArtifactError for a damaged shard.
    """
    folder = store_folder(corpus, tokenizer, cache_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for source in sources:
        found = store_folder(corpus, tokenizer, source)
        if not found.is_dir():
            raise CorpusError(f"{source}: has no part of corpus {corpus.name} with tokenizer {tokenizer.spec}")
        for path in sorted(found.glob("*.safetensors")):
            if not (folder / path.name).exists():
                artifact.verify(artifact.open_artifact(path, KIND))
                _bring(path, folder / path.name)
    with locked(folder):
        own = build_own_splits(corpus, tokenizer, folder)
        jobs = train_jobs(corpus, tokenizer, folder, own)
        made: list[Shard] = []
        for number, job in enumerate(jobs):
            shards = existing(folder, job.key)
            if not (shards and shards[-1].last):
                raise CorpusError(
                    f"corpus {corpus.name}: part {number + 1} of {len(jobs)} ({job.part.label}) has not been built; "
                    f"run the job with share i/n where i = {number + 1} modulo n, then merge again"
                )
            made += shards
        write_index(folder, corpus, tokenizer, own, made, parts=len(jobs))
    return [*own, *made]


def _bring(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        with artifact.replacing(target) as file, source.open("rb") as opened:
            shutil.copyfileobj(opened, file, 1 << 22)
