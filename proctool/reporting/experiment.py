"""An experiment's folder as curves by arm and seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from proctool.events import TryEvent
from proctool.reporting.acceptance import acceptance_notes
from proctool.reporting.compare import Run
from proctool.reporting.controls import Start
from proctool.reporting.evaluated import Results
from proctool.reporting.ladder import Rung
from proctool.reporting.measured import (
    Score,
    Setting,
    Warmup,
    joined,
    mean_score,
    run_of,
    score_of,
    setting_of,
    start_of,
    warmup_of,
)
from proctool.reporting.metrics import MetricsLog
from proctool.reporting.record import RECORD, ExperimentRecord, StageRecord, read_record
from proctool.reporting.stopped import StoppedArm, read_stopped
from proctool.reporting.sweep import SweepResult, sweeps_of
from proctool.results import HarnessScores, read_results
from proctool.training.run_state import content_of


@dataclass(frozen=True, eq=False)
class Experiment:
    """What has been measured so far. Only completed runs count; `missing` names the others."""

    folder: Path | None
    record: ExperimentRecord
    baseline: str
    runs: dict[str, dict[int, Run]]
    """Pretraining by arm and seed."""
    scores: dict[str, dict[str, dict[int, Score]]]
    """Diagnostics by name, arm and seed."""
    finetunes: dict[str, dict[str, dict[int, Run]]] = field(default_factory=dict)
    """Fine-tuning of the pretrained models by name, arm and seed; costs before fine-tuning are not counted."""
    evaluations: dict[str, dict[str, dict[int, Results]]] = field(default_factory=dict)
    """Benchmarks of the pretrained models, with or without fine-tuning, by name, arm and seed."""
    rungs: tuple[Rung, ...] = ()
    """The widths of a ladder, narrowest first; everything else is of the widest."""
    sweeps: dict[str, SweepResult] = field(default_factory=dict)
    """The finished sweeps, by the arm whose trials they are."""
    chance: dict[str, float] = field(default_factory=dict)
    """The accuracy of guessing, by diagnostic, if known."""
    missing: tuple[str, ...] = ()
    """Stages that are not complete, without those of `stopped`."""
    stopped: tuple[StoppedArm, ...] = ()
    """Arms whose later seeds were left out (`stop_hopeless`)."""
    contents: dict[str, str] = field(default_factory=dict)
    """Content hashes of artifacts, by stage key."""
    starts: dict[str, Start] = field(default_factory=dict)
    """Where each arm's weights come from."""
    warmups: dict[str, dict[int, Warmup]] = field(default_factory=dict)
    """What was spent before the pretraining, or else before the first diagnostic, by arm and seed."""
    remarks: tuple[str, ...] = ()
    """Notes on what was left out or is not fully comparable."""

    @property
    def arms(self) -> list[str]:
        """Every arm that has been measured, the baseline first."""
        groups: list[Mapping[str, object]] = [
            *self.scores.values(),
            *self.finetunes.values(),
            *self.evaluations.values(),
        ]
        known = [*self.runs, *(arm for group in groups for arm in group)]
        return sorted(dict.fromkeys(known), key=lambda arm: arm != self.baseline)


def load_experiment(folder: Path) -> Experiment:
    """The experiment in a folder made by `proctool run`. Raises RunError."""
    record = read_record(folder)
    widths = sorted(record.rungs, key=int)
    made = [_load(folder, record.rung(width)) for width in widths]
    rungs = tuple(
        Rung(int(width), record.rungs[width].parameters, each.runs) for width, each in zip(widths, made, strict=True)
    )
    return dataclasses.replace(made[-1], record=record, rungs=rungs) if made else _load(folder, record)


