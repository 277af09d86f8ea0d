"""One self-contained HTML page: verdicts, interactive curves, tables, and how to reproduce them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from proctool import __version__, artifact
from proctool.reporting.compare import ArmResult
from proctool.reporting.interval import Estimate
from proctool.reporting.report import Report, seeds_of
from proctool.reporting.sheet import Sheet
from proctool.reporting.sheets import evaluated, finetuned, sheets, summary
from proctool.reporting.substitution import Substitution
from proctool.reporting.verdict import with_interval
from proctool.units import format_count

_MANY = 6
"""With more arms than this, charts hide controls at first."""


def write_page(report: Report, path: Path) -> Path:
    """Write the page atomically. Raises OSError."""
    with artifact.replacing(path) as file:
        file.write(page(report).encode())
    return path


def page(report: Report) -> str:
    """The page's HTML."""
    record = report.experiment.record
    title = record.title or record.name or f"Runs compared with {report.baseline}"
    return Template(_file("page.html")).substitute(
        version=escape(__version__),
        title=escape(title.replace("`", "")),
        heading=re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(title)),
        subtitle=escape(_subtitle(report)),
        baseline=escape(report.baseline),
        warning=_warnings(report),
        verdicts="\n".join(map(_verdict, report.sentences or ["Nothing to compare yet."])),
        tables=_tables(report),
        finetuned="".join(map(_section, [*finetuned(report), *evaluated(report)])),
        published="".join(_section(each, "published") for each in sheets(report) if each.name == "published"),
        notes="\n".join(f'<p class="note">{escape(each)}</p>' for each in report.notes),
        details=_details(report),
        css=_file("page.css"),
        js=_file("page.js"),
        # A script element ends at the first `</`, even inside a string.
        data=json.dumps(_data(report)).replace("</", "<\\/"),
    )


def _file(name: str) -> str:
    return (resources.files("proctool.reporting") / name).read_text(encoding="utf-8")


def _subtitle(report: Report) -> str:
    record = report.experiment.record
    recipe = record.recipe
    parts = [f"model {recipe['model']}"] if "model" in recipe else []
    if recipe.get("corpus"):
        parts.append(f"corpus {recipe['corpus']}")
    first = report.experiment.runs.get(report.baseline, {})
    if first:
        parts.append(f"{format_count(max(run.curve.tokens[-1] for run in first.values()))} corpus tokens")
        parts.append(f"seed{'s' if len(first) > 1 else ''} {seeds_of(first)}")
    parts.append(str(record.environment.get("started", "")))
    return " \N{MIDDLE DOT} ".join(filter(None, parts))


def _verdict(said: str) -> str:
    """The first sentence is the answer and is bold; the others qualify it."""
    first, stop, rest = said.partition(". ")
    return f"<p><b>{_text(first)}.</b> {_text(rest)}</p>" if stop else f"<p><b>{_text(said)}</b></p>"


def _warnings(report: Report) -> str:
    lines = [report.warning] if report.warning else []
    if missing := report.experiment.missing:
        lines.append(f"These stages are not finished and are left out: {', '.join(missing)}.")
    return "\n".join(f'<section class="warning"><p>{escape(line)}</p></section>' for line in lines)


def _data(report: Report) -> dict[str, Any]:
    """What the page's script draws."""
    experiment = report.experiment
    arms = experiment.arms
    results = {result.arm: result for result in report.results}
    return {
        "baseline": report.baseline,
        "arms": arms,
        "controls": _controls(report),
        "loss": {
            "target": results[report.baseline].target_loss if results else None,
            "arms": _curves(
                (arm, {seed: (run.curve.tokens, run.curve.loss) for seed, run in experiment.runs[arm].items()})
                for arm in arms
                if arm in results
            ),
            "budgets": [
                {"arm": arm, "seed": seed, "points": list(map(list, zip(budgets.tokens, budgets.loss, strict=True)))}
                for arm in results
                for seed, run in experiment.runs[arm].items()
                if (budgets := run.by_budget) is not None
            ],
            "marks": [
                {"arm": arm, "tokens": result.tokens.value}
                for arm, result in results.items()
                if result.tokens is not None and not result.is_baseline
            ],
        },
        "substitution": [
            {
                "name": curve.points[-1].arm,
                "alone": curve.corpus_alone.value,
                "runs": [
                    {"seed": seed, "points": [[0.0, alone], *([x, y[place]] for x, y in _reached(curve))]}
                    for place, (seed, alone) in enumerate(zip(curve.seeds, curve.alone, strict=True))
                ],
            }
            for curve in report.substitutions
            if curve.has_lengths and _reached(curve)
        ],
        "savings": [{"arm": arm, "bars": _bars(each)} for arm, each in results.items() if not each.is_baseline],
        "diagnostics": [
            {
                "name": name,
                "chance": experiment.chance.get(name),
                "arms": _curves(
                    (arm, {seed: (score.tokens, score.accuracy) for seed, score in scores[arm].items()})
                    for arm in arms
                    if arm in scores
                ),
            }
            for name, scores in experiment.scores.items()
        ],
    }


def _curves(arms: Iterable[tuple[str, Mapping[int, tuple[Iterable[float], Iterable[float]]]]]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "runs": [
                {"seed": seed, "points": [[float(x), round(float(y), 6)] for x, y in zip(*curve, strict=True)]}
                for seed, curve in sorted(runs.items())
            ],
        }
        for name, runs in arms
    ]


