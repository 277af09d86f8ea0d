"""Strict options: mappings (YAML, flags, specifications) become frozen dataclasses or a clear error."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from proctool.errors import OptionError
from proctool.paths import user_path
from proctool.units import parse_count, parse_number
from proctool.untrusted import parse_yaml
from proctool.untrusted.yaml_text import MOST_CHARACTERS

T = TypeVar("T")


def suggestion(name: object, known: Iterable[str]) -> str:
    """' (did you mean "set"?)', or the list of known names if none is similar."""
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=1)  # a YAML key may be a number
    if near:
        return f' (did you mean "{near[0]}"?)'
    return f" (known: {', '.join(known)})" if known else ""


_SYNONYMS: Mapping[str, str] = {
    **dict.fromkeys(("learning_rate", "max_lr", "peak_lr", "learningrate"), "lr"),
    **dict.fromkeys(("min_lr", "final_learning_rate"), "final_lr"),
    **dict.fromkeys(("warmup_steps", "warmup_iters", "num_warmup_steps"), "ramp_steps"),
    **dict.fromkeys(("epochs", "num_epochs", "max_steps", "num_steps", "max_iters", "iterations"), "steps"),
    **dict.fromkeys(("seq_len", "seq_length", "sequence_length", "block_size", "max_length", "n_ctx"), "context"),
    **dict.fromkeys(("lr_scheduler", "scheduler", "lr_schedule", "lr_scheduler_type"), "schedule"),
    **dict.fromkeys(("grad_clip", "max_grad_norm", "gradient_clipping", "clip_grad"), "clip"),
    **dict.fromkeys(("gradient_accumulation_steps", "grad_accum", "accumulation_steps"), "accumulate"),
    **dict.fromkeys(("micro_batch_size", "per_device_batch_size"), "micro_batch"),
    **dict.fromkeys(("dataset", "train_data"), "corpus"),
    **dict.fromkeys(("random_seed", "rng_seed"), "seed"),
}
"""The field's and other trainers' names of options: our names."""
_LISTED = 12
"""At most so many options are all named for an unknown one."""


def meant_by(name: str, known: Collection[str]) -> str | None:
    """The known option that is called `name` in the field or by other trainers."""
    meant = _SYNONYMS.get(name.replace("-", "_").lower())
    return meant if meant in known else None


def unknown_option(key: object, known: Iterable[str], where: str) -> OptionError:
    """The error for an unknown option: its name, and the known one that was probably meant, or the closest."""
    known = set(known)
    name = str(key).replace("-", "_").lower()
    if meant := meant_by(name, known):
        hint = f' (did you mean "{meant}"?)'
    elif len(known) <= _LISTED or difflib.get_close_matches(name, known):
        hint = suggestion(name, known)
    else:
        closest = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.0)
        hint = f" (the closest of {len(known)}: {', '.join(closest)})"
    return OptionError(f'{where}: unknown option "{key}"{hint}')


def build(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build the dataclass `cls` from `values`, converting each to its field's type.

    `where` names the place in error messages (a file, a dotted path, a task name).
    Raises OptionError on an unknown key, a missing required key or a value of the wrong type.
    """
    if not isinstance(values, Mapping):
        raise OptionError(f"{where}: expected a mapping of options, got {values!r}")
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    hints = field_types(cls)  # type: ignore[arg-type]  # classes can be hashed
    arguments = {
        name: convert(value, hints[name], f"{where}.{name}" if where else name)
        for name, value in known_options(values, fields, where).items()
    }
    for name, field in fields.items():
        no_default = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if no_default and name not in arguments:
            raise OptionError(f'{where}: option "{name}" is missing')
    return cls(**arguments)


@functools.cache
def field_types(cls: type) -> Mapping[str, Any]:
    """The types of a dataclass's fields by name. Kept: a recipe of many stages builds the same few classes often."""
    return types.MappingProxyType(typing.get_type_hints(cls))