def _load(folder: Path, record: ExperimentRecord) -> Experiment:
    stages = record.stages
    logs: dict[str, MetricsLog] = {}
    for key, stage in stages.items():
        logs[key] = MetricsLog(folder / stage.folder)
        logs[key].update()
    done = {key for key, stage in stages.items() if _is_done(folder, stage, logs[key])}

    def warmup(key: str) -> Warmup:
        return warmup_of(logs[donor] for donor in stages[key].donors)

    runs: dict[str, dict[int, Run]] = {}
    scores: dict[str, dict[str, dict[int, Score]]] = {}
    starts: dict[str, Start] = {}
    warmups: dict[str, dict[int, Warmup]] = {}
    settings: dict[str, Setting] = {}
    finetunes: dict[str, dict[str, dict[int, Run]]] = {}
    tuned_on: dict[str, dict[str, Setting]] = {}
    evaluations: dict[str, dict[str, dict[int, Results]]] = {}
    for arm, by_seed in record.arms.items():
        for written, measured in by_seed.items():
            seed = int(written)
            keys = list(measured.budgets.values()) or ([measured.pretrain] if measured.pretrain is not None else [])
            if keys and done.issuperset(keys):
                made = [run for key in keys if (run := run_of(logs[key], warmup(key))) is not None]
                if len(made) < len(keys):
                    continue
                runs.setdefault(arm, {})[seed] = joined(made)
                starts.setdefault(arm, start_of(logs[keys[-1]], warmup(keys[-1])))
                warmups.setdefault(arm, {})[seed] = warmup(keys[-1])
                settings.setdefault(arm, setting_of(logs[keys[-1]]))
            for name, key in measured.diagnostics.items():
                if key in done:
                    each_run = (key, *takewhile(done.__contains__, measured.repeats.get(name, ())))
                    score = mean_score([score_of(logs[each], stages[each].eval_samples) for each in each_run])
                    scores.setdefault(name, {}).setdefault(arm, {})[seed] = score
                    starts.setdefault(arm, start_of(logs[key], warmup(key)))
                    warmups.setdefault(arm, {}).setdefault(seed, warmup(key))
            for name, key in measured.finetunes.items():
                tuned = run_of(logs[key], Warmup()) if key in done else None
                if tuned is not None:
                    finetunes.setdefault(name, {}).setdefault(arm, {})[seed] = tuned
                    tuned_on.setdefault(name, {}).setdefault(arm, setting_of(logs[key]))
            for name, key in measured.evaluations.items():
                benchmark = _benchmark(folder, stages[key]) if key in done else None
                if benchmark is not None:
                    evaluations.setdefault(name, {}).setdefault(arm, {})[seed] = benchmark.results
            for name, by_task in measured.tasks.items():
                if results := {task: _scores(logs[key]) for task, key in by_task.items() if key in done}:
                    evaluations.setdefault(name, {}).setdefault(arm, {})[seed] = results
    baseline = record.baseline
    stopped = tuple(each for each in read_stopped(folder) if not done.issuperset(each.stages))
    left_out = {key for each in stopped for key in each.stages}
    remarks = _drop_incomparable(runs, settings, baseline, "the losses")
    for name, arms in finetunes.items():
        remarks += _drop_incomparable(arms, tuned_on[name], baseline, f"the losses after fine-tuning on {name}")
    remarks += _drop_other_tasks(scores, baseline)
    remarks += acceptance_notes(_gates(record, logs))
    remarks += _mix_notes(record, logs)
    return Experiment(
        folder=folder,
        record=record,
        baseline=baseline,
        runs=runs,
        scores=scores,
        finetunes=finetunes,
        evaluations=evaluations,
        sweeps=sweeps_of(record, folder),
        chance=dict(record.chance),
        missing=tuple(stage.name for key, stage in stages.items() if key not in done | left_out),
        stopped=stopped,
        contents={key: found for key, stage in stages.items() if (found := _content(folder, stage, logs[key]))},
        starts={arm: _as_written(start, arm, record) for arm, start in starts.items()},
        warmups=warmups,
        remarks=tuple(remarks),
    )


def _mix_notes(record: ExperimentRecord, logs: Mapping[str, MetricsLog]) -> list[str]:
    """A note for each arm whose pretraining has procedural rows among its corpus rows."""
    notes = []
    for arm, by_seed in record.arms.items():
        ends = [logs[each.pretrain].end for each in by_seed.values() if each.pretrain is not None]
        shares = [end.procedural_tokens / end.tokens for end in ends if end is not None and end.procedural_tokens]
        if shares:
            notes.append(
                f"{arm}: {shares[0]:.2%} of its pretraining tokens are procedural rows among corpus rows; gains and "
                "savings count them as corpus tokens. Losses are on the corpus alone."
            )
    return notes


