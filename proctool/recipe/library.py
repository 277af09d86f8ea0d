"""The recipes that come with proctool, by name: `demo`, `laptop/python`, `paper/c4-350m`, ..."""

from __future__ import annotations

from pathlib import Path

from proctool.errors import OptionError

_PACKAGE = Path(__file__).resolve().parent.parent


def library() -> dict[str, Path]:
    """Every recipe by its name, sorted: from the wheel, or from the clone of an editable install."""
    folder = next((each for each in (_PACKAGE / "_recipes", _PACKAGE.parent / "recipes") if each.is_dir()), None)
    if folder is None:
        return {}
    found = sorted(folder.rglob("*.yaml"), key=lambda file: (len(file.relative_to(folder).parts), str(file)))
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in found}


def recipe_file(written: str) -> Path:
    """The file of a recipe in the library. The last part of its name is enough if it is unique.

    Raises OptionError if no recipe or several recipes have that name.
    """
    recipes = library()
    if written in recipes:
        return recipes[written]
    matching = [name for name in recipes if name.rpartition("/")[2] == written]
    if len(matching) == 1:
        return recipes[matching[0]]
    if matching:
        raise OptionError(f"{written}: several recipes have this name: {', '.join(matching)}; write the full name")
    raise OptionError(f"{written}: no recipe has this name; `proctool recipes list` shows all names")


def recipe_path(path: Path) -> Path:
    """The file of a recipe given as a path or as a name in the library. Raises OptionError if neither exists."""
    name = path.as_posix()
    if path.exists():
        return path
    if path.suffix in (".yaml", ".yml") or path.is_absolute() or name.startswith("."):
        raise OptionError(f"{path}: no such file, and no recipe of that name; see `proctool recipes list`")
    return recipe_file(name)