def known_options(values: Mapping[str, Any], names: Iterable[str], where: str) -> dict[str, Any]:
    """`values` with dashes in keys replaced by underscores; keys must be in `names`. Raises OptionError."""
    known = {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name not in names:
            raise unknown_option(key, names, where)
        if name in known:
            raise OptionError(
                f'{where}: option "{name}" is given twice, with a dash and with an underscore; remove one'
            )
        known[name] = value
    return known


def convert(value: Any, kind: Any, where: str) -> Any:
    """Convert `value` to the annotated type `kind` (numbers may be written 2M or 5e-4). Raises OptionError."""
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        options = typing.get_args(kind)
        if value is None and type(None) in options:
            return None
        kinds = [option for option in options if option is not type(None)]
        words = [
            word for option in kinds[1:] for word in typing.get_args(option)
        ]  # for example a number or the word auto
        if isinstance(value, str) and value in words:
            return value
        try:
            return convert(value, kinds[0], where)
        except OptionError as error:
            if not words:
                raise
            raise OptionError(f"{error}; or write {' or '.join(words)}") from None
    if origin is typing.Literal:
        choices = typing.get_args(kind)
        if value not in choices:
            known = suggestion(str(value), [str(choice) for choice in choices])
            raise OptionError(f"{where}: {value!r} is not one of the choices{known}")
        return value
    if origin is tuple:
        if not isinstance(value, Sequence) or isinstance(value, str):
            value = [value]
        item = typing.get_args(kind)[0]
        if item is int:
            value = [number for each in value for number in _range(each, where)]
        return tuple(convert(each, item, f"{where}[{index}]") for index, each in enumerate(value))
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise OptionError(f"{where}: expected a mapping, got {value!r}")
        item = typing.get_args(kind)[1]
        return {str(key): convert(each, item, f"{where}.{key}") for key, each in value.items()}
    if kind is Any:
        return value
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if isinstance(value, kind):
            return value
        parse = getattr(kind, "parse", None)  # a group of options that can also be written as text
        return parse(value, where) if parse is not None and isinstance(value, str) else build(kind, value, where)
    if kind is bool:
        written = str(value).lower()
        if written not in ("true", "false", "yes", "no", "on", "off"):
            raise OptionError(f"{where}: expected true or false, got {value!r}")
        return written in ("true", "yes", "on")
    if (isinstance(value, bool | Mapping | Sequence) and not isinstance(value, str)) or value is None:
        hint = (
            f'; to give it as text, write "{str(value).lower()}" in quotes'
            if isinstance(value, bool) and kind is str
            else ""
        )
        raise OptionError(f"{where}: expected a single {_name(kind)}, got {value!r}{hint}")
    try:
        if kind is int:
            return parse_count(value)
        if kind is float:
            return parse_number(value)
    except OptionError as error:
        raise OptionError(f"{where}: {error}") from None
    text = str(getattr(value, "written", value))  # a number in YAML for an option that takes text
    if kind is Path and not text:
        raise OptionError(f"{where}: is empty; give a path")
    return user_path(text) if kind is Path else text


_RANGE = re.compile(r"\s*(\d+)\s*-\s*(\d+)\s*")
_LONGEST_RANGE = 10_000


def _range(written: Any, where: str) -> Sequence[Any]:
    """The numbers of a list written as 0-2, 0,1,2 or 0-2,5; a value that is not text alone. Raises OptionError."""
    if not isinstance(written, str):
        return (written,)
    if "," in written:
        return [number for part in written.split(",") for number in _range(part, where)]
    found = _RANGE.fullmatch(written)
    if found is None:
        try:
            parse_number(written)
        except OptionError:
            raise OptionError(
                f"{where}: {written!r} is neither a whole number nor a range; write 0-2 or 0,1,2"
            ) from None
        return (written,)
    first, last = int(found[1]), int(found[2])
    if not first <= last < first + _LONGEST_RANGE:
        raise OptionError(f"{where}: {written} is not a range of at most {_LONGEST_RANGE} numbers; write 0-2 or 0,1,2")
    return range(first, last + 1)


def _name(kind: Any) -> str:
    return {int: "whole number", float: "number", str: "text"}.get(kind, getattr(kind, "__name__", str(kind)))


@functools.cache
def field_help(cls: type) -> dict[str, str]:
    """The description of each field of a dataclass: the string below the field in the source."""
    documented: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(owner):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, doc in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(doc, ast.Expr)
                and isinstance(doc.value, ast.Constant)
            ):
                documented[field.target.id] = inspect.cleandoc(str(doc.value.value))
    return documented


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a mapping from a YAML file; see `untrusted.parse_yaml`. Raises OptionError."""
    try:
        with path.open("rb") as file:
            text = file.read(4 * MOST_CHARACTERS + 1).decode()
    except UnicodeDecodeError as error:
        raise OptionError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    values = parse_yaml(text, str(path))
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise OptionError(f"{path}: expected a mapping at the top level, got {type(values).__name__}")
    return values


def plain(value: Any) -> Any:
    """Convert dataclasses, tuples and paths to JSON-ready dicts, lists and strings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value
