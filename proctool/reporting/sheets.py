"""A report's tables as text in cells, independent of the output format (see render.py, page.py)."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from proctool.reporting.compare import ArmResult, Run
from proctool.reporting.controls import Start
from proctool.reporting.costs import ArmCost
from proctool.reporting.diagnostic_sheets import accuracy, diagnostics, spread
from proctool.reporting.evaluated import SHARES
from proctool.reporting.finetuned import FinetuneResult
from proctool.reporting.interval import Estimate, estimate
from proctool.reporting.loss_part_sheet import loss_part_sheet
from proctool.reporting.published import shown
from proctool.reporting.report import Report
from proctool.reporting.sheet import NONE, Sheet
from proctool.reporting.sweep_sheets import ladder, sweep
from proctool.reporting.verdict import with_interval
from proctool.units import format_count

_PARTS = (1 / 8, 1 / 4, 1 / 2, 1.0)
"""Shares of the corpus budget at which losses are listed; the paper lists steps 1100, 2100, 5100 and 10000."""

_KEPT = {None: "", "scale": " (scale kept)", "mean": " (mean kept)", "sample": " (rows sampled)", "part": " (in part)"}
_BRIEF = 22
"""Characters in a line of resets on a terminal, so that the table fits 80 columns."""


def summary(report: Report, brief: bool = False) -> Sheet:
    """A row per arm with the main numbers; `brief` omits intervals of losses and decimals of accuracies."""
    base = report.baseline
    heads = ["arm"]
    if report.results:
        given = report.results[0].given_loss
        target = f"{report.results[0].target_loss:.3f}" if given else f"{base}'s loss"
        heads += ["final loss", "gain", f"tokens to {target}", "saved", "saved in total"]
    sweeps = report.experiment.sweeps
    heads += ["cells tried"] if sweeps else []
    heads += [f"{each[0].diagnostic} accuracy" for each in report.diagnostics]
    by_arm = {result.arm: result for result in report.results}
    scores = [{result.arm: result for result in each} for each in report.diagnostics]
    rows = []
    for arm in report.experiment.arms:
        if arm not in by_arm and not any(arm in score for score in scores):
            continue
        cells = [arm]
        if report.results:
            cells += _loss_cells(by_arm.get(arm), brief)
        if sweeps:
            cells.append(str(len(sweeps[arm].cells)) if arm in sweeps else NONE)
        rows.append((*cells, *(accuracy(score.get(arm), 0 if brief else 1) for score in scores)))
    drop = tuple(each for each in (*heads[5:6], *heads[3:4], *heads[1:2])) if report.results else ()
    return Sheet("summary", "Summary", tuple(heads), tuple(rows), drop=drop)


def sheets(report: Report) -> list[Sheet]:
    """Every table that has rows, the summary first."""
    made = [summary(report), cost(report), saved(report), losses(report), loss_part_sheet(report)]
    made += [
        diagnostics(report),
        spread(report),
        components(report),
        ladder(report),
        sweep(report),
        substitution(report),
        *finetuned(report),
        *evaluated(report),
    ]
    made.append(published(report))
    return [each for each in made if each.rows]


def cost(report: Report, brief: bool = False) -> Sheet:
    """What each arm spends and resets; `brief` breaks lines. No rows if no arm was warmed up."""
    heads = ("arm", "reset", "procedural tokens", "corpus tokens", "FLOPs")
    rows = [
        (
            each.arm,
            textwrap.fill(_resets(each), _BRIEF) if brief else _resets(each),
            _amount(each.procedural_tokens),
            _amount(each.natural_tokens),
            NONE if not each.flops else f"{each.flops:.1e}",
        )
        for each in report.costs
    ]
    warmed = any(each.resets or each.procedural_tokens or each.text_tokens for each in report.costs)
    note = (
        "Reset: what starts fresh after the warm-up. Corpus tokens include those of a warm-up on text. "
        "FLOPs: warm-ups and pretraining."
    )
    return Sheet("cost", "Cost of each arm", heads, tuple(rows) if warmed else (), note, words=2, drop=("FLOPs",))


def _resets(cost: ArmCost) -> str:
    """optimiser, positions; attention, mlp (scale kept)."""
    by_kept: dict[str | None, list[str]] = {}
    for each in cost.resets or ():
        by_kept.setdefault(each.keeps, []).append(each.what)
    parts = [f"{', '.join(names)}{_KEPT.get(kept, f' ({kept})')}" for kept, names in by_kept.items()]
    return "; ".join(parts) or NONE


def _amount(tokens: float | None) -> str:
    return NONE if not tokens else format_count(tokens)


def saved(report: Report) -> Sheet:
    """Tokens to the target loss, and the saved share of tokens and FLOPs."""
    heads = ("arm", "seeds", "warm-up tokens", "corpus tokens", "saved", "saved in total", "FLOPs saved")
    rows = [
        (
            each.arm,
            str(len(each.seeds)),
            NONE if each.warmup_tokens is None else format_count(each.warmup_tokens),
            _tokens(each),
            *([NONE] * 3 if each.is_baseline else [_share(each, each.saved), _percent(each.saved_total)]),
            *([] if each.is_baseline else [_percent(each.saved_flops)]),
        )
        for each in report.results
    ]
    if not report.results:
        return Sheet("saved", "", heads, ())
    first = report.results[0]
    target = f"a loss of {first.target_loss:.3f}" if first.given_loss else f"{first.arm}'s final loss"
    return Sheet("saved", f"Corpus tokens to {target}", heads, tuple(rows) if len(rows) > 1 else ())


def losses(report: Report) -> Sheet:
    """Perplexity at equal corpus tokens, during training and at the end; the gain in nats and as a ratio."""
    runs = {each.arm: [report.experiment.runs[each.arm][seed] for seed in each.seeds] for each in report.results}
    marks = _marks([run for of in runs.values() for run in of])
    heads = ("arm", *(f"perplexity at {format_count(mark)}" for mark in marks), "gain in nats", "ratio of perplexities")
    rows = [
        (
            each.arm,
            *(_perplexity(runs[each.arm], mark) for mark in marks),
            *([NONE] * 2 if each.is_baseline else [_nats(each.gain), _ratio(each.perplexity_ratio)]),
        )
        for each in report.results
    ]
    return Sheet("loss", "Validation perplexity at equal corpus tokens", heads, tuple(rows))


def _marks(runs: Sequence[Run]) -> list[float]:
    """Tokens that every run has seen: the budgets if there are several, else fractions of the smallest budget."""
    if not runs:
        return []
    most = min(run.compared.end for run in runs)
    least = max(float(run.compared.tokens[0]) for run in runs)
    budgets = sorted({float(each) for run in runs if run.by_budget for each in run.by_budget.tokens})
    return [mark for mark in (budgets or [part * most for part in _PARTS]) if max(least, 1) <= mark <= most]


def _perplexity(runs: Sequence[Run], tokens: float) -> str:
    found = estimate([run.compared.loss_at(tokens) for run in runs]).exponential
    return NONE if found is None else shown("perplexity", found)


def _ratio(found: Estimate | None) -> str:
    return NONE if found is None else with_interval(found, 1, 3, "")


def finetuned(report: Report, brief: bool = False) -> list[Sheet]:
    """Loss and perplexity after each fine-tuning, with its gain and the gain at the end of pretraining.

    `brief` puts the title into the first head, for output without titles.
    """
    before = {each.arm: each for each in report.results}
    columns = ("seeds", "final loss", "perplexity", "gain", "ratio of perplexities", "gain before")
    made = []
    for place, results in enumerate(report.finetunes, 1):
        rows = tuple(_finetuned_row(each, before.get(each.arm)) for each in results)
        title = f"After fine-tuning on {results[0].finetune}"
        heads = (title if brief else "arm", *columns)
        note = "Losses and gains in nats per token; gain before: at the end of pretraining, on the pretraining corpus."
        drop = ("seeds", "gain before", "ratio of perplexities", "perplexity")
        made.append(Sheet(f"finetuned-{place}", title, heads, rows, note, drop=drop))
    return made


def _finetuned_row(result: FinetuneResult, before: ArmResult | None) -> tuple[str, ...]:
    perplexity = NONE if result.perplexity is None else shown("perplexity", result.perplexity)
    cells = (result.arm, str(len(result.seeds)), _nats(result.final_loss), perplexity)
    if result.is_baseline:
        return (*cells, NONE, NONE, NONE)
    ratio = _ratio(result.perplexity_ratio)
    return (*cells, _nats(result.gain), ratio, NONE if before is None else _nats(before.gain))


def evaluated(report: Report, brief: bool = False) -> list[Sheet]:
    """A table per benchmark: a row per task and a column per arm. `brief` as for `finetuned`."""
    made = []
    for place, results in enumerate(report.evaluations, 1):
        arms = dict.fromkeys(each.arm for each in results)
        cells: dict[tuple[str, str], dict[str, str]] = {}
        for each in results:
            form = (100, 1, " %") if each.metric in SHARES else (1, 3, "")
            cells.setdefault((each.task, each.metric), {})[each.arm] = with_interval(each.value, *form)
        rows = tuple((*task, *(found.get(arm, NONE) for arm in arms)) for task, found in cells.items())
        title = f"Benchmark {results[0].evaluation}"
        heads = (title if brief else "task", "metric", *arms)
        note = "Means over seeds. An interval says how seeds differ; a task with few samples has its own error too."
        made.append(Sheet(f"evaluated-{place}", title, heads, rows, note, words=2, drop=("metric",)))
    return made


def components(report: Report) -> Sheet:
    """Arms by the components that they carry over, if arms differ in that."""
    starts = {arm: report.experiment.starts.get(arm) for arm in report.experiment.arms}
    warmed = {arm: start for arm, start in starts.items() if start is not None and _warmed_on(start)}
    names = [each[0].diagnostic for each in report.diagnostics]
    heads = ["arm", "warmed up on", "carried over", *(["gain in nats"] if report.results else [])]
    if len({start.components for start in warmed.values()}) < 2:
        return Sheet("components", "", tuple(heads), ())
    gains = {each.arm: each for each in report.results}
    by_name = [{result.arm: result for result in each} for each in report.diagnostics]
    rows = []
    for arm, start in starts.items():
        cells = [arm, NONE, NONE]
        if start is not None and (on := _warmed_on(start)):
            cells = [arm, on, ", ".join(start.components) or "nothing"]
        if report.results:
            result = gains.get(arm)
            cells.append(NONE if result is None or result.is_baseline else _nats(result.gain))
        rows.append((*cells, *(accuracy(results.get(arm), 1) for results in by_name)))
    return Sheet("components", "Effect by carried components", (*heads, *names), tuple(rows), words=3)


def _warmed_on(start: Start) -> str:
    return " + ".join((*start.tasks, *(f"text of {each}" for each in start.corpora)))


def substitution(report: Report) -> Sheet:
    """The substitutive curve: corpus tokens needed against procedural tokens, and the rates of substitution."""
    heads = ("arm", "procedural tokens", "corpus tokens needed", "replaced per procedural token", "marginal rate")
    rows: list[tuple[str, ...]] = []
    for each in report.substitutions:
        if report.experiment.starts[each.points[0].arm].control is not None:
            continue  # the other tables have their savings
        rows.append((report.baseline, "0", _count(each.corpus_alone), NONE, NONE))
        for point in each.points:
            needed = _reached(point.reached, len(each.seeds)) if point.corpus is None else _count(point.corpus)
            rates = [_rate(point.rate), _rate(point.marginal)]
            if point.at_least:
                needed = f"\N{LESS-THAN OR EQUAL TO} {needed}"
                rates = [each if each == NONE else f"\N{GREATER-THAN OR EQUAL TO} {each}" for each in rates]
            rows.append((point.arm, format_count(point.procedural), needed, *rates))
    unique = tuple(dict.fromkeys(rows))
    return Sheet("substitution", "Corpus tokens for the same loss, against procedural tokens", heads, unique)


def published(report: Report) -> Sheet:
    """Published numbers with their sources, next to what was measured here."""
    rows = [
        (
            each.what + (f", step {each.step}" if each.step is not None else ""),
            each.section,
            each.arm,
            shown(each.measure, each.published),
            NONE if each.here is None else shown(each.measure, each.here),
        )
        for each in report.published
    ]
    note = "Published numbers are quoted, not measured here. Models, data and budgets differ if the recipe differs."
    scored = dict.fromkeys(f"{each.what} ({each.scoring})" for each in report.published if each.scoring)
    if scored:
        note += (
            " The published code scores arithmetic with another mask (official: without the answer's first digit, with "
            f"the padding after it). These are scored differently here and are not comparable: {', '.join(scored)}."
        )
    heads = ("what", "source", "arm", "published", "measured here")
    return Sheet("published", "Published and measured numbers", heads, tuple(rows), note, words=3)


def _loss_cells(result: ArmResult | None, brief: bool) -> list[str]:
    if result is None:
        return [NONE] * 5
    loss, gain = _nats(result.final_loss), _nats(result.gain)
    if brief:
        loss, gain = loss.partition(" [")[0], gain.partition(" [")[0]
    if result.is_baseline:
        return [loss, NONE, _tokens(result), NONE, NONE]
    total = _percent(result.saved_total)
    return [loss, gain, _tokens(result), _share(result, result.saved), total.partition(" [")[0] if brief else total]


def _tokens(result: ArmResult) -> str:
    if result.tokens is not None:
        return format_count(result.tokens.value)
    return _reached(result.reached, len(result.seeds))


def _reached(reached: int, seeds: int) -> str:
    return f"in {reached} of {seeds}" if reached else "never"


def _share(result: ArmResult, found: Estimate | None) -> str:
    return ("\N{GREATER-THAN OR EQUAL TO} " if result.at_least and found is not None else "") + _percent(found)


def _percent(found: Estimate | None) -> str:
    return NONE if found is None else with_interval(found, 100)


def _nats(found: Estimate) -> str:
    return with_interval(found, 1, 3, "")


def _count(found: Estimate) -> str:
    if found.low is None or found.high is None or found.low == found.high:
        return format_count(found.value)
    text = f"{format_count(found.value)} [{format_count(found.low)}, {format_count(found.high)}]"
    return text.replace("-", "\N{MINUS SIGN}")


def _rate(found: Estimate | None) -> str:
    if found is None:
        return NONE
    digits = 0 if not found.value else min(3, max(0, 1 - math.floor(math.log10(abs(found.value)))))
    return with_interval(found, 1, digits, "")
