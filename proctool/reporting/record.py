"""`experiment.json`: what an experiment's folder says about itself, for reports without the recipe at hand.

`experiment/record.py` writes it. Folders travel between people, so it is checked before a report goes by it.
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
    """Within the experiment's own."""
    command: tuple[str, ...]
    donor: str | None
    """The key of the first warm-up behind it, whatever transplants lie between."""
    warmups: tuple[str, ...] | None = None
    """Those of all of them (a weight mixture has several); None in old records, where `donor` is the only one."""
    parents: tuple[str, ...] | None = None
    """The stages whose artifacts it reads; None in old records, where `donor` is the only one."""
    trains: bool = True
    """Whether it leaves metrics."""
    artifact: str | None = None
    steps: int = 0
    tokens: int
    eval_samples: int | None = None

    @property
    def donors(self) -> tuple[str, ...]:
        """The keys of the warm-ups behind it."""
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

    @property
    def keys(self) -> set[str]:
        """All of them."""
        pretrained = {self.pretrain} if self.pretrain is not None else set()
        return {*pretrained, *self.budgets.values(), *self.diagnostics.values(), *self.finetunes.values()}


@dataclass(frozen=True, kw_only=True)
class ArmRecord:
    """What an arm is."""

    made_from: str
    """The arm as written in the recipe, of which it is a form."""
    control: str | None
    of: tuple[str, ...]
    """The arms that it is a control of."""
    procedural_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class ExperimentRecord:
    """All of it. For runs that are compared without an experiment it is empty but for the baseline."""

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
        """What the recipe does to the weights that the arm takes."""
        found: Any = self.recipe
        for key in ("arms", arm, "treatment"):
            found = found.get(key) if isinstance(found, Mapping) else None
        return found if isinstance(found, Mapping) else {}


def read_record(folder: Path) -> ExperimentRecord:
    """The record in an experiment's folder. Raises RunError."""
    path = folder / RECORD
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder")
    if not path.is_file():
        if (folder / FILE).is_file():
            raise RunError(f"{folder}: the folder of one run, not of an experiment; `proctool compare` takes runs")
        raise RunError(f"{folder}: not the folder of an experiment ({RECORD} is missing); `proctool run` makes one")
    try:
        record: ExperimentRecord = typed(ExperimentRecord, parse_json(path.read_bytes()))
        wrong = next(_contradictions(record), None)
    except ValueError as error:
        wrong = str(error) if isinstance(error, Malformed) else "the whole"
    if wrong:
        raise RunError(
            f"{path}: damaged, or from another version of proctool ({wrong}); run the recipe again to renew it"
        )
    return record


def _contradictions(record: ExperimentRecord) -> Iterator[str]:
    """The places of what has its type and cannot be: folders elsewhere, stages that there are not."""
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
