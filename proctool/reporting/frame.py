"""A report as a table for pandas: numbers, a row per arm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proctool.errors import OptionError
from proctool.reporting.interval import Estimate

if TYPE_CHECKING:
    import pandas as pd

    from proctool.reporting.report import Report

_MEASURES = ("final_loss", "perplexity", "gain", "tokens", "saved", "saved_total", "saved_flops")


def to_pandas(report: Report) -> pd.DataFrame:
    """A row per arm that has been measured, the baseline first; means over seeds.

    seeds                           how many pretraining runs are compared
    final_loss, gain                nats per token
    perplexity
    tokens                          corpus tokens to the target loss
    saved, saved_total, saved_flops fractions of what the baseline needed
    warmup_tokens                   tokens of the warm-ups
    NAME_accuracy                   of each diagnostic

    Each measure except warmup_tokens has its 95 % interval in MEASURE_low and MEASURE_high. What was not measured is
    missing (None or NaN). Raises OptionError if pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError:
        raise OptionError("to_pandas: pandas is not installed; run pip install pandas") from None
    return pd.DataFrame(rows(report))


def rows(report: Report) -> list[dict[str, Any]]:
    """The rows of the table, as plain numbers."""
    results = {each.arm: each for each in report.results}
    found = []
    for arm in report.experiment.arms:
        row: dict[str, Any] = {"arm": arm}
        if report.results:
            result = results.get(arm)
            row["seeds"] = len(result.seeds) if result else 0
            for name in _MEASURES:
                row |= _numbers(name, getattr(result, name) if result else None)
            row["warmup_tokens"] = result.warmup_tokens if result else None
        for group in report.diagnostics:
            accuracy = next((each.accuracy for each in group if each.arm == arm), None)
            row |= _numbers(f"{group[0].diagnostic}_accuracy", accuracy)
        found.append(row)
    return found


def _numbers(name: str, found: Estimate | None) -> dict[str, float | None]:
    low, high = (None, None) if found is None else (found.low, found.high)
    return {name: None if found is None else found.value, f"{name}_low": low, f"{name}_high": high}
