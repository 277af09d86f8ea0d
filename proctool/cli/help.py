"""The text of `--help`: each description under its flag, rare options behind `--help-all`, examples at the end."""

from __future__ import annotations

import re
import shutil
import textwrap
import typing
from collections.abc import Iterable, Iterator
from enum import EnumType
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

from proctool.cli.examples import examples_of
from proctool.config import meant_by

WIDEST = 80
MANY = 20
"""A command with more options than this shows its rare ones only with --help-all."""
RARE = frozenset(
    {
        "accumulate", "alpha", "apart_from", "as_text", "beta2", "budget", "cache_dir", "check", "checkpoint_every",
        "clip", "config", "control", "depth_map", "dropout", "embeddings_from", "end_of_text", "eval_samples", "extend",
        "final_lr", "gradient_checkpointing", "init_attention", "keep_checkpoints", "keep_state", "log_every",
        "micro_batch", "mixer", "noise", "patience", "producers", "save", "scoring", "set_", "shard", "skip_bad",
        "spike", "tie", "track", "track_heads", "train", "vocab",
    }
)  # fmt: skip
_PLACEHOLDERS = {
    "int": "N", "integer": "N", "integer range": "N", "float": "NUMBER", "float range": "NUMBER",
    "bool": "", "boolean": "", "path": "PATH",
}  # fmt: skip
_STUCK = "\N{NO-BREAK SPACE}"
"""A space at which textwrap breaks no line."""
_COMMON_PANEL = "In every command"
_COMMON = ("config", "set_", "json_", "as_json", "dry_run", "help")


