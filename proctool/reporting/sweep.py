"""What a sweep found: the loss of every cell, and the best one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from proctool.errors import RunError
from proctool.reporting.metrics import MetricsLog
from proctool.reporting.record import CellRecord, ExperimentRecord
from proctool.units import format_count


@dataclass(frozen=True)
class CellResult:
    """One cell: its values, and the final loss of each trial on the selection rows; inf for a diverged one."""

    values: Mapping[str, float]
    losses: tuple[float, ...]

    @property
    def loss(self) -> float:
        """The mean over the trials."""
        return fmean(self.losses)


@dataclass(frozen=True)
class SweepResult:
    """The cells of an arm, all finished."""

    arm: str
    cells: tuple[CellResult, ...]
    seeds: tuple[int, ...]

    @property
    def best(self) -> int:
        """The place of the cell with the lowest mean loss; the first of equal ones. Raises RunError."""
        place = min(range(len(self.cells)), key=lambda each: self.cells[each].loss)
        if not math.isfinite(self.cells[place].loss):
            raise RunError(
                f"{self.arm}: no cell of its sweep ends with a finite loss; add smaller lr, or a ramp (ramp_steps)"
            )
        return place

    @property
    def winner(self) -> CellResult:
        """The best cell. Raises RunError if all diverged."""
        return self.cells[self.best]

    def values(self, name: str) -> list[float]:
        """The values of one axis, rising; empty if it was not tried."""
        return sorted({cell.values[name] for cell in self.cells if name in cell.values})

    def along(self, name: str) -> list[tuple[float, CellResult]]:
        """For each value of an axis, its best cell over the other axes; diverged values are left out."""
        found = [
            (value, min((cell for cell in self.cells if cell.values.get(name) == value), key=lambda cell: cell.loss))
            for value in self.values(name)
        ]
        return [(value, cell) for value, cell in found if math.isfinite(cell.loss)]

    @property
    def at_edge(self) -> dict[str, float]:
        """The best values at the end of their list, where a value beyond may be better."""
        ends = {name: self.values(name) for name in self.winner.values}
        return {name: value for name, value in self.winner.values.items() if value in (ends[name][0], ends[name][-1])}


def sweep_of(arm: str, cells: Sequence[CellRecord], record: ExperimentRecord, folder: Path) -> SweepResult | str:
    """The finished sweep of an arm; the name of an unfinished trial if there is one. Raises RunError."""
    found = []
    for cell in cells:
        losses = []
        for key in cell.trials.values():
            log = MetricsLog(folder / record.stages[key].folder)
            log.update()
            if log.state() != "done":
                return record.stages[key].name
            losses.append(_final(log))
        found.append(CellResult(dict(cell.values), tuple(losses)))
    return SweepResult(arm, tuple(found), tuple(int(seed) for seed in cells[0].trials))


def _final(log: MetricsLog) -> float:
    losses = log.measured("loss")[1]
    is_bad = log.end is None or log.end.diverged or not losses
    return math.inf if is_bad else losses[-1]


def sweeps_of(record: ExperimentRecord, folder: Path) -> dict[str, SweepResult]:
    """The finished sweeps of an experiment by arm."""
    groups = {arm: cells for choice in record.choices.values() for arm, cells in choice.groups.items()}
    found = {arm: sweep_of(arm, cells, record, folder) for arm, cells in groups.items()}
    finished = {arm: each for arm, each in found.items() if isinstance(each, SweepResult)}
    return {arm: each for arm, each in finished.items() if any(math.isfinite(cell.loss) for cell in each.cells)}


def values_said(values: Mapping[str, float]) -> str:
    """A cell's values in words: `lr 0.003, dose 2M`."""
    said = {name: format_count(value) if name == "dose" else f"{value:g}" for name, value in values.items()}
    return ", ".join(f"{name} {value}" for name, value in said.items())


def sweep_notes(sweeps: Mapping[str, SweepResult]) -> list[str]:
    """How cells were chosen, and which best values are at the end of their list."""
    if not sweeps:
        return []
    seeds = ", ".join(map(str, next(iter(sweeps.values())).seeds))
    notes = [
        f"Sweep: cells are chosen by the mean loss of trials with seed {seeds} on the selection half of the validation "
        "rows. All other losses are of other seeds, on the test half."
    ]
    for arm, sweep in sweeps.items():
        if sweep.at_edge:
            ends = " and ".join(values_said({name: value}) for name, value in sweep.at_edge.items())
            notes.append(f"{arm}: the best {ends} is at the end of its list; a value beyond it may be better.")
    return notes
