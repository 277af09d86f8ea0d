"""The form of experiment.json: folders travel between people, so a report checks one before it goes by it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any], bool]


def wrong_in(record: Any) -> str | None:
    """Where a record is not of the form that `proctool run` writes (a path such as stages.ab12.tokens), or None."""
    if not isinstance(record, dict):
        return "the whole"
    return _first_wrong(record, _RECORD, "") or _dangling(record)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _number(value: Any) -> bool:
    # A whole number may be beyond all floats, which compares well and converts badly.
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e30 < value < 1e30


def _share(value: Any) -> bool:
    return _number(value) and 0 <= value <= 1 and math.isfinite(value)


def _name_of_a_folder(value: Any) -> bool:
    return _text(value) and value not in ("", ".", "..") and not set("/\\\0") & set(value)


def _seed(value: Any) -> bool:
    return _text(value) and value.isdecimal() and value.isascii() and len(value) < 20


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _dict_of(check: Check, key: Check = _text) -> Check:
    return lambda value: isinstance(value, dict) and all(map(key, value)) and all(map(check, value.values()))


def _form(required: Mapping[str, Check], **optional: Check) -> Check:
    return lambda value: isinstance(value, dict) and not _first_wrong(value, (required, optional), "")


_STAGE: tuple[Mapping[str, Check], Mapping[str, Check]] = (
    {
        "name": _text, "folder": _name_of_a_folder, "command": _list_of(_text), "donor": _or_none(_text),
        "tokens": _count,
    },
    {
        "warmups": _list_of(_text), "parents": _list_of(_text), "trains": lambda value: isinstance(value, bool),
        "artifact": _or_none(_name_of_a_folder), "steps": _count, "eval_samples": _or_none(_count),
    },
)  # fmt: skip
_MEASURED = _form(
    {"pretrain": _or_none(_text), "diagnostics": _dict_of(_text)}, budgets=_dict_of(_text), finetunes=_dict_of(_text)
)
_ABOUT = _form({"made_from": _text, "control": _or_none(_text), "of": _list_of(_text)}, procedural_tokens=_count)
_PUBLISHED = _form(
    {
        "what": _text, "section": lambda value: _text(value) or _number(value), "measure": _text,
        "arms": _dict_of(_number),
    },
    diagnostic=_or_none(_text), step=_or_none(_count),
)  # fmt: skip
_ARM = _form({}, treatment=_or_none(_form({})))
_RECORD: tuple[Mapping[str, Check], Mapping[str, Check]] = (
    {
        "format": lambda value: value == 1,
        "baseline": _text,
        "stages": lambda value: isinstance(value, dict),
        "arms": _dict_of(_dict_of(_MEASURED, key=_seed)),
    },
    {
        "name": _or_none(_text), "title": _or_none(_text), "setting": _or_none(_text), "source": _text,
        "command": _text, "environment": _form({}, started=_text), "chance": _dict_of(_share),
        "about": _dict_of(_ABOUT), "published": _or_none(_list_of(_PUBLISHED)),
        "recipe": _form({}, arms=_dict_of(_ARM)),
    },
)  # fmt: skip


def _first_wrong(
    value: dict[str, Any], form: tuple[Mapping[str, Check], Mapping[str, Check]], where: str
) -> str | None:
    required, optional = form
    for key, check in (*required.items(), *optional.items()):
        if (key in required and key not in value) or (key in value and not check(value[key])):
            return f"{where}{key}"
    return None


def _dangling(record: Mapping[str, Any]) -> str | None:
    """A stage that is not of its form, or a mention of a stage that there is not."""
    stages = record["stages"]
    for key, stage in stages.items():
        if not isinstance(stage, dict):
            return f"stages.{key}"
        if wrong := _first_wrong(stage, _STAGE, f"stages.{key}."):
            return wrong
        named = [*stage.get("warmups", ()), *stage.get("parents", ()), *([stage["donor"]] if stage["donor"] else [])]
        if not all(each in stages for each in named) or (not stage.get("trains", True) and not stage.get("artifact")):
            return f"stages.{key}"
    for arm, by_seed in record["arms"].items():
        for seed, measured in by_seed.items():
            named = [
                each for kind in ("budgets", "diagnostics", "finetunes") for each in measured.get(kind, {}).values()
            ]
            if not all(each in stages for each in (*named, *filter(None, [measured["pretrain"]]))):
                return f"arms.{arm}.{seed}"
    return None