def _controls(report: Report) -> list[str]:
    """Control arms that charts hide until they are selected, if there are many arms."""
    arms = report.experiment.arms
    controls = [arm for arm in arms if (start := report.experiment.starts.get(arm)) is not None and start.control]
    return [arm for arm in controls if arm != report.baseline] if len(arms) > _MANY else []


def _reached(curve: Substitution) -> list[tuple[float, tuple[float, ...]]]:
    """The points that every seed reaches: procedural tokens, and corpus tokens by seed."""
    return [(point.procedural, point.needed) for point in curve.points if point.needed is not None]


def _bars(result: ArmResult) -> list[dict[str, Any]]:
    bars = [_bar("corpus tokens", "corpus", result.saved, strong=True)]
    if result.saved is None:
        reached = f"reached in {result.reached} of {len(result.seeds)} seeds" if result.reached else "never reached"
        bars[0]["said"] = reached
    if result.saved_total is not None and result.warmup_tokens:
        bars.append(_bar("including warm-up tokens", "+ warm-up", result.saved_total))
    if result.saved_flops is not None:
        bars.append(_bar("FLOPs, including the warm-up", "FLOPs", result.saved_flops))
    return bars


def _bar(name: str, short: str, found: Estimate | None, strong: bool = False) -> dict[str, Any]:
    if found is None:
        return {"name": name, "short": short, "value": None, "low": None, "high": None, "said": "", "strong": strong}
    said = with_interval(found, 100)
    return {
        "name": name,
        "short": short,
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "said": said,
        "strong": strong,
    }


def _tables(report: Report) -> str:
    """The summary, then every other table behind a fold."""
    first, *others = sheets(report) or [summary(report)]
    parts = [_noted(first)]
    parts += [
        _fold(each.title, _noted(each))
        for each in others
        if not each.name.startswith(("published", "finetuned", "evaluated"))
    ]
    return "\n".join(parts)


def _noted(sheet: Sheet) -> str:
    return _scrolling(sheet) + (f'<p class="note">{escape(sheet.note)}</p>' if sheet.note else "")


def _section(sheet: Sheet, kind: str = "finetuned") -> str:
    """A section of its own: published numbers are never in a table with measured ones."""
    said = f"<h2>{escape(sheet.title)}</h2><p class='sub'>{escape(sheet.note)}</p>"
    return f"<section class='{kind}'>{said}{_scrolling(sheet)}</section>"


def _scrolling(sheet: Sheet) -> str:
    # A table may be wider than a phone, so it scrolls by itself, also by keyboard.
    label = escape(sheet.title, quote=True)
    table = _table(sheet.heads, sheet.rows, sheet.words)
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">{table}</div>'


def _table(heads: Sequence[str], body: Iterable[Sequence[str]], words: int = 1) -> str:
    """A table whose first `words` columns are text."""

    def row(cells: Sequence[str], tag: str, show: Callable[[str], str]) -> str:
        kinds = [" class='words'" if 0 < place < words else "" for place in range(len(cells))]
        made = (f"<{tag}{kind}>{show(cell)}</{tag.split()[0]}>" for cell, kind in zip(cells, kinds, strict=True))
        return f"<tr>{''.join(made)}</tr>"

    lines = "".join(row(cells, "td", _cell) for cells in body)
    return f"<table><thead>{row(heads, 'th scope=col', escape)}</thead><tbody>{lines}</tbody></table>"


def _cell(text: str) -> str:
    """An interval goes under its mean."""
    mean, bracket, interval = text.partition(" [")
    return _text(mean) + (f"<small>[{_text(interval)}</small>" if bracket else "")


def _text(words: str) -> str:
    """Escaped, with numbers kept on one line with their units and intervals whole."""
    return re.sub(r"(?<=\d) (?=[%\[])|(?<=\d,) (?=[\d\N{MINUS SIGN}.]+\])", "&nbsp;", escape(words))


def _details(report: Report) -> str:
    """The recipe, the environment, the commands and the lineage, each behind a fold."""
    experiment = report.experiment
    record = experiment.record
    stages = record.stages
    parts = []
    if record.source:
        parts.append(_fold("Recipe", f"<pre>{escape(record.source.strip())}</pre>", is_open=True))
    if stages:
        commands = "\n\n".join(shlex.join(stage.command) for stage in stages.values())
        whole = f"<p class='sub'>The whole experiment:</p><pre>{escape(record.command)}</pre>"
        each = f"<p class='sub'>Or stage by stage:</p><pre class='wrap'>{escape(commands)}</pre>"
        parts.append(_fold("Commands to reproduce", whole + each))
        lineage = [
            [
                stage.name,
                experiment.contents.get(key, "")[:16] or "\N{EN DASH}",
                ", ".join(stages[parent].name for parent in stage.inputs) or "fresh weights",
                format_count(stage.tokens),
            ]
            for key, stage in stages.items()
        ]
        table = _table(["stage", "artifact content", "starts from", "tokens"], lineage)
        parts.append(
            _fold("Lineage", f'<div class="scroll" tabindex="0" role="region" aria-label="Lineage">{table}</div>')
        )
    if record.environment:
        items = "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in record.environment.items())
        parts.append(_fold("Environment", f"<dl>{items}</dl>"))
    return "\n".join(parts) or "<p class='sub'>Made by <code>proctool compare</code> from run folders.</p>"


def _fold(title: str, content: str, is_open: bool = False) -> str:
    return f"<details{' open' if is_open else ''}><summary>{escape(title)}</summary>{content}</details>"
