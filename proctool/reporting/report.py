"""The content of a report, computed once for tables, page and figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from proctool import config
from proctool.reporting.answer import answer
from proctool.reporting.compare import ArmResult, compare, margin
from proctool.reporting.controls import CONTROLS, controls
from proctool.reporting.costs import ArmCost, costs
from proctool.reporting.diagnose import DiagnosticResult, diagnose
from proctool.reporting.evaluated import EvaluationResult, evaluation_results
from proctool.reporting.experiment import Experiment
from proctool.reporting.finetuned import FinetuneResult, by_finetune
from proctool.reporting.interval import BOOTSTRAP_FROM, Estimate
from proctool.reporting.ladder import ArmLadder, ladder_verdict, ladders
from proctool.reporting.loss_parts import ArmParts, loss_parts
from proctool.reporting.published import PublishedNumber, published_numbers
from proctool.reporting.stopped import stopped_note
from proctool.reporting.substitution import Substitution, substitute
from proctool.reporting.sweep import sweep_notes
from proctool.reporting.verdict import Controlled, verdicts
from proctool.units import format_count

if TYPE_CHECKING:
    import pandas as pd

_ONE_RUN = (
    "At the crossing, an arm's learning rate is still higher than the baseline's was at the end, so a run planned for "
    "the smaller budget would do somewhat better."
)
_BUDGETS = "For arms with several budgets, each with its own schedule, the crossing is found among their final losses."
_T = (
    "Student's t, which assumes that seeds are normally distributed; so few seeds cannot confirm that. "
    "Accuracies on the log-odds scale"
)


_SMOKE = "smoke run: a few tiny steps; its numbers mean nothing"
_NO_SMOKE = "For results, run the recipe without --smoke."


@dataclass(frozen=True)
class Report:
    """The comparison, in numbers and in sentences."""

    experiment: Experiment
    results: list[ArmResult]
    """Of pretraining, the baseline first. Empty if nothing can be compared yet."""
    diagnostics: list[list[DiagnosticResult]]
    verdicts: list[str]
    notes: list[str]
    controls: list[Controlled] = field(default_factory=list)
    ladders: list[ArmLadder] = field(default_factory=list)
    """Gains by size of model, by arm."""
    substitutions: list[Substitution] = field(default_factory=list)
    finetunes: list[Sequence[FinetuneResult]] = field(default_factory=list)
    """By fine-tuning, the baseline first."""
    evaluations: list[list[EvaluationResult]] = field(default_factory=list)
    """By benchmark, task by task, the baseline first."""
    published: list[PublishedNumber] = field(default_factory=list)
    """Published numbers, each with what was measured here."""
    costs: list[ArmCost] = field(default_factory=list)
    """What each arm spends and what it resets, the baseline first."""
    loss_parts: list[ArmParts] = field(default_factory=list)
    """Parts of the final loss, the baseline first."""
    answer: str | None = None
    """The answer to the recipe's question, in one or two sentences."""

    @property
    def sentences(self) -> list[str]:
        """The answer, then the verdicts. A smoke run has neither, because its numbers mean nothing."""
        if self.experiment.record.smoke:
            return [_NO_SMOKE]
        return [*([self.answer] if self.answer else []), *self.verdicts]

    @property
    def warning(self) -> str | None:
        """A line to show before everything else, for results that mean nothing."""
        return _SMOKE if self.experiment.record.smoke else None

    @property
    def baseline(self) -> str:
        """The arm that others are compared with."""
        return self.experiment.baseline

    def as_json(self) -> dict[str, Any]:
        """The report as JSON."""
        return {
            "name": self.experiment.record.name,
            "smoke": self.experiment.record.smoke,
            "baseline": self.baseline,
            "answer": self.answer,
            "verdicts": self.verdicts,
            "notes": self.notes,
            "arms": [
                config.plain(each)
                | {"perplexity": config.plain(each.perplexity), "perplexity_ratio": config.plain(each.perplexity_ratio)}
                for each in self.results
            ],
            "costs": config.plain(self.costs),
            "loss_parts": config.plain(self.loss_parts),
            "controls": [config.plain(each.control) | {"margin": config.plain(each.margin)} for each in self.controls],
            "substitution": config.plain(self.substitutions),
            "diagnostics": [config.plain(each) for results in self.diagnostics for each in results],
            "finetunes": [
                config.plain(each)
                | {"perplexity": config.plain(each.perplexity), "perplexity_ratio": config.plain(each.perplexity_ratio)}
                for results in self.finetunes
                for each in results
            ],
            "evaluations": [config.plain(each) for results in self.evaluations for each in results],
            "ladder": config.plain(self.ladders),
            "sweeps": [
                {
                    "arm": sweep.arm,
                    "seeds": list(sweep.seeds),
                    "best": dict(sweep.winner.values),
                    "cells": [
                        {
                            "values": dict(cell.values),
                            "losses": [loss if math.isfinite(loss) else None for loss in cell.losses],
                        }
                        for cell in sweep.cells
                    ],
                }
                for sweep in self.experiment.sweeps.values()
            ],
            "published": config.plain(self.published),
            "missing": list(self.experiment.missing),
            "stopped": config.plain(self.experiment.stopped),
        }

    def to_pandas(self) -> pd.DataFrame:
        """A row per arm, as `reporting.frame` describes. Raises OptionError if pandas is not installed."""
        from proctool.reporting.frame import to_pandas

        return to_pandas(self)


