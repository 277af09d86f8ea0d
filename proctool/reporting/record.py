"""`experiment.json`: what an experiment's folder records about itself, so that reports do not need the recipe.

`experiment/record.py` writes it. People exchange folders, so it is checked before a report uses it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proctool.errors import RunError
from proctool.events import FILE
from proctool.recipe import Published
from proctool.untrusted import Malformed, parse_json, typed

RECORD = "experiment.json"


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """One stage."""

    name: str
    folder: str
    """Name inside the experiment's folder."""
    command: tuple[str, ...]
    donor: str | None
    """The key of its first warm-up, possibly through transplants."""
    warmups: tuple[str, ...] | None = None
    """The keys of all its warm-ups (a weight mixture has several); None in old records, which have only `donor`."""
    parents: tuple[str, ...] | None = None
    """The stages whose artifacts it reads; None in old records, which have only `donor`."""
    trains: bool = True
    """Whether it writes metrics."""
    artifact: str | None = None
    steps: int = 0
    tokens: int
    eval_samples: int | None = None

    @property
    def donors(self) -> tuple[str, ...]:
        """The keys of its warm-ups."""
        return self._or_donor(self.warmups)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The keys of the stages whose artifacts it reads."""
        return self._or_donor(self.parents)

    def _or_donor(self, keys: tuple[str, ...] | None) -> tuple[str, ...]:
        return keys if keys is not None else (self.donor,) if self.donor else ()


@dataclass(frozen=True, kw_only=True)
class SeedRecord:
    """The keys of the stages that measure an arm with one seed."""

    pretrain: str | None
    """The one with the largest budget."""
    budgets: Mapping[str, str] = field(default_factory=dict)
    """Pretraining by share of the steps."""
    diagnostics: Mapping[str, str]
    finetunes: Mapping[str, str] = field(default_factory=dict)
    tasks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Fine-tuning on tasks, by name and task."""
    evaluations: Mapping[str, str] = field(default_factory=dict)
    repeats: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Further runs of the diagnostics from the same start, by name."""

    @property
    def keys(self) -> set[str]:
        """All of them."""
        pretrained = {self.pretrain} if self.pretrain is not None else set()
        others = (self.budgets, self.diagnostics, self.finetunes, *self.tasks.values(), self.evaluations)
        return pretrained.union(*(each.values() for each in others), *self.repeats.values())


@dataclass(frozen=True, kw_only=True)
class ArmRecord:
    """What an arm is."""

    made_from: str
    """The arm in the recipe that it is a variant of."""
    control: str | None
    of: tuple[str, ...]
    """The arms that it is a control of."""
    procedural_tokens: int = 0
    text_tokens: int = 0
    """Tokens of a warm-up on natural text."""


@dataclass(frozen=True, kw_only=True)
class CellRecord:
    """One cell of a sweep."""

    values: Mapping[str, float]
    """By name: lr, init_std, dose."""
    trials: Mapping[str, str]
    """Keys of the stages by seed."""


@dataclass(frozen=True, kw_only=True)
class ChoiceRecord:
    """What a sweep decides for an arm."""

    stage: str
    """The key of the stage that chooses."""
    groups: Mapping[str, tuple[CellRecord, ...]]
    """By arm: cells, of which the best one is chosen by that arm's trials."""
    combinations: tuple[tuple[int, ...], ...]
    """The places of the cells in each group."""
    files: Mapping[str, tuple[Mapping[str, Any], ...]]
    """Options by file name and combination."""


@dataclass(frozen=True, kw_only=True)
class RungRecord:
    """One width of a ladder. Arms have their plain names."""

    parameters: int
    """Without embeddings."""
    arms: Mapping[str, Mapping[str, SeedRecord]]
    about: Mapping[str, ArmRecord] = field(default_factory=dict)
    choices: Mapping[str, ChoiceRecord] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LadderTarget:
    """The model that a ladder extrapolates to."""

    model: str
    parameters: int
    """Without embeddings."""


def rung_name(arm: str, width: int | str) -> str:
    """The name of an arm at one width of a ladder, in the names of stages."""
    return f"{arm}-w{width}"


