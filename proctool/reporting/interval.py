"""Means over seeds with 95 % intervals that keep their coverage with few seeds."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proctool.units import to_perplexity

# 97.5 % quantiles of Student's t by degrees of freedom 1..30.
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
BOOTSTRAP_FROM = 6
"""With this many seeds or more, the bootstrap is used. With fewer than 6 values, the true mean lies outside their range
in over 5 % of draws (2^(1-n)), so resampling them cannot give a 95 % interval."""
_RESAMPLES = 10_000


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, with its 95 % interval if there are at least two."""

    value: float
    low: float | None
    high: float | None
    n: int
    method: str | None
    """How the interval was made: "bootstrap", "Student t", "Student t of the log odds", or None."""

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval excludes zero; false without an interval."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    @property
    def negated(self) -> Estimate:
        """The estimate with the opposite sign."""
        low, high = (None if end is None else -end for end in (self.high, self.low))
        return Estimate(-self.value, low, high, self.n, self.method)

    @property
    def exponential(self) -> Estimate | None:
        """exp of the mean and of the interval's ends: the geometric mean if the values are logarithms.

        None if the mean's is not a finite number, and without an interval if those of its ends are not.
        """
        if (value := to_perplexity(self.value)) is None:
            return None
        low, high = (None if end is None else to_perplexity(end) for end in (self.low, self.high))
        if low is None or high is None:
            return Estimate(value, None, None, self.n, None)
        return Estimate(value, low, high, self.n, self.method)


def estimate(values: Sequence[float], *, shares: bool = False) -> Estimate:
    """The mean of independent values, one per seed. Raises ValueError for none.

    With 6 or more values: the percentile bootstrap at levels widened for small samples (Hesterberg, "What Teachers
    Should Know About the Bootstrap", 2015, section 5.3). With fewer: Student's t. For `shares`, which lie in [0, 1],
    the t interval is computed on the log-odds scale around the mean (delta method), so that it stays in [0, 1].
    """
    if not values:
        raise ValueError("no values")
    sample = np.asarray(values, float)  # (n,)
    n, mean = len(sample), float(np.mean(values))
    if n == 1:
        return Estimate(mean, None, None, 1, None)
    quantile = student_t(n - 1)
    if n < BOOTSTRAP_FROM:
        half = quantile * float(sample.std(ddof=1)) / math.sqrt(n)
        if shares:
            return _of_share(mean, half, n)
        return Estimate(mean, mean - half, mean + half, n, "Student t")
    level = 0.5 * math.erfc(math.sqrt(n / (n - 1)) * quantile / math.sqrt(2))
    means = sample[_resamples(n)].mean(1)
    low, high = np.quantile(means, [level, 1 - level])
    return Estimate(mean, float(low), float(high), n, "bootstrap")


@functools.cache
def _resamples(n: int) -> NDArray[np.integer[Any]]:
    """Which of n values each resample holds, (resamples, n). A fixed seed: the same runs give the same report."""
    kind = np.int8 if n < 128 else np.int64
    return np.random.default_rng(20260121725).integers(0, n, (_RESAMPLES, n)).astype(kind)


def _of_share(mean: float, half: float, n: int) -> Estimate:
    """The interval `mean` +- `half`, transformed to stay within 0 and 1."""
    method = "Student t of the log odds"
    if not 0 < mean < 1:  # all seeds at 0 or all at 1: no spread is visible
        return Estimate(mean, mean, mean, n, method)
    odds, wide = math.log(mean / (1 - mean)), half / (mean * (1 - mean))
    return Estimate(mean, _logistic(odds - wide), _logistic(odds + wide), n, method)


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(max(x, -700.0)) / (1 + math.exp(max(x, -700.0)))


def student_t(freedom: int) -> float:
    """The 97.5 % quantile of Student's t."""
    return _T[freedom - 1] if freedom <= len(_T) else 1.96 + 2.42 / freedom
