"""Sources that insert procedural rows between the rows of a corpus."""

from __future__ import annotations

import copy
import functools
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from proctool.errors import OptionError
from proctool.procedural.samples import Samples
from proctool.procedural.streams import Stream
from proctool.procedural.task_code import code_metadata
from proctool.training.mix import Mix, Placement
from proctool.training.sources import CorpusSource, Source

SPLIT = "procedural"
"""The split of the evaluations on procedural rows."""
_COUNTED = 1 << 24
"""Training tokens from which the frequency of ids is counted."""


def symbol_ids(mix: Mix, corpus: CorpusSource, eos_id: int) -> NDArray[np.int64]:
    """The id of each of the task's symbols in the corpus's vocabulary, (task.vocab_size,).

    reserved: ids after the tokenizer's, which do not occur in text, in the task's order. frequency: symbol k gets the
    k-th most frequent id in the first 2^24 tokens of the training split, without end-of-text; if two are equally
    frequent, the smaller id comes first. Raises OptionError if the vocabulary is too small.
    """
    needed = mix.task.vocab_size
    if mix.symbols == "reserved":
        return np.arange(corpus.vocab_size, corpus.vocab_size + needed)
    if needed > corpus.vocab_size - 1:
        raise OptionError(
            f"mix_symbols = frequency: {mix.task.spec} has {needed} symbols, but the tokenizer has only "
            f"{corpus.vocab_size - 1} tokens beside end-of-text; use fewer symbols, or --mix-symbols reserved"
        )
    rows = min(len(corpus.rows), max(1, _COUNTED // corpus.length))
    counts = np.zeros(corpus.vocab_size, np.int64)
    for first in range(0, rows, 1024):
        tokens = corpus.rows.read(np.arange(first, min(first + 1024, rows))).tokens
        counts += np.bincount(tokens.ravel(), minlength=corpus.vocab_size)
    counts[eos_id] = -1
    return np.argsort(-counts, kind="stable")[:needed]


class ProceduralRows:
    """A task's stream as rows of `context` tokens. A row has as many whole samples as fit, one after the other.

    Targets are those of the task. `pad` fills the end of a row and is never a target.
    """

    def __init__(self, mix: Mix, seed: int, split: str, *, ids: NDArray[np.int64], context: int, pad: int) -> None:
        self.stream = Stream(mix.task, seed, split)
        self.length = context
        self.vocab_size = max(int(ids.max()), pad) + 1
        self.samples = mix.samples_per_row(context)
        self._ids, self._pad = ids, pad

    def of_split(self, split: str, seed: int) -> Self:
        """The same rows of another split and seed."""
        made = copy.copy(self)
        made.stream = Stream(self.stream.task, seed, split)
        return made

    def read(self, start: int, stop: int) -> Samples:
        """Rows start..stop - 1. Raises OptionError if the task cannot make its samples."""
        try:
            drawn = self.stream.read(start * self.samples, stop * self.samples)
        except OptionError as error:
            raise OptionError(f"mix: {error}") from None
        used = self.samples * self.stream.task.length
        tokens = np.full((stop - start, self.length), self._pad, np.uint32)
        tokens[:, :used] = self._ids[drawn.tokens].reshape(-1, used)
        targets = np.zeros(tokens.shape, bool)
        targets[:, :used] = drawn.targets.reshape(-1, used)
        return Samples(tokens, targets)

    def metadata(self) -> dict[str, Any]:
        """Task, seed, split and code."""
        task = self.stream.task
        return {"task": task.spec, "seed": self.stream.seed, "split": self.stream.split, **code_metadata(task)}


class Interleaved:
    """The rows of one source, with rows of a second source inserted.

    Both sources keep their order, whatever the share and the schedule: an inserted row moves later rows by one place
    and drops none. A run with a fixed number of rows therefore sees only the first rows of the first source.
    """

    def __init__(self, main: Source, inserted: Source, placement: Placement) -> None:
        self.main, self.inserted, self.placement = main, inserted, placement
        self.vocab_size = max(main.vocab_size, inserted.vocab_size)
        self.length = main.length

    def read(self, start: int, stop: int) -> Samples:
        """Rows start..stop - 1 of the training order."""
        return self._read(start, stop)[0]

    def _read(self, start: int, stop: int) -> tuple[Samples, NDArray[np.bool_]]:
        """The rows, and a mask of the inserted ones."""
        first, last = self.placement.before(start), self.placement.before(stop)
        marks = np.zeros(stop - start, bool)
        marks[np.array(self.placement.within(start, stop), np.int64) - start] = True
        tokens = np.empty((stop - start, self.length), np.uint32)
        targets = np.empty(tokens.shape, bool)
        parts = ((~marks, self.main.read(start - first, stop - last)), (marks, self.inserted.read(first, last)))
        for rows, samples in parts:
            tokens[rows], targets[rows] = samples.tokens, samples.targets
        return Samples(tokens, targets), marks

    def main_rows(self, rows: int) -> int:
        """The number of rows of the first source among the first `rows`."""
        return rows - self.placement.before(rows)

    def metadata(self) -> dict[str, Any]:
        """Metadata of the first source."""
        return self.main.metadata()


class MixedSource(Interleaved):
    """A corpus with procedural rows between its rows."""

    def __init__(self, main: Source, inserted: ProceduralRows, mix: Mix, rows: int, seed: int) -> None:
        super().__init__(main, inserted, Placement(mix.share, mix.schedule, rows, seed))
        self.mix, self.procedural = mix, inserted

    @classmethod
    def of(cls, main: Source, corpus: CorpusSource, mix: Mix, rows: int, seed: int, eos_id: int) -> Self:
        """Add procedural rows to `main`, the source of the corpus rows. Raises OptionError before any training."""
        ids = symbol_ids(mix, corpus, eos_id)
        procedural = ProceduralRows(mix, seed, "train", ids=ids, context=main.length, pad=eos_id)
        made = cls(main, procedural, mix, rows, seed)
        for source in (made.procedural, made.held_out):
            source.read(0, 1)
        return made

    @functools.cached_property
    def held_out(self) -> ProceduralRows:
        """The validation samples of the procedural rows: the same ones whatever the run's seed."""
        return self.procedural.of_split("validation", 0)

    def remark(self, rows: int) -> str:
        """A note on the procedural rows of a run of `rows` rows."""
        procedural, each = self.placement.before(rows), self.procedural.samples
        samples = f"{each} samples" if each > 1 else "1 sample"
        return f"{procedural} of {rows} rows are procedural, with {samples} each"

    def read(self, start: int, stop: int) -> Samples:
        """Rows start..stop - 1 of the training order; `procedural` marks those of the task."""
        samples, marks = self._read(start, stop)
        return Samples(samples.tokens, samples.targets, marks)

    def metadata(self) -> dict[str, Any]:
        """What an artifact records of the corpus and of the mix."""
        schedule = self.mix.schedule
        described = {
            "mix": list(self.mix.written),
            "mix_schedule": schedule.kind if schedule.value == 1 else f"{schedule.kind}:{float(schedule.value):g}",
            "mix_symbols": self.mix.symbols,
        }
        return {**self.main.metadata(), **described, **code_metadata(self.mix.task)}


def procedural_tokens(source: Source, rows: int) -> int | None:
    """Tokens of the procedural rows among the first `rows` of a source; None for a source without a mix."""
    return source.placement.before(rows) * source.length if isinstance(source, MixedSource) else None