class Command(TyperCommand):
    """A command with help of this form."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments, unless --help-all is among them."""
        if "--help-all" in args[: args.index("--") if "--" in args else None]:
            print(help_text(self, ctx, everything=True), end="")
            ctx.exit()
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")  # pydantic's words, which say nothing
            raise
        except Exception as error:
            # typer does not export its error for an unknown flag; it alone has possibilities, the similar flags.
            if hasattr(error, "possibilities"):
                flags = {flag.removeprefix("--").replace("-", "_"): flag for each in self.params for flag in each.opts}
                if meant := meant_by(str(getattr(error, "option_name", "")).removeprefix("--"), flags):
                    error.possibilities = [flags[meant]]
            raise

    def get_help_option(self, ctx: Any) -> Any:
        """--help."""
        return _printing(super().get_help_option(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        formatter.write(help_text(self, ctx))


class Group(TyperGroup):
    """A group of commands with help of this form."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments; without any, the help."""
        if not args and self.no_args_is_help and not ctx.resilient_parsing:
            print(help_text(self, ctx), end="")
            ctx.exit(2)
        return super().parse_args(ctx, args)

    def get_help_option(self, ctx: Any) -> Any:
        """--help."""
        return _printing(super().get_help_option(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        formatter.write(help_text(self, ctx))


def _printing(option: Any) -> Any:
    """The option, printing as all results do: typer's own printing hides the error of a full disk."""
    if option is not None:
        option.callback = _print_help
    return option


def _print_help(ctx: Any, _: Any, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        print(help_text(ctx.command, ctx), end="")
        ctx.exit()


def help_text(command: Any, ctx: Any, *, everything: bool = False) -> str:
    """The help of a command or a group, at the terminal's width up to WIDEST; it ends with a newline."""
    width = min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns)
    parameters = [each for each in command.get_params(ctx) if not getattr(each, "hidden", False)]
    options = [each for each in parameters if not isinstance(each, TyperArgument)]
    rare = [each for each in options if each.name in RARE] if len(options) > MANY and not everything else []
    lines = [f"Usage: {ctx.command_path} {' '.join(_usage(command, parameters))}", ""]
    lines += [*_paragraphs(command.help or "", width), ""]
    arguments = [each for each in parameters if isinstance(each, TyperArgument) and each.help]
    sections: dict[str, list[Any]] = {"Arguments": arguments, "Options": []}
    for option in options:
        if option not in rare:
            panel = getattr(option, "rich_help_panel", None) or "Options"
            sections.setdefault(_COMMON_PANEL if option.name in _COMMON else panel, []).append(option)
    sections[_COMMON_PANEL] = sections.pop(_COMMON_PANEL, [])
    if isinstance(command, TyperGroup):
        lines += [*_commands(command, ctx, width), ""]
    for title, members in sections.items():
        if members:
            lines += [f"{title}:", *(line for each in members for line in _entry(each, width)), ""]
    if rare:
        lines += [
            *_wrapped(f"{len(rare)} rare options are hidden; `{ctx.command_path} --help-all` shows all.", width),
            "",
        ]
    if examples := examples_of(ctx.command_path):
        lines += ["Examples:", *(line for each in examples for line in _example(each, width)), ""]
    return "\n".join(lines)


def _example(text: str, width: int) -> Iterator[str]:
    """A command over as many lines as it needs, ready for a shell; flags keep their values, quotes their spaces."""
    whole = re.sub(r'"[^"]*"', lambda quoted: quoted[0].replace(" ", _STUCK), text)
    whole = re.sub(r"( --?[\w-]+) (?!-)", rf"\1{_STUCK}", whole)
    *lines, last = _wrapped(whole, width - 2, "  ", hanging=4)
    yield from (f"{line} \\" for line in lines)
    yield last


def _usage(command: Any, parameters: Iterable[Any]) -> Iterator[str]:
    yield "[OPTIONS]"
    for each in parameters:
        if isinstance(each, TyperArgument):
            name = each.metavar or (each.name or "").upper()
            yield name if each.required else f"[{name}]"
    if isinstance(command, TyperGroup):
        yield "COMMAND ..."


def _commands(command: Any, ctx: Any, width: int) -> Iterator[str]:
    yield "Commands:"
    entries = [(name, command.get_command(ctx, name)) for name in command.list_commands(ctx)]
    broad = max((len(name) for name, _ in entries), default=0)
    for name, found in entries:
        first, *rest = textwrap.wrap(found.get_short_help_str(500), width - broad - 4) or [""]
        yield f"  {name:<{broad}}  {first}".rstrip()
        yield from (" " * (broad + 4) + line for line in rest)


def _entry(parameter: Any, width: int) -> Iterator[str]:
    yield from _label(parameter, width)
    text = (getattr(parameter, "help", None) or "").strip()
    default = parameter.default if getattr(parameter, "show_default", False) else None
    if isinstance(default, str | int | float | Path) and default not in ("", False) and "default" not in text.lower():
        text = f"{text} Default: {default}."
    yield from _wrapped(text, width, "      ")


def _label(parameter: Any, width: int) -> Iterator[str]:
    """`-o, --output PATH`; long lists of choices wrap between words."""
    if isinstance(parameter, TyperArgument):
        yield f"  {parameter.metavar or (parameter.name or '').upper()}"
        return
    short = [each for each in parameter.opts if not each.startswith("--")]
    names = ", ".join(short + [each for each in parameter.opts if each.startswith("--")])
    if parameter.secondary_opts:
        names = f"{names} / {', '.join(parameter.secondary_opts)}"
    label = f"{names} {_placeholder(parameter)}".rstrip()
    if len(label) + 2 <= width:
        yield f"  {label}"
        return
    yield f"  {names}"
    joined = _placeholder(parameter).replace("|", "| ")
    yield from (line.replace("| ", "|") for line in _wrapped(joined, width, "          "))


def _placeholder(parameter: Any) -> str:
    """What stands for the value: the choices, or a word for its type; nothing for a flag.

    typer keeps annotations since 0.2x and click's types before.
    """
    if getattr(parameter, "is_flag", False):
        return ""
    if parameter.metavar:
        return str(parameter.metavar)
    kind = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
    if typing.get_origin(kind) is list:
        kind = typing.get_args(kind)[0]
    choices = list(kind) if isinstance(kind, EnumType) else typing.get_args(kind)
    choices = choices or getattr(getattr(parameter, "type", None), "choices", ())
    if choices:
        return "|".join(str(getattr(each, "value", each)) for each in choices)
    name = getattr(kind, "__name__", None) or str(getattr(getattr(parameter, "type", None), "name", "text"))
    return _PLACEHOLDERS.get(name.lower(), "TEXT")


def _paragraphs(text: str, width: int) -> Iterator[str]:
    for number, paragraph in enumerate(text.strip().split("\n\n")):
        if number:
            yield ""
        yield from _wrapped(paragraph, width)


def _wrapped(text: str, width: int, indent: str = "", hanging: int = 0) -> list[str]:
    """Lines of at most `width` characters; all but the first get `hanging` more spaces. A default stays whole."""
    one_line = " ".join(re.split(r"[ \t\n]+", text.strip()))
    whole = re.sub(r"Default: (?=\S+$)", f"Default:{_STUCK}", one_line)
    lines = textwrap.wrap(
        whole, width, initial_indent=indent, subsequent_indent=indent + " " * hanging, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
    return [line.replace(_STUCK, " ") for line in lines]
