"""`experiment.json`: what an experiment's folder records about itself, so that reports do not need the recipe.

`experiment/record.py` writes it. People exchange folders, so it is checked before a report uses it.
"""

from __future__ import annotations

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
    evaluations: Mapping[str, str] = field(default_factory=dict)

    @property
    def keys(self) -> set[str]:
        """All of them."""
        pretrained = {self.pretrain} if self.pretrain is not None else set()
        others = (self.budgets, self.diagnostics, self.finetunes, self.evaluations)
        return pretrained.union(*(each.values() for each in others))


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
class ExperimentRecord:
    """The whole record. For runs compared without an experiment, only the baseline is set."""

    format: int = 1
    name: str | None = None
    title: str | None = None
    baseline: str
    setting: str | None = None
    seeds: tuple[int, ...] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    published: tuple[Published, ...] | None = None
    source: str = ""
    """The recipe as it was written."""
    command: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)
    stages: Mapping[str, StageRecord]
    """By key."""
    chance: Mapping[str, float] = field(default_factory=dict)
    """The accuracy of guessing, by diagnostic."""
    about: Mapping[str, ArmRecord] = field(default_factory=dict)
    arms: Mapping[str, Mapping[str, SeedRecord]]
    """By arm and seed."""

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
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder")
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
            f"{path}: damaged, or from another version of proctool ({wrong}); run the recipe again to rewrite it"
        )
    return record


def _contradictions(record: ExperimentRecord) -> Iterator[str]:
    """Where values have the right type but contradict each other: folders outside, stages that do not exist."""
    if record.format != 1:
        yield "format"
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
    if not all(0 <= share <= 1 for share in record.chance.values()):
        yield "chance"