def build_report(experiment: Experiment, loss: float | None = None) -> Report:
    """Compare what an experiment has measured so far; `loss` is the target (default: the baseline's final loss)."""
    base = experiment.baseline
    results = compare(experiment.runs, base, loss) if base in experiment.runs else []
    diagnostics = [
        diagnose(name, scores, base, experiment.chance.get(name)) for name, scores in experiment.scores.items()
    ]
    diagnostics = [each for each in diagnostics if each]
    tuned = by_finetune(experiment.finetunes, base)
    by_arm = {each.arm: each for each in results}
    controlled = [
        Controlled(each, by_arm[each.arm], margin(experiment.runs[each.of], experiment.runs[each.arm]))
        for each in controls(experiment.starts)
        if each.arm in by_arm and each.of in by_arm and base not in (each.arm, each.of)
    ]
    steps = ladders(experiment.rungs, base, experiment.record.target)
    controls_known = _control_words(experiment)
    # An arm that was stopped lost to the baseline; its controls were stopped with it and add nothing.
    stopped = {each.arm for each in experiment.stopped}
    asked = [each for each in controlled if each.control.of not in stopped]
    return Report(
        experiment=experiment,
        results=results,
        diagnostics=diagnostics,
        verdicts=[
            *verdicts(results, controlled, diagnostics, base, tuned),
            *(ladder_verdict(each, experiment.record.target) for each in steps if each.arm not in controls_known),
        ],
        ladders=steps,
        notes=_notes(experiment, results, diagnostics, tuned),
        controls=controlled,
        substitutions=substitute(experiment.runs, experiment.starts, base, loss) if results else [],
        finetunes=tuned,
        evaluations=evaluation_results(experiment.evaluations, base),
        published=published_numbers(experiment, results),
        costs=costs(experiment),
        loss_parts=loss_parts(experiment.runs, base),
        answer=answer(
            experiment.record.title or "", results, asked, diagnostics, controls_known, experiment.record.asks
        ),
    )


def _control_words(experiment: Experiment) -> dict[str, str]:
    """The word for each arm that is a control: "shuffled"."""
    kinds = {arm: start.control for arm, start in experiment.starts.items()}
    return {arm: CONTROLS.get(kind, kind) for arm, kind in kinds.items() if kind is not None}


def _notes(
    experiment: Experiment,
    results: Sequence[ArmResult],
    diagnostics: Sequence[Sequence[DiagnosticResult]],
    finetunes: Sequence[Sequence[FinetuneResult]],
) -> list[str]:
    notes = [*experiment.remarks, *sweep_notes(experiment.sweeps)]
    notes += [stopped_note(each, experiment.baseline) for each in experiment.stopped]
    if results:
        notes.append(_how_saved(experiment, results))
    elif experiment.runs or any(experiment.scores.values()):
        missing = experiment.baseline not in experiment.arms
        notes += [f"The baseline, {experiment.baseline}, has no finished run yet."] if missing else []
    for each in results:
        mine, base = (_budget(experiment, arm) for arm in (each.arm, results[0].arm))
        if abs(mine / base - 1) > 0.01:
            notes.append(
                f"{each.arm} has a budget of {format_count(mine)} corpus tokens, the baseline "
                f"{format_count(base)}: at equal tokens one of them has not finished its schedule. The gain is not "
                "corrected for that."
            )
    uneven = [each for each in results if set(each.seeds) != set(results[0].seeds)]
    notes += [f"{each.arm}: only over seeds {', '.join(map(str, each.seeds))}." for each in uneven]
    notes += [
        f"{each.diagnostic}, {each.arm}: only over seeds {', '.join(map(str, each.seeds))}."
        for group in diagnostics
        for each in group
        if set(each.seeds) != set(group[0].seeds)
    ]
    estimates = [each.gain for each in results if not each.is_baseline]
    estimates += [each.accuracy for group in diagnostics for each in group]
    estimates += [each.gain for group in finetunes for each in group if not each.is_baseline]
    return notes + _how_sure(estimates)


def _budget(experiment: Experiment, arm: str) -> float:
    return max(run.compared.end for run in experiment.runs[arm].values())


def _how_saved(experiment: Experiment, results: Sequence[ArmResult]) -> str:
    given = results[0].given_loss
    target = f"a loss of {results[0].target_loss:.3f}" if given else "the baseline's final loss"
    several = any(run.by_budget is not None for runs in experiment.runs.values() for run in runs.values())
    how = _BUDGETS if several else _ONE_RUN
    return (
        f"Saved: corpus tokens to {target}, compared with the baseline, at the first crossing of the running minimum "
        f"of validation loss, interpolated in log tokens. {how} Saved in total: warm-up tokens are counted too. "
        "Gain: the baseline's loss minus the arm's at equal corpus tokens, in nats per token."
    )


def _how_sure(estimates: Sequence[Estimate]) -> list[str]:
    counts = sorted({each.n for each in estimates if each.method})
    if not counts:
        return ["One seed each: there are no intervals, and another seed may give another result."] if estimates else []
    methods = []
    if counts[0] < BOOTSTRAP_FROM:
        methods.append(_T)
    if counts[-1] >= BOOTSTRAP_FROM:
        methods.append("bootstrap over seeds, percentiles widened for small samples")
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return [
        f"Brackets: 95 % intervals of the mean over {seeds} seeds, paired with the baseline ({'; '.join(methods)})."
    ]


def seeds_of(runs: Mapping[int, Any]) -> str:
    """The seeds as words."""
    return ", ".join(map(str, sorted(runs)))
