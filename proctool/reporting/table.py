"""The comparison as a table: for a terminal, in Markdown, or as rows for the page."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table

from proctool.reporting.compare import ArmResult
from proctool.reporting.diagnose import DiagnosticResult
from proctool.reporting.interval import Estimate
from proctool.reporting.report import Report
from proctool.reporting.verdict import with_interval
from proctool.units import format_count

_NONE = "\N{EN DASH}"


def rows(report: Report, brief: bool = False) -> tuple[list[str], list[list[str]]]:
    """Headings and a row of text per arm, the baseline first. `brief` leaves out losses' intervals and decimals."""
    base = report.baseline
    heads = ["arm"]
    if report.results:
        heads += ["final loss", "gain", f"tokens to {base}'s loss", "saved", "saved in total"]
    heads += [f"{each[0].diagnostic} accuracy" for each in report.diagnostics]
    by_arm = {result.arm: result for result in report.results}
    scores = [{result.arm: result for result in each} for each in report.diagnostics]
    arms = [arm for arm in _arms(report) if arm in by_arm or any(arm in score for score in scores)]
    body = []
    for arm in arms:
        cells = [arm]
        if report.results:
            cells += _loss_cells(by_arm.get(arm), brief)
        body.append(cells + [_accuracy(score.get(arm), brief) for score in scores])
    return heads, body


def _arms(report: Report) -> list[str]:
    known = [*report.experiment.runs, *(arm for scores in report.experiment.scores.values() for arm in scores)]
    return sorted(dict.fromkeys(known), key=lambda arm: arm != report.baseline)


def _loss_cells(result: ArmResult | None, brief: bool) -> list[str]:
    if result is None:
        return [_NONE] * 5
    loss, gain = with_interval(result.final_loss, 1, 3, ""), with_interval(result.gain, 1, 3, "")
    if brief:
        loss, gain = loss.partition(" [")[0], gain.partition(" [")[0]
    tokens = "never" if result.tokens is None else format_count(result.tokens.value)
    if 0 < result.reached < len(result.seeds):
        tokens = f"in {result.reached} of {len(result.seeds)}"
    if result.is_baseline:
        return [loss, _NONE, tokens, _NONE, _NONE]
    return [loss, gain, tokens, _share(result.saved), _share(result.saved_total)]


def _share(found: Estimate | None) -> str:
    return _NONE if found is None else with_interval(found, 100)


def _accuracy(result: DiagnosticResult | None, brief: bool) -> str:
    return _NONE if result is None else with_interval(result.accuracy, 100, 0 if brief else 1)


def terminal_table(report: Report) -> Table:
    """For a Rich console."""
    heads, body = rows(report, brief=True)
    table = Table(header_style="bold", border_style="dim", box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for index, head in enumerate(heads):
        table.add_column(head, justify="left" if index == 0 else "right", no_wrap=index == 0, overflow="fold")
    for cells in body:
        # Intervals go under their means, so that the table fits 80 columns.
        table.add_row(
            *(cell.replace(" [", "\n[") for cell in cells), style="dim" if cells[0] == report.baseline else ""
        )
    return table


def markdown(report: Report) -> str:
    """The table, the verdicts and the notes in Markdown."""
    heads, body = rows(report)
    lines = [_line(heads), _line(["---"] + ["---:"] * (len(heads) - 1)), *map(_line, body)]
    parts = ["\n".join(lines), *(f"- {each}" for each in report.verdicts), *(f"*{each}*" for each in report.notes)]
    return "\n\n".join(parts).replace("\n\n- ", "\n- ").replace("|\n- ", "|\n\n- ")


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
