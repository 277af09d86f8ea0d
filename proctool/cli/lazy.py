"""Command groups whose commands are made only when they are called, so that help stays quick."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer
from typer.core import TyperCommand

from proctool.cli.help import Command, Group


class LazyGroup(Group):
    """Subclasses say which commands there are, and make one when it is called."""

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
        """What lists and help pages show of a command: its name and its line."""
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


def single(name: str, function: Any, text: str) -> typer.Typer:
    """An application of one command."""
    made = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.command(name, cls=Command, help=text)(function)
    return made


def _nothing() -> None:
    """A group does nothing by itself."""
