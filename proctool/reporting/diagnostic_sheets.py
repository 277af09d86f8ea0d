"""Tables of diagnostics: accuracy by arm, and how it spreads over donors and runs."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from proctool.reporting.diagnose import DiagnosticResult
from proctool.reporting.report import Report
from proctool.reporting.sheet import NONE, Sheet
from proctool.reporting.verdict import with_interval


def diagnostics(report: Report) -> Sheet:
    """Accuracy by diagnostic and arm, with the mean over diagnostics as the paper gives it."""
    names = [each[0].diagnostic for each in report.diagnostics]
    by_name = [{result.arm: result for result in each} for each in report.diagnostics]
    heads = ["arm", *names] + (["mean"] if len(names) > 1 else [])
    rows = []
    for arm in report.experiment.arms:
        found = [results.get(arm) for results in by_name]
        if any(found):
            cells = [arm, *(accuracy(each, 1) for each in found)]
            rows.append((*cells, _mean(found)) if len(names) > 1 else tuple(cells))
    chances = [group[0].chance for group in report.diagnostics]
    if rows and any(chances):
        guessed = [NONE if each is None else f"{100 * each:.1f} %" for each in chances]
        rows.append(("guessing", *guessed, *([NONE] if len(names) > 1 else [])))
    return Sheet("diagnostics", "Accuracy on validation samples of each diagnostic", tuple(heads), tuple(rows))


def _mean(found: Sequence[DiagnosticResult | None]) -> str:
    known = [each.accuracy.value for each in found if each is not None]
    return f"{100 * fmean(known):.1f} %" if len(known) == len(found) else NONE


def spread(report: Report) -> Sheet:
    """Standard deviations of accuracy between seeds and between runs of one seed; no rows without repeats."""
    heads = ("arm", "diagnostic", "seeds", "runs of each", "between seeds", "between runs")
    rows = tuple(
        (
            each.arm,
            each.diagnostic,
            str(len(each.seeds)),
            str(each.spread.runs),
            NONE if each.spread.between is None else f"{100 * each.spread.between:.1f} points",
            f"{100 * each.spread.within:.1f} points",
        )
        for group in report.diagnostics
        for each in group
        if each.spread is not None
    )
    note = (
        "Standard deviations. Between seeds: what differs by the donor and the seed. Between runs: what differs by the "
        "diagnostic's own seed: samples, their order, and the weights that start fresh. Intervals above count seeds, "
        "not runs."
    )
    return Sheet("spread", "Spread of accuracy over seeds and over runs of each", heads, rows, note, words=2)


def accuracy(result: DiagnosticResult | None, digits: int) -> str:
    """An accuracy with its interval in percent."""
    return NONE if result is None else with_interval(result.accuracy, 100, digits)
