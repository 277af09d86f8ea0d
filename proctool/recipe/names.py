"""Names in a recipe: those that its author chooses, and those of options in the wrong place."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

from proctool.errors import OptionError
from proctool.recipe.form import Recipe

# Names are used as folder names and in sentences.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
LONGEST_NAME = 200
"""Characters; file systems limit the name of a folder to 255."""


def check_name(where: str, name: str) -> None:
    """Raise OptionError if `name` cannot be the name of a folder; `where` is its place in the recipe."""
    if len(name) > LONGEST_NAME:
        raise OptionError(f'{where}: "{name[:20]}..." has {len(name)} characters; use at most {LONGEST_NAME}')
    if not _NAME.fullmatch(name):
        raise OptionError(f'{where}: "{name}" may have only letters, digits, dots, dashes and underscores')


def check_place(options: Iterable[object], known: Iterable[str], where: str) -> None:
    """Raise OptionError for an option of the recipe as a whole that stands in a part of it."""
    for key in options:
        if str(key) not in known and any(str(key) == each.name for each in dataclasses.fields(Recipe)):
            raise OptionError(f"{where}.{key}: belongs at the top of the recipe, as {key}: ...")
