"""Everything a report says, computed once and shown by the table, the page and the figures alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proctool import config
from proctool.reporting.compare import ArmResult, compare
from proctool.reporting.diagnose import DiagnosticResult, diagnose
from proctool.reporting.experiment import Experiment
from proctool.reporting.verdict import verdicts

NOTE_SAVED = (
    "Saved: corpus tokens to the baseline's final loss, against the baseline's own, from the first crossing of the "
    "running minimum, interpolated in log tokens. Every arm follows its whole schedule; at the crossing its learning "
    "rate is still higher than the baseline's was at the end: a run planned for the smaller budget would do somewhat "
    "better. Total: with the warm-up's own tokens counted as spent. Gain: the baseline's final loss minus the arm's."
)


@dataclass(frozen=True)
class Report:
    """The comparison, in numbers and in sentences."""

    experiment: Experiment
    results: list[ArmResult]
    """Of pretraining, the baseline first. Empty where nothing can be compared yet."""
    diagnostics: list[list[DiagnosticResult]]
    verdicts: list[str]
    notes: list[str]

    @property
    def baseline(self) -> str:
        """The arm that others are compared with."""
        return self.experiment.baseline

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "name": self.experiment.record.get("name"),
            "baseline": self.baseline,
            "verdicts": self.verdicts,
            "arms": config.plain(self.results),
            "diagnostics": [config.plain(each) for results in self.diagnostics for each in results],
            "missing": list(self.experiment.missing),
        }


def build_report(experiment: Experiment) -> Report:
    """Compare what an experiment has measured so far."""
    base = experiment.baseline
    results = compare(experiment.runs, base) if base in experiment.runs else []
    diagnostics = [
        diagnose(name, scores, base, experiment.chance.get(name)) for name, scores in experiment.scores.items()
    ]
    diagnostics = [each for each in diagnostics if each]
    return Report(experiment, results, diagnostics, verdicts(results, diagnostics, base), _notes(results))


def _notes(results: list[ArmResult]) -> list[str]:
    if not results:
        return []
    notes = [NOTE_SAVED]
    methods = sorted({each.gain.method for each in results if each.gain.method})
    if methods:
        notes.append(
            f"Brackets: 95 % intervals of the mean over seeds, paired with the baseline's ({', '.join(methods)})."
        )
    elif any(not each.is_baseline for each in results):
        notes.append("One seed each: there is no interval, and another seed may give another answer.")
    return notes


def seeds_of(runs: Mapping[int, Any]) -> str:
    """The seeds as words."""
    return ", ".join(map(str, sorted(runs)))
