"""DeepMind Mathematics v1.0 (Saxton et al. 2019, arXiv 1904.01557): the official files, or generated questions.

The official folder has train-easy/MODULE.txt and so on, with question and answer on alternate lines. Training uses all
three levels, validation is `interpolate`, and `extrapolate` is a third split.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from proctool.corpora import compression, files
from proctool.corpora.documents import TRAIN, VALIDATION, Corpus, Document, Part
from proctool.corpora.fields import SKIP_HINT
from proctool.corpora.questions import LEVELS, OWN_SPLITS, PER_PART, QuestionsPart
from proctool.errors import CorpusError
from proctool.paths import user_path

_TURN = 64
"""Questions taken from a module at a time, so that any budget has all modules and levels in equal shares."""
_PART_BYTES = 256 << 20
_MOST_PARTS = 16

DEFAULT_QUESTIONS = 600
"""Default number of generated training questions per module, a third at each level."""
_OWN_PARTS = 2
"""This gives 40 questions per module for validation, and 40 for `extrapolate`."""


def open_mathematics(name: str, variant: str) -> Corpus:
    """`mathematics` (generated), `mathematics:30000` (that many questions per module), `mathematics:FOLDER` (files).

    Raises CorpusError.
    """
    if variant and not variant.isdecimal():
        return _tree(name, user_path(variant))
    count = int(variant) if variant else DEFAULT_QUESTIONS
    each = PER_PART * len(LEVELS)
    if count < each:
        raise CorpusError(f"{name}: give at least {each} questions per module")
    parts = [QuestionsPart(number, split) for split in OWN_SPLITS for number in range(_OWN_PARTS)]
    parts += [QuestionsPart(number, TRAIN) for number in range(count // each)]
    return Corpus(name, tuple(parts), whole=True, stored_bytes=sum(part.size or 0 for part in parts))


def _tree(name: str, root: Path) -> Corpus:
    by_split = {split: _level(root, level) for split, level in OWN_SPLITS.items()}
    train = [file for level in ("train", *LEVELS) for file in _level(root, level)]
    if not train:
        raise CorpusError(
            f"{root}: has no train-easy/MODULE.txt or similar files; give the top folder of the official files"
        )
    parts: list[Part] = [TreePart(tuple(found), split) for split, found in by_split.items() if found]
    size = sum(file.size for file in train)
    shares = min(_MOST_PARTS, 1 + size // _PART_BYTES)
    parts += [TreePart(tuple(train), TRAIN, share, shares) for share in range(shares)]
    stored = size + sum(file.size for found in by_split.values() for file in found)
    if VALIDATION not in {part.split for part in parts}:
        parts = [TreePart(tuple(train), None, share, shares) for share in range(shares)]
    return Corpus(name, tuple(parts), whole=True, stored_bytes=stored)


def _level(root: Path, level: str) -> list[files.File]:
    return files.listed((path, f"{level}/{path.name}") for path in sorted((root / level).glob("*.txt*")))


@dataclass(frozen=True)
class TreePart(Part):
    """All modules of a split, a few questions of each in turn; with several shares, every n-th turn."""

    modules: tuple[files.File, ...]
    split: str | None
    share: int = 0
    shares: int = 1

    @property
    def label(self) -> str:
        """The first file and the number of others."""
        share = f", share {self.share + 1}/{self.shares}" if self.shares > 1 else ""
        return f"{self.modules[0].path} and {len(self.modules) - 1} more{share}"

    @property
    def identity(self) -> dict[str, Any]:
        """Files by name and contents, and the share."""
        return {
            "modules": [file.identity for file in self.modules],
            "split": self.split,
            "share": [self.share, self.shares, _TURN],
        }

    @property
    def size(self) -> int | None:
        """The bytes of its share of the files."""
        return sum(file.size for file in self.modules) // self.shares

    def documents(self) -> Iterator[Document]:
        """Questions with answers. Raises CorpusError if a file changed or cannot be read."""
        with ExitStack() as stack:
            waiting = []
            for file in self.modules:
                file.check_unchanged()
                waiting.append(_pairs(file.path, stack.enter_context(compression.opened(file.path))))
            turn = 0
            while waiting:
                still = []
                for pairs in waiting:
                    taken = list(itertools.islice(pairs, _TURN))
                    if turn % self.shares == self.share:
                        yield from taken
                    if len(taken) == _TURN:
                        still.append(pairs)
                waiting = still
                turn += 1
            for file in self.modules:
                file.check_unchanged()


def _pairs(path: str, file: IO[bytes]) -> Iterator[Document]:
    try:
        for number in itertools.count(1, 2):
            question, answer = file.readline(), file.readline().rstrip(b"\r\n")
            if not question.strip():
                return
            if not answer:
                yield Document(b"", problem=f"{path}: line {number}: a question without an answer; {SKIP_HINT}")
                continue
            yield Document(question.rstrip(b"\r\n") + b"\n", answer)
    except compression.broken_file_errors() as error:
        raise CorpusError(
            f"{path}: its compressed data is damaged or cut off ({error}); download or copy it again"
        ) from None
