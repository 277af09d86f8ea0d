"""Tables for a terminal, in Markdown and in LaTeX (booktabs); their numbers as tidy CSV."""

from __future__ import annotations

import csv
import io
import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from proctool.columns import fitting, left_out
from proctool.reporting.diagnose import DiagnosticResult
from proctool.reporting.diagnostic_sheets import spread
from proctool.reporting.gain_figures import gain_curve
from proctool.reporting.interval import Estimate
from proctool.reporting.loss_part_sheet import loss_part_sheet
from proctool.reporting.report import Report
from proctool.reporting.sheet import Sheet
from proctool.reporting.sheets import cost, evaluated, finetuned, sheets, substitution, summary
from proctool.reporting.sweep import values_said
from proctool.reporting.sweep_sheets import ladder, sweep

_NAME = 20
"""Characters of a name on one line; a longer name continues on the next line."""


def terminal_tables(report: Report, room: int = 80) -> list[Table]:
    """The summary, the costs, the spread over runs, curves with several points, fine-tuning; for a Rich console.

    `room` is the width in characters; a table that needs more loses its least important columns and names them.
    """
    shown = [summary(report, brief=True), cost(report, brief=True), loss_part_sheet(report, brief=True)]
    shown += [spread(report), ladder(report), sweep(report)]
    if any(each.has_lengths for each in report.substitutions):
        shown.append(substitution(report))
    shown += [*finetuned(report, brief=True), *evaluated(report, brief=True)]
    return [_terminal(each, report.baseline, room) for each in shown if each.rows]


def _terminal(sheet: Sheet, baseline: str, room: int) -> Table:
    # Intervals go under their means, so that the table fits 80 columns.
    rows = [[_folded(name), *(cell.replace(" [", "\n[") for cell in cells)] for name, *cells in sheet.rows]
    heads = dict(zip(sheet.heads, sheet.heads, strict=True))
    widths = _widths(heads, rows)
    if len(fitting(widths, room)) < len(heads):  # heads over several lines take less
        narrow = {name: max(map(_width, column)) for name, *column in zip(heads, *rows, strict=True)}
        heads = {name: textwrap.fill(name, max(narrow[name], 6), break_long_words=False) for name in heads}
        widths = _widths(heads, rows)
    kept = fitting(widths, room, sheet.drop)
    table = Table(header_style="bold", border_style="dim", box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.caption, table.caption_justify = left_out(widths, kept), "left"
    for name in kept:
        table.add_column(heads[name], justify="left" if name in sheet.heads[: sheet.words] else "right", no_wrap=True)
    for row in rows:
        cells = [cell for name, cell in zip(heads, row, strict=True) if name in kept]
        table.add_row(*map(Text, cells), style="dim" if row[0] == _folded(baseline) else "")
    return table


def _widths(heads: Mapping[str, str], rows: Sequence[Sequence[str]]) -> dict[str, int]:
    columns = zip(heads, heads.values(), *rows, strict=True)
    return {name: max(map(_width, column)) for name, *column in columns}


def _width(cell: str) -> int:
    return max(map(len, cell.split("\n")))


def _folded(name: str) -> str:
    """A long name over several lines, broken after dashes where it has some."""
    lines = [""]
    for part in re.findall(r"[^-]+-*|-+", name):
        if lines[-1] and len(lines[-1] + part) > _NAME:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def markdown(report: Report) -> str:
    """The tables, the verdicts and the notes in Markdown."""
    parts = [f"**{report.warning}**"] if report.warning else []
    for sheet in sheets(report):
        heads, body = list(sheet.heads), [list(row) for row in sheet.rows]
        lines = [_line(heads), _line(["---"] * sheet.words + ["---:"] * (len(heads) - sheet.words)), *map(_line, body)]
        table = "\n".join(lines)
        if sheet.name == "summary":
            parts += [table, "\n".join(f"- {_plain(each)}" for each in report.sentences)]
        else:
            parts += [f"**{_plain(sheet.title)}**", table, *([f"*{sheet.note}*"] if sheet.note else [])]
    parts += [f"*{_plain(each)}*" for each in report.notes]
    return "\n\n".join(each for each in parts if each)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(_plain(cell).replace("|", "\\|") for cell in cells) + " |"


def _plain(text: str) -> str:
    """Text with the special characters of Markdown and HTML escaped: names may contain them."""
    return re.sub(r"([\\`*_<>])", r"\\\1", " ".join(text.split()))


_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "\N{EN DASH}": "--", "\N{MINUS SIGN}": "$-$",
    "\N{GREATER-THAN OR EQUAL TO}": r"$\geq$",
    "\N{LESS-THAN OR EQUAL TO}": r"$\leq$", "\N{MULTIPLICATION SIGN}": r"$\times$", "[": "{[}", "]": "{]}",
}  # fmt: skip


