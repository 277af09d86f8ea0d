"""The cells of a sweep: which values each planned arm tries. An arm tries every combination of its values."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from proctool.errors import OptionError
from proctool.recipe.arms import PlannedArm
from proctool.recipe.form import UNTRIED, Arm, Recipe, Sweep, Values
from proctool.units import format_count

AXES = tuple(each.name for each in dataclasses.fields(Sweep))
_SELECTION_SEED = 1000


@dataclass(frozen=True)
class Cell:
    """One combination of a sweep's values; None for what the arm does not try."""

    lr: float | None = None
    init_std: float | None = None
    dose: int | None = None

    @property
    def values(self) -> dict[str, float]:
        """The values that it has, by name."""
        return {name: value for name in AXES if (value := getattr(self, name)) is not None}

    def __str__(self) -> str:
        """A name for a stage: `lr0.003-dose2M`."""
        written = {name: format_count(value) if name == "dose" else f"{value:g}" for name, value in self.values.items()}
        return "-".join(f"{name.replace('_', '-')}{value}" for name, value in written.items())


def selection_seeds(recipe: Recipe) -> tuple[int, ...]:
    """The seeds of the trials."""
    return recipe.selection_seeds or (recipe.seeds[0] + _SELECTION_SEED,)


def values_of(arm: PlannedArm) -> Sweep:
    """The values that an arm tries; an empty sweep for an arm that tries nothing."""
    written, shared = arm.arm.sweep or Sweep(), arm.recipe.sweep or Sweep()
    found = {}
    for name in AXES:
        own, given = getattr(written, name), getattr(shared, name)
        applies = {"lr": True, "init_std": _is_fresh(arm.arm), "dose": arm.arm.is_warmed}[name]
        found[name] = own if own is not None else given if applies else None
    return Sweep(**{name: values or None for name, values in found.items()})


def _is_fresh(arm: Arm) -> bool:
    """Whether the weights of its body are drawn fresh at the start of pretraining."""
    return not (arm.is_warmed or arm.init) or arm.components == ("none",)


def cells_of(arm: PlannedArm) -> tuple[Cell, ...]:
    """The cells of an arm; none if it tries nothing, like the controls of the baseline (choosing.py)."""
    if arm.control in UNTRIED:
        return ()
    values = values_of(arm)
    lists = [getattr(values, name) or (None,) for name in AXES]
    cells = tuple(Cell(*each) for each in itertools.product(*lists))
    return cells if len(cells) > 1 else ()


def at(arm: PlannedArm, cell: Cell, *, is_trial: bool = False) -> PlannedArm:
    """The arm with the values of a cell."""
    options: Values = {name: value for name, value in cell.values.items() if name != "dose"}
    amount = arm.amount if cell.dose is None else cell.dose
    return dataclasses.replace(arm, cell=options, amount=amount, is_trial=is_trial)


def check_sweeps(recipe: Recipe) -> None:
    """Check the sweeps of a recipe and their seeds. Raises OptionError."""
    if not recipe.is_swept:
        if recipe.selection_seeds:
            raise OptionError("selection_seeds: there is no sweep; remove selection_seeds, or add sweep: {lr: [...]}")
        return
    if recipe.corpus is None:
        raise OptionError("sweep: chooses by the validation loss of pretraining; give the recipe a corpus")
    seeds = recipe.selection_seeds
    if len(set(seeds)) < len(seeds) or any(seed < 0 for seed in seeds):
        raise OptionError(f"selection_seeds = {list(seeds)}: write distinct whole numbers of at least 0")
    if both := sorted(set(selection_seeds(recipe)) & set(recipe.seeds)):
        raise OptionError(
            f"selection_seeds: {both[0]} is also in seeds; a report on the runs that chose a cell flatters it, so give "
            "other selection_seeds"
        )
    for where, values in [("pretrain", recipe.pretrain)] + [
        (f"arms.{name}.pretrain", arm.pretrain) for name, arm in recipe.arms.items()
    ]:
        for option in ("eval_split", "on_divergence"):
            if option in values:
                raise OptionError(f"{where}.{option}: remove it; a sweep sets it")
    if recipe.sweep is not None:
        _check_lists("sweep", recipe.sweep)
        if not any(getattr(recipe.sweep, name) for name in AXES):
            raise OptionError(f"sweep: is empty; give a list for at least one of {', '.join(AXES)}")
        if recipe.sweep.dose and not any(arm.is_warmed for arm in recipe.arms.values()):
            raise OptionError("sweep.dose: no arm has a warm-up; remove dose")
    for name, arm in recipe.arms.items():
        _check_arm(recipe, name, arm)


def _check_arm(recipe: Recipe, name: str, arm: Arm) -> None:
    where = f"arms.{name}"
    if arm.sweep is not None:
        _check_lists(f"{where}.sweep", arm.sweep, may_be_empty=True)
        if arm.sweep.dose and not arm.is_warmed:
            raise OptionError(f"{where}.sweep.dose: the arm has no warm-up; remove dose")
    tried = values_of(PlannedArm(recipe, name, arm, name))
    for option in ("lr", "init_std"):
        if option in arm.pretrain and getattr(tried, option):
            raise OptionError(
                f"{where}.pretrain.{option}: the sweep tries other values; remove it, or write "
                f"`sweep: {{{option}: []}}` in the arm to keep it"
            )
    if tried.dose and (recipe.procedural if arm.procedural is None else arm.procedural):
        raise OptionError(
            f"{where}: procedural runs the arm with every amount, sweep.dose with the best one; remove one of them"
        )


def _check_lists(where: str, sweep: Sweep, *, may_be_empty: bool = False) -> None:
    for name in AXES:
        values: Sequence[float] | None = getattr(sweep, name)
        if values is None or (may_be_empty and not values):
            continue
        if len(set(values)) < len(values):
            twice = next(value for value in values if values.count(value) > 1)
            raise OptionError(f"{where}.{name}: {twice:g} is given twice; write distinct values")
        if not all(value > 0 for value in values):
            raise OptionError(f"{where}.{name} = {list(values)}: write numbers above 0")
        if len(values) < 2:
            instead = "warmup: {steps: N}" if name == "dose" else f"pretrain: {{{name}: VALUE}}"
            raise OptionError(
                f"{where}.{name} = {list(values)}: a sweep needs at least two values; for a fixed one write {instead}"
            )