def _gates(record: ExperimentRecord, logs: Mapping[str, MetricsLog]) -> dict[str, dict[str, Sequence[TryEvent]]]:
    """By arm and key, the tries of each warm-up behind it that ended with an accepted donor."""
    found: dict[str, dict[str, Sequence[TryEvent]]] = {}
    for arm, by_seed in record.arms.items():
        behind = {
            donor for measured in by_seed.values() for key in measured.keys for donor in record.stages[key].donors
        }
        ended = [key for key in record.stages if key in behind and logs[key].end is not None]
        found[arm] = {key: logs[key].tries for key in ended if logs[key].tries}
    return found


def arm_of(folder: Path) -> str | None:
    """The arm that a stage's folder belongs to, from the experiment's record; None without a record."""
    root = folder.absolute().parent
    if not (root / RECORD).is_file():
        return None
    record = read_record(root)
    keys = {key for key, stage in record.stages.items() if stage.folder == folder.absolute().name}
    arms = (arm for arm, by_seed in record.arms.items() if any(keys & measured.keys for measured in by_seed.values()))
    return next(arms, None)


def _as_written(start: Start, arm: str, record: ExperimentRecord) -> Start:
    """The start with what the recipe says about the arm, which is more than its runs know."""
    about = record.about.get(arm)
    if about is None:
        return start
    treatment = record.treatment(about.made_from)
    treated = {"match_scale": "scale", "shuffle": "weights", "noise": "noise"}
    kind = about.control or next((kind for key, kind in treated.items() if treatment.get(key)), None)
    return dataclasses.replace(start, kind=kind, of=about.of, made_from=about.made_from)


def _drop_incomparable(
    runs: dict[str, dict[int, Run]], settings: Mapping[str, Setting], baseline: str, of: str
) -> list[str]:
    """Leave out arms whose losses are on another text or in other tokens; returns a note for each."""
    remarks = []
    for arm in [arm for arm in runs if baseline in settings]:
        differs = settings[arm].differs(settings[baseline])
        if differs is not None:
            del runs[arm]
            remarks.append(f"{arm} is left out of {of}, because they are not comparable: it has {differs}.")
    return remarks


def _drop_other_tasks(scores: Mapping[str, dict[str, dict[int, Score]]], baseline: str) -> list[str]:
    """Leave out arms whose task has other options than the baseline's; returns a note for each."""
    remarks = []
    for name, arms in scores.items():
        base = next(iter(arms.get(baseline, {}).values()), None)
        if base is None:
            continue
        for arm in list(arms):
            differs = next((said for score in arms[arm].values() if (said := score.differs(base))), None)
            if differs is not None:
                del arms[arm]
                remarks.append(f"{arm} is left out of {name}, because accuracies are not comparable: it has {differs}.")
    return remarks


def _is_done(folder: Path, stage: StageRecord, log: MetricsLog) -> bool:
    """Whether a stage has all its measurements; its weights may be gone."""
    made = _made(folder, stage)
    return log.state(made, trains=made is None) == "done"


def _content(folder: Path, stage: StageRecord, log: MetricsLog) -> str | None:
    """The content hash of a stage's artifact; None before it exists."""
    if made := _made(folder, stage):
        return content_of(made)
    return log.end.content if log.end else None


def _benchmark(folder: Path, stage: StageRecord) -> HarnessScores | None:
    """The scores in a stage's file. Raises RunError for a damaged file."""
    made = _made(folder, stage)
    lines = read_results(made) if made is not None else []
    return next((line for line in lines if isinstance(line, HarnessScores)), None)


def _scores(log: MetricsLog) -> dict[str, float]:
    """The scores of a fine-tuning on a task."""
    found = log.end.scores if log.end is not None else None
    return {name: value for name, value in (found or {}).items() if value is not None}


def _made(folder: Path, stage: StageRecord) -> Path | None:
    """The file of a stage without metrics (a transplant); None for a stage that trains."""
    return None if stage.trains or stage.artifact is None else folder / stage.folder / stage.artifact
