"""Command groups that build a command only when it is called, so that help stays fast."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import typer
from typer.core import TyperCommand

from proctool.cli.help import Command, Group


class LazyGroup(Group):
    """A group of commands; subclasses list them and build one when it is called."""

    def entries(self) -> Mapping[str, str]:
        """Each command's one line of help."""
        raise NotImplementedError

    def load(self, name: str) -> typer.Typer:
        """The application that holds the command `name` (alone), or a group of that name."""
        raise NotImplementedError

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of `entries`."""
        return list(self.entries())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A stub for lists and help pages: the command's name and its line."""
        line = self.entries().get(cmd_name)
        return None if line is None else TyperCommand(cmd_name, help=line)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is called, in full."""
        name = args[0]
        if name not in self.entries():
            return super().resolve_command(ctx, args)
        command = typer.main.get_command(self.load(name))
        command.name = name
        return name, command, args[1:]


def group(cls: type[LazyGroup], text: str) -> typer.Typer:
    """An application whose commands are those of `cls`."""
    made = typer.Typer(
        cls=cls,
        add_completion=False,
        help=text,
        no_args_is_help=True,
        invoke_without_command=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback(help=text)(_nothing)
    return made


SWITCH = ("auto", "on", "off")


class Switched(Command):
    """A command that accepts options with the values auto, on and off as flags too: --NAME, --no-NAME."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments, with every such flag written out as option and value."""
        switches = {each.opts[0] for each in self.params if each.metavar == "|".join(SWITCH)}
        return super().parse_args(ctx, list(_written_out(args, switches)))


def _written_out(args: Sequence[str], switches: set[str]) -> Iterator[str]:
    for place, word in enumerate(args):
        if word == "--":
            yield from args[place:]
            return
        if word.startswith("--no-") and "--" + word.removeprefix("--no-") in switches:
            yield from ("--" + word.removeprefix("--no-"), "off")
            continue
        yield word
        if word in switches and (place + 1 == len(args) or args[place + 1] not in SWITCH):
            yield "on"


def single(name: str, function: Any, text: str) -> typer.Typer:
    """An application of one command."""
    made = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.command(name, cls=Switched, help=text)(function)
    return made


def _nothing() -> None:
    """A group does nothing by itself."""