def latex(report: Report) -> str:
    r"""A LaTeX table for each sheet, to be \input; it needs the packages booktabs and fontenc with T1."""
    return "\n".join(
        [
            r"% Needs \usepackage[T1]{fontenc} and \usepackage{booktabs}. Brackets are 95 % intervals over seeds.",
            *([f"% {report.warning}"] if report.warning else []),
            *(_latex_table(each) for each in sheets(report)),
        ]
    )


def _latex_table(sheet: Sheet) -> str:
    columns = "l" * sheet.words + "r" * (len(sheet.heads) - sheet.words)
    # Each head is a tabular of its own, so that long heads wrap.
    heads = [_latex_head(each, "l" if place < sheet.words else "r") for place, each in enumerate(sheet.heads)]
    lines = [
        "\\begin{table}",
        "  \\centering\\footnotesize\\setlength{\\tabcolsep}{4pt}",
        f"  \\caption{{{_tex(sheet.title)}.{' ' + _tex(sheet.note) if sheet.note else ''}}}",
        f"  \\label{{tab:{sheet.name}}}",
        f"  \\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
        "    \\toprule",
        f"    {' & '.join(heads)} \\\\",
        "    \\midrule",
        *(f"    {' & '.join(map(_latex_cell, row))} \\\\" for row in sheet.rows),
        "    \\bottomrule",
        "  \\end{tabular}",
        "\\end{table}",
        "",
    ]
    return "\n".join(lines)


def _latex_head(text: str, side: str) -> str:
    words = text.split()
    if len(text) <= 12 or len(words) < 2:
        return _tex(text)
    middle = min(range(1, len(words)), key=lambda at: abs(len(" ".join(words[:at])) - len(text) / 2))
    top, bottom = (_tex(" ".join(part)) for part in (words[:middle], words[middle:]))
    return f"\\begin{{tabular}}[b]{{@{{}}{side}@{{}}}}{top} \\\\ {bottom}\\end{{tabular}}"


def _latex_cell(text: str) -> str:
    mean, bracket, interval = text.partition(" [")
    small = f" {{\\scriptsize {_tex('[' + interval)}}}" if bracket else ""
    return re.sub(r"(?<=\d) (?=\\%)", r"\\,", _tex(mean)) + small


def _tex(text: str) -> str:
    """Escaped; characters that pdflatex with T1 fonts lacks become question marks."""
    return "".join(_LATEX.get(each, each if each.isprintable() and ord(each) < 0x180 else "?") for each in text)


_COLUMNS = (
    "source", "quantity", "arm", "diagnostic", "finetune", "tokens", "step", "seed", "seeds", "value", "low", "high",
    "method", "unit",
)  # fmt: skip


