"""What decides the options of an arm in a sweep: the cells that compete, and the arm in each form they give it.

An arm's controls try the values of the arm they are made from. The baseline's controls `ramp` and `longer` try nothing:
they take the baseline's best cell, and the best dose of the arm that they control.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from proctool.recipe.arms import PlannedArm
from proctool.recipe.form import UNTRIED
from proctool.recipe.forms import of_baseline
from proctool.recipe.sweep import Cell, at, cells_of, values_of


@dataclass(frozen=True)
class Group:
    """Cells that compete: the best one is chosen by the trials of the arm `arm`."""

    arm: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Search:
    """What decides the options of an arm: its form for each combination of one cell per group."""

    groups: tuple[Group, ...]
    forms: Mapping[tuple[int, ...], PlannedArm]
    """By the place of the cell in each group."""


def search_of(arm: PlannedArm, planned: Mapping[str, PlannedArm]) -> Search | None:
    """What decides the options of an arm; None if no sweep does."""
    if arm.control not in UNTRIED:
        cells = cells_of(arm)
        return (
            Search((Group(arm.name, cells),), {(n,): at(arm, cell) for n, cell in enumerate(cells)}) if cells else None
        )
    base, source = planned[arm.recipe.baseline], planned[arm.of[0]]
    groups = [Group(base.name, cells_of(base))]
    if values_of(source).dose and source.name != base.name:
        groups.append(Group(source.name, cells_of(source)))
    groups = [group for group in groups if group.cells]
    forms: dict[tuple[int, ...], PlannedArm] = {}
    for places in itertools.product(*(range(len(group.cells)) for group in groups)):
        form = arm
        for group, place in zip(groups, places, strict=True):
            cell = group.cells[place]
            if group.arm == source.name:
                form = dataclasses.replace(form, arm=of_baseline(arm.control or "", at(source, cell), base))
        for group, place in zip(groups, places, strict=True):
            if group.arm == base.name:
                form = at(form, group.cells[place])
        forms[places] = form
    return Search(tuple(groups), forms) if groups else None


def forms_of(arm: PlannedArm, planned: Mapping[str, PlannedArm]) -> Iterator[PlannedArm]:
    """Every form that an arm can be run in."""
    search = search_of(arm, planned)
    yield from search.forms.values() if search else (arm,)
