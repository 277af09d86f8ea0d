"""Flags from options dataclasses: one field, one flag, one key in --config files."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer

from proctool import config
from proctool.cli.lazy import SWITCH
from proctool.errors import OptionError, notice
from proctool.paths import AS_PATH
from proctool.untrusted import parse_yaml

Options = TypeVar("Options")

_PANELS = {
    "TrainingOptions": "Training", "TaskTrainingOptions": "Training", "InitOptions": "Start from a warmed model",
    "MixOptions": "Procedural rows and noise",
}  # fmt: skip


@dataclass(frozen=True)
class Common:
    """Flags that every command with options has."""

    dry_run: bool
    json: bool


def with_options(
    cls: type[Options],
    action: Callable[..., None],
    *,
    arguments: Sequence[inspect.Parameter] = (),
    dry_run: bool = True,
) -> Callable[..., None]:
    """A function for Typer with a flag for each field of `cls`, and --config, --set, --dry-run, --json.

    It calls `action(options, common, **arguments)`. Precedence: default < --config < --set < flag.
    """

    def build(values: Sequence[Mapping[str, Any]], common: Common, **positional: Any) -> None:
        action(config.build(cls, values[0], ""), common, **positional)

    return with_values((cls,), build, arguments=arguments, dry_run=dry_run)


def with_values(
    classes: Sequence[type],
    action: Callable[..., None],
    *,
    arguments: Sequence[inspect.Parameter] = (),
    dry_run: bool = True,
) -> Callable[..., None]:
    """`with_options` for the fields of several dataclasses, which `action` builds itself.

    `action` gets a list with the given values for each class, then `common` and the arguments.
    """
    fields = {field.name: (cls, field) for cls in classes for field in dataclasses.fields(cls) if field.init}
    hints = {cls: config.field_types(cls) for cls in classes}
    parameters = [*arguments]
    for cls in classes:
        parameters += [_flag(cls, field, hints[cls][name]) for name, (owner, field) in fields.items() if owner is cls]
    parameters += [
        _extra("config", Path | None, None, ("--config",), "A YAML file of these options (`batch_size: 64`, ...)."),
        _extra("set_", list[str], [], ("--set",), "Override one option of the file: --set batch_size=64 (repeatable)."),
        _extra("json_", bool, False, ("--json",), "Print the result as JSON on standard output."),
    ]
    if dry_run:
        parameters.append(
            _extra("dry_run", bool, False, ("--dry-run",), "Check everything and show the costs; run nothing.")
        )

    def command(**given: Any) -> None:
        common = Common(dry_run=given.pop("dry_run", False), json=given.pop("json_"))
        file, assignments = given.pop("config"), given.pop("set_")
        positional = {parameter.name: given.pop(parameter.name) for parameter in arguments}
        values: dict[str, Any] = {}
        if file is not None:
            values |= _options_in(file, {name: hints[cls][name] for name, (cls, _) in fields.items()})
        of_file = dict(values)
        assigned = config.known_options(dict(map(_assignment, assignments)), fields, "--set")
        values |= assigned
        given = {name: value for name, value in given.items() if value is not None and value != []}
        if overruled := [name for name in given if name in assigned]:
            notice(f"--set {', '.join(overruled)}: ignored, because a flag sets the same option")
        for name, value in given.items():
            comma = fields[name][1].metadata.get("comma", False)
            values[name] = [part for each in value for part in each.split(",")] if comma else value
        if str(values.get("output", "")).endswith("/") and not fields["output"][1].metadata.get("folder"):
            raise OptionError(f"{values['output']}: is the name of a folder; --output takes the name of a file")
        shares = [{name: value for name, value in values.items() if fields[name][0] is cls} for cls in classes]
        try:
            action(shares, common, **positional)
        except OptionError as error:
            left = {name: value for name, value in of_file.items() if name not in given and name not in assigned}
            if any(_cause(cls, left, str(error)) for cls in classes):
                raise OptionError(f"{file}: {error}") from None
            raise

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__doc__ = inspect.getdoc(classes[0])
    return command


def _options_in(file: Path, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """The options in a file, which are of these kinds. Raises OptionError, naming the file."""
    written = config.load_yaml(file)
    if "arms" in written or ("model" in written and "name" in written and "name" not in kinds):
        raise OptionError(f"{file}: this is a recipe; run it with `proctool run {file}`")
    values = config.known_options(written, kinds, str(file))
    for name, value in values.items():
        config.convert(value, kinds[name], f"{file}: {name}")
    return values


def _cause(cls: type, values: Mapping[str, Any], said: str) -> bool:
    """Whether these values are why `cls` raises the error `said`: it does with them alone, and not without them."""

    def raises(values: Mapping[str, Any]) -> bool:
        try:
            config.build(cls, values, "")
        except OptionError as error:
            return str(error) == said
        return False

    names = {field.name for field in dataclasses.fields(cls)}
    return raises({name: value for name, value in values.items() if name in names}) and not raises({})


def _assignment(written: str) -> tuple[str, Any]:
    name, equals, value = written.partition("=")
    if not equals:
        raise OptionError(f"--set {written}: write option=value")
    name = name.strip().replace("-", "_")  # the last of two assignments wins, with either spelling
    try:
        return name, parse_yaml(value, f"--set {name}")
    except OptionError:
        return name, value


def _flag(cls: type, field: dataclasses.Field[Any], kind: Any) -> inspect.Parameter:
    owner = next(base for base in reversed(cls.__mro__) if field.name in getattr(base, "__annotations__", {}))
    name = "--" + field.name.replace("_", "-")
    names = (name, "-o") if field.name == "output" else (name,)
    words: list[str] = []
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kind, *others = (option for option in typing.get_args(kind) if option is not type(None))
        words = [word for option in others for word in typing.get_args(option)]
    default = "off" if words and field.default is False else field.default
    settings: dict[str, Any] = {
        "help": config.field_help(cls).get(field.name, "") + _default(default),
        "rich_help_panel": _PANELS.get(owner.__name__, "Options"),
        "show_default": False,
    }
    annotation: Any = str | None
    if kind is bool and words:
        annotation, settings["metavar"] = Literal["auto", "on", "off"] | None, "|".join(SWITCH)
    elif kind is bool:
        names, annotation = (f"{name}/--no-{name[2:]}",), bool | None
    elif typing.get_origin(kind) is tuple:
        annotation = list[str] | None
        settings["metavar"] = "A,B,..." if field.metadata.get("comma") else "TEXT"
    elif typing.get_origin(kind) is typing.Literal:
        annotation = kind | None
    else:
        settings["metavar"] = "|".join([{int: "N", float: "NUMBER", Path: "PATH"}.get(kind, "TEXT"), *words])
    settings |= {"metavar": field.metadata["metavar"]} if "metavar" in field.metadata else {}
    return _parameter(field.name, annotation, None, typer.Option(*names, **settings))


def _default(value: Any) -> str:
    if value is None or value == () or value is dataclasses.MISSING:
        return ""
    if isinstance(value, bool):
        value = "yes" if value else "no"
    return f" Default: {','.join(map(str, value)) if isinstance(value, tuple) else value}."


def _extra(name: str, kind: Any, default: Any, names: tuple[str, ...], text: str) -> inspect.Parameter:
    settings: dict[str, Any] = AS_PATH if kind == Path | None else {}
    if kind == list[str]:
        settings = {"metavar": "OPTION=VALUE"}
    return _parameter(name, kind, default, typer.Option(*names, help=text, show_default=False, **settings))


def _parameter(name: str, kind: Any, default: Any, option: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])


def argument(
    name: str, kind: Any, text: str, default: Any = inspect.Parameter.empty, metavar: str | None = None
) -> inspect.Parameter:
    """A positional argument for `with_options`; `metavar` is its name in the help."""
    settings = {**(AS_PATH if kind in (Path, Path | None) else {}), **({"metavar": metavar} if metavar else {})}
    return _parameter(name, kind, default, typer.Argument(help=text, **settings))