@dataclass(frozen=True, kw_only=True)
class ExperimentRecord:
    """The whole record. For runs compared without an experiment, only the baseline is set."""

    format: int = 1
    name: str | None = None
    title: str | None = None
    asks: str | None = None
    """What the title asks about: pretraining or a diagnostic."""
    baseline: str
    setting: str | None = None
    seeds: tuple[int, ...] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    published: tuple[Published, ...] | None = None
    source: str = ""
    """The recipe as it was written."""
    command: str = ""
    smoke: bool = False
    """Whether the recipe was shrunk to test it (`--smoke`)."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    stages: Mapping[str, StageRecord]
    """By key."""
    chance: Mapping[str, float] = field(default_factory=dict)
    """The accuracy of guessing, by diagnostic."""
    about: Mapping[str, ArmRecord] = field(default_factory=dict)
    arms: Mapping[str, Mapping[str, SeedRecord]]
    """By arm and seed."""
    choices: Mapping[str, ChoiceRecord] = field(default_factory=dict)
    """By arm that a sweep decides on."""
    rungs: Mapping[str, RungRecord] = field(default_factory=dict)
    """By width, with a ladder; the other fields describe the widest."""
    target: LadderTarget | None = None

    def rung(self, width: str) -> ExperimentRecord:
        """The record of one width."""
        rung = self.rungs[width]
        return dataclasses.replace(self, arms=rung.arms, about=rung.about, choices=rung.choices, rungs={})

    @property
    def all_choices(self) -> dict[str, ChoiceRecord]:
        """The choices by the name that their stages use."""
        if not self.rungs:
            return dict(self.choices)
        return {
            rung_name(arm, width): choice for width, rung in self.rungs.items() for arm, choice in rung.choices.items()
        }

    def treatment(self, arm: str) -> Mapping[str, Any]:
        """The recipe's treatment of the weights that the arm takes."""
        return self._written(arm, "treatment")

    def donors(self, arm: str) -> tuple[str, ...]:
        """The components that have a donor, if the arm is a weight mixture."""
        return tuple(self._written(arm, "donors"))

    def _written(self, arm: str, key: str) -> Mapping[str, Any]:
        found: Any = self.recipe
        for each in ("arms", arm, key):
            found = found.get(each) if isinstance(found, Mapping) else None
        return found if isinstance(found, Mapping) else {}


def read_record(folder: Path) -> ExperimentRecord:
    """The record in an experiment's folder. Raises RunError."""
    path = folder / RECORD
    if folder.is_file():
        raise RunError(f"{folder}: is a file; give the experiment's folder")
    if not folder.is_dir():
        raise RunError(f"{folder}: no such experiment folder")
    if not path.is_file():
        if (folder / FILE).is_file():
            raise RunError(f"{folder}: is the folder of one run, not of an experiment; use `proctool compare` for runs")
        raise RunError(
            f"{folder}: is not the folder of an experiment ({RECORD} is missing); `proctool run` creates one"
        )
    try:
        record: ExperimentRecord = typed(ExperimentRecord, parse_json(path.read_bytes()))
        wrong = next(_contradictions(record), None)
    except ValueError as error:
        wrong = str(error) if isinstance(error, Malformed) else "not valid JSON"
    if wrong:
        raise RunError(
            f"{path}: damaged, or from another version of proctool ({wrong}); run the command that made this folder "
            "again (`proctool run RECIPE` or `proctool eval NAME`): it keeps finished runs and rewrites the file"
        )
    return record


def _contradictions(record: ExperimentRecord) -> Iterator[str]:
    """Where values have the right type but contradict each other: folders outside, stages that do not exist."""
    if record.format != 1:
        yield "format"
    if record.arms and record.baseline not in record.arms:
        yield f"baseline: there is no arm {record.baseline}"
    for width in record.rungs:
        if not (width.isdecimal() and width.isascii() and len(width) < 10) or record.rungs[width].parameters < 1:
            yield "rungs"
        yield from _contradictions(record.rung(width))
    if record.target is not None and record.target.parameters < 1:
        yield "target"
    for key, stage in record.stages.items():
        for name, written in (("folder", stage.folder), ("artifact", stage.artifact)):
            if written is not None and (written in ("", ".", "..") or set("/\\\0") & set(written)):
                yield f"stages.{key}.{name}"
        named = {*stage.donors, *stage.inputs, *((stage.donor,) if stage.donor else ())}
        if not named <= record.stages.keys() or not (stage.trains or stage.artifact):
            yield f"stages.{key}"
    for arm, by_seed in record.arms.items():
        for seed, measured in by_seed.items():
            if not (seed.isdecimal() and seed.isascii() and len(seed) < 20):
                yield "arms"
            if not measured.keys <= record.stages.keys():
                yield f"arms.{arm}.{seed}"
    for arm, choice in record.choices.items():
        trials = {key for cells in choice.groups.values() for cell in cells for key in cell.trials.values()}
        sizes = [len(cells) for cells in choice.groups.values()]
        fits = all(
            len(each) == len(sizes) and all(0 <= place < size for place, size in zip(each, sizes, strict=True))
            for each in choice.combinations
        )
        plain = all(name not in ("", ".", "..") and not set("/\\\0") & set(name) for name in choice.files)
        if not (
            {choice.stage, *trials} <= record.stages.keys()
            and fits
            and plain
            and all(len(each) == len(choice.combinations) for each in choice.files.values())
            and all(seed.isdecimal() for cells in choice.groups.values() for cell in cells for seed in cell.trials)
        ):
            yield f"choices.{arm}"
    if not all(0 <= share <= 1 for share in record.chance.values()):
        yield "chance"