def tidy_csv(report: Report) -> str:
    """One number a row: means with their intervals, then what each seed measured, then published numbers."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_rows(report))
    return text.getvalue()


def _rows(report: Report) -> Iterator[dict[str, Any]]:
    for result in report.results:
        quantities: list[tuple[str, Estimate | None, str]] = [
            ("final loss", result.final_loss, "nats per token"),
            ("perplexity", result.perplexity, ""),
            ("tokens to target", result.tokens, "corpus tokens"),
        ]
        if not result.is_baseline:
            quantities += [
                ("gain", result.gain, "nats per token"),
                ("perplexity ratio", result.perplexity_ratio, ""),
                ("corpus tokens saved", result.saved, "share"),
                ("tokens saved, warm-up counted", result.saved_total, "share"),
                ("FLOPs saved, warm-up counted", result.saved_flops, "share"),
            ]
        yield from (_row(name, result.arm, found, unit=unit) for name, found, unit in quantities if found)
    for arm in report.loss_parts:
        for part in arm.parts:
            yield _row(f"final loss, {part.part}", arm.arm, part.value, unit="nats per token")
            if part.gain is not None:
                yield _row(f"gain, {part.part}", arm.arm, part.gain, unit="nats per token")
    for control in report.controls:
        if control.margin:
            name = f"better than {control.control.arm}"
            yield _row(name, control.control.of, control.margin, unit="nats per token")
    for group in report.diagnostics:
        for each in group:
            yield _row("accuracy", each.arm, each.accuracy, diagnostic=each.diagnostic, unit="share")
            yield from _spread_rows(each)
    for tuned in (each for results in report.finetunes for each in results):
        yield _row("final loss", tuned.arm, tuned.final_loss, finetune=tuned.finetune, unit="nats per token")
        if tuned.perplexity is not None:
            yield _row("perplexity", tuned.arm, tuned.perplexity, finetune=tuned.finetune)
        if not tuned.is_baseline:
            yield _row("gain", tuned.arm, tuned.gain, finetune=tuned.finetune, unit="nats per token")
            if tuned.perplexity_ratio is not None:
                yield _row("perplexity ratio", tuned.arm, tuned.perplexity_ratio, finetune=tuned.finetune)
    for score in (each for results in report.evaluations for each in results):
        place = f"{score.evaluation}/{score.task}"
        yield _row(score.metric, score.arm, score.value, diagnostic=place)
        if score.gain is not None:
            yield _row(f"gain in {score.metric}", score.arm, score.gain, diagnostic=place)
    for curve in report.substitutions:
        for point in curve.points:
            for name, found in (("rate of substitution", point.rate), ("marginal rate", point.marginal)):
                if found:
                    yield _row(name, point.arm, found, tokens=point.procedural, unit="corpus per procedural token")
    for result in report.results:
        for tokens, found in [] if result.is_baseline else gain_curve(report, result):
            yield _row("gain during training", result.arm, found, tokens=tokens, unit="nats per token")
    target = report.experiment.record.target
    for steps in report.ladders:
        for rung in steps.rungs:
            yield _row(f"gain at width {rung.width}", steps.arm, rung.gain, tokens=rung.tokens, unit="nats per token")
        yield _row("gain per tenfold size", steps.arm, steps.slope, unit="nats per token")
        if steps.expected is not None and target is not None:
            yield _row(f"expected gain at {target.model}", steps.arm, steps.expected, unit="nats per token")
    for tried in report.experiment.sweeps.values():
        for cell in tried.cells:
            for seed, loss in zip(tried.seeds, cell.losses, strict=True):
                name = f"trial loss at {values_said(cell.values)}"
                value = loss if math.isfinite(loss) else ""
                yield {"source": "here", "quantity": name, "arm": tried.arm, "seed": seed, "value": value,
                       "unit": "nats per token"}  # fmt: skip
    yield from _measured(report)
    for quoted in report.published:
        yield {
            "source": f"published, {quoted.section}",
            "quantity": f"{quoted.measure}: {quoted.what}",
            "arm": quoted.arm,
            "step": "" if quoted.step is None else quoted.step,
            "value": quoted.published,
        }


def _spread_rows(result: DiagnosticResult) -> Iterator[dict[str, Any]]:
    """The final accuracy of each run, and the standard deviations; nothing without repeats."""
    if result.spread is None:
        return
    same = {"source": "here", "arm": result.arm, "diagnostic": result.diagnostic, "unit": "share"}
    for seed, runs in zip(result.seeds, result.runs, strict=True):
        for number, value in enumerate(runs, 1):
            yield {**same, "quantity": f"final accuracy of run {number}", "seed": seed, "value": value}
    for name, size in (("seeds", result.spread.between), ("runs", result.spread.within)):
        if size is not None:
            yield {**same, "quantity": f"standard deviation between {name}", "seeds": len(result.seeds), "value": size}


def _row(quantity: str, arm: str, found: Estimate, **more: Any) -> dict[str, Any]:
    ends = {} if found.low is None else {"low": found.low, "high": found.high, "method": found.method}
    return {"source": "here", "quantity": quantity, "arm": arm, "seeds": found.n, "value": found.value, **ends, **more}


def _measured(report: Report) -> Iterator[dict[str, Any]]:
    """Every validation measurement of every seed: the curves."""
    for arm, runs in report.experiment.runs.items():
        for seed, run in sorted(runs.items()):
            for tokens, loss in zip(run.curve.tokens, run.curve.loss, strict=True):
                yield _point("loss", arm, seed, float(tokens), float(loss), unit="nats per token")
            if run.by_budget is not None:
                for tokens, loss in zip(run.by_budget.tokens, run.by_budget.loss, strict=True):
                    yield _point("final loss of a budget", arm, seed, float(tokens), float(loss), unit="nats per token")
    for name, arms in report.experiment.finetunes.items():
        for arm, runs in arms.items():
            for seed, run in sorted(runs.items()):
                for tokens, loss in zip(run.curve.tokens, run.curve.loss, strict=True):
                    yield _point("loss", arm, seed, float(tokens), float(loss), finetune=name, unit="nats per token")
    for diagnostic, scores in report.experiment.scores.items():
        for arm, by_seed in scores.items():
            for seed, score in sorted(by_seed.items()):
                for at, share in zip(score.tokens, score.accuracy, strict=True):
                    yield _point("accuracy", arm, seed, at, share, diagnostic=diagnostic, unit="share")


def _point(quantity: str, arm: str, seed: int, tokens: float, value: float, **more: Any) -> dict[str, Any]:
    return {"source": "here", "quantity": quantity, "arm": arm, "tokens": tokens, "seed": seed, "value": value, **more}
