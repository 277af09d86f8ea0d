"""Repeated diagnostics: several runs from each seed's start tell the spread between donors from that between runs."""

from __future__ import annotations

from collections.abc import Iterable

from proctool.errors import OptionError
from proctool.recipe.form import Recipe

MOST_REPEATS = 20
RUN_SEEDS = 10**7
"""Run r (from 0) of a diagnostic from the start of seed s has the seed s + r * RUN_SEEDS."""


def check_seeds(recipe: Recipe) -> None:
    """Raise OptionError if `seeds` or `repeats` is not possible, or if the recipe has no diagnostic to repeat."""
    if not recipe.seeds or len(set(recipe.seeds)) < len(recipe.seeds) or min(recipe.seeds) < 0:
        raise OptionError(f"seeds = {list(recipe.seeds)}: write distinct whole numbers of at least 0")
    if not 1 <= recipe.repeats <= MOST_REPEATS:
        raise OptionError(f"repeats = {recipe.repeats}: must be from 1 to {MOST_REPEATS}")
    if recipe.repeats > 1 and max(recipe.seeds) >= RUN_SEEDS:
        raise OptionError(
            f"seeds: with repeats they must be below {RUN_SEEDS}; run 2 of seed 0 has the seed {RUN_SEEDS}"
        )
    if recipe.repeats > 1 and not recipe.diagnostics:
        raise OptionError("repeats: the recipe has no diagnostics to repeat; for more runs, list more `seeds`")


def check_run_names(recipe: Recipe, arms: Iterable[str]) -> None:
    """Raise OptionError if one of `arms` is named like a run of another. `arms` are those of the plan."""
    names = set(arms)
    for arm in sorted(names):
        for number in range(2, recipe.repeats + 1):
            if (taken := f"{arm}-run{number}") in names:
                raise OptionError(f"arms.{taken}: with repeats this is the name of a run of {arm}; rename the arm")


def seed_of_run(seed: int, number: int) -> int:
    """The seed of a run of a diagnostic. Run 0 has the given seed."""
    return seed + number * RUN_SEEDS
