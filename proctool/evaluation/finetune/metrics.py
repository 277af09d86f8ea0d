"""GLUE's measures, in numpy."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def accuracy(found: Values, true: Values) -> float:
    """Share of equal classes."""
    return float((found == true).mean())


def f1(found: Values, true: Values) -> float:
    """Harmonic mean of precision and recall of class 1; 0 if it is neither predicted nor present."""
    hits = float(((found == 1) & (true == 1)).sum())
    both = float((found == 1).sum() + (true == 1).sum())
    return 2 * hits / both if both else 0.0


def matthews(found: Values, true: Values) -> float:
    """Matthews' correlation of two classes (1975); 0 if one side has a single class."""
    return pearson((found == 1).astype(float), (true == 1).astype(float))


def pearson(found: Values, true: Values) -> float:
    """Linear correlation; 0 if one side is constant."""
    a, b = found - found.mean(), true - true.mean()
    size = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / size if size > 0 else 0.0


def spearman(found: Values, true: Values) -> float:
    """Correlation of ranks; equal values share their mean rank."""
    return pearson(_ranks(found), _ranks(true))


def _ranks(values: Values) -> Values:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


METRICS: dict[str, Callable[[Values, Values], float]] = {
    "accuracy": accuracy, "f1": f1, "matthews": matthews, "pearson": pearson, "spearman": spearman,
}  # fmt: skip
