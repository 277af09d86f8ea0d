"""Validation rows in two halves: one to choose by, one to report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proctool.corpora.documents import VALIDATION
from proctool.corpora.rows import Rows
from proctool.corpora.store import TokenStore
from proctool.errors import CorpusError
from proctool.procedural.samples import Samples

TEST = "test"


@dataclass(frozen=True)
class RowRange:
    """Consecutive rows of a split, so that at most one document is on both sides of an end."""

    rows: Rows
    start: int
    stop: int

    @property
    def context(self) -> int:
        """Tokens in a row."""
        return self.rows.context

    def __len__(self) -> int:
        return self.stop - self.start

    def read(self, indices: NDArray[np.integer[Any]]) -> Samples:
        """The rows at `indices`, counted from the range's first. Raises IndexError outside the range."""
        at = np.asarray(indices, np.int64)
        if len(at) and not (at.min() >= 0 and at.max() < len(self)):
            raise IndexError(f"rows {at.min()}..{at.max()} of {len(self)}")
        return self.rows.read(at + self.start)


def evaluation_rows(store: TokenStore, half: str | None) -> Rows | RowRange:
    """The validation rows of a store (`half` None), or those for "selection" or for "test".

    A corpus with a test split of its own keeps validation for selection. Otherwise the first half of the validation
    rows is for selection and the second for test. Raises CorpusError if there are fewer than two rows.
    """
    own_test = TEST in store.splits and store.validation is None
    if half == TEST and own_test:
        return store.split(TEST)
    rows = store.split(VALIDATION)
    if half is None or own_test:
        return rows
    if len(rows) < 2:
        raise CorpusError(
            f"corpus {store.corpus}: its validation split has 1 row, which cannot be split into selection and test; "
            "give more text, or a smaller --context"
        )
    middle = len(rows) // 2
    return RowRange(rows, 0, middle) if half != TEST else RowRange(rows, middle, len(rows))
