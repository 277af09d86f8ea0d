"""`--help` of every command: whole names, at most 80 columns, examples that parse."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer

from proctool.cli.examples import examples_of
from proctool.cli.help import MANY, RARE, help_text
from proctool.cli.lazy import LazyGroup
from proctool.cli.main import app
from tests.conftest import Said

TASKS = ("dyck", "set", "nca")


def commands(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command; of tasks a few stand for all."""
    yield words
    if isinstance(group, LazyGroup):
        for name in group.entries():
            if words != ("generate",) or name in TASKS:
                yield from commands(group.resolve_command(None, [name])[1], (*words, name))


ROOT = typer.main.get_command(app)
ALL = list(commands(ROOT))


def path(words: tuple[str, ...]) -> str:
    return " ".join(["proctool", *words])


def found(words: tuple[str, ...]) -> tuple[Any, Any]:
    command: Any = ROOT
    context = typer.Context(command, info_name="proctool")
    for word in words:
        command = command.resolve_command(context, [word])[1]
        context = typer.Context(command, info_name=word, parent=context)
    return command, context


@pytest.mark.parametrize("columns", [80, 60])
@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_help_names_every_option_whole_within_the_width(
    words: tuple[str, ...], columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    command, context = found(words)
    text, everything = help_text(command, context), help_text(command, context, everything=True)
    flags = {
        flag: each.name for each in command.params for flag in (*each.opts, *each.secondary_opts) if flag[:1] == "-"
    }
    shown = {flag for line in text.splitlines() for flag in re.findall(r"(?<![\w-])--?[a-z][\w-]*", line)}
    hidden = {flag for flag, name in flags.items() if name in RARE} if len(flags) > MANY else set()
    assert set(flags) - hidden <= shown
    assert set(flags) <= set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", everything))
    assert [line for line in everything.splitlines() if len(line) > columns] == []
    assert [line for line in everything.splitlines() if line.endswith("Default:")] == []


def test_an_example_on_several_lines_is_the_same_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "24")
    for words in ALL:
        examples = help_text(*found(words)).partition("\nExamples:\n")[2].replace("\\\n", "").splitlines()
        written = [shlex.split(each) for each in examples if each]
        assert written == [shlex.split(each) for each in examples_of(path(words))]


@pytest.mark.parametrize("words", [each for each in ALL if each], ids=" ".join)
def test_every_command_has_examples_that_parse(words: tuple[str, ...]) -> None:
    examples = examples_of(path(words))
    assert examples
    for example in examples:
        program, *arguments = shlex.split(example)
        assert program == "proctool"
        command: Any = ROOT
        context = typer.Context(command, info_name="proctool")
        while isinstance(command, LazyGroup):
            name, command, arguments = command.resolve_command(context, arguments)
        command.make_context(name, arguments, parent=context)  # refuses options that do not exist


def test_a_wrong_choice_begins_with_what_was_written(proctool: Callable[..., Said]) -> None:
    said = proctool("export", "a", "b", "--format", "litGPT")
    assert "'litGPT' is not one of" in said.err
    assert "Value error" not in said.err
    assert "MODEL FOLDER" in said.err.replace("{", "").replace("}", "")


def test_an_unknown_flag_is_answered_by_the_fields_name(proctool: Callable[..., Said]) -> None:
    assert "--lr" in proctool("pretrain", "--learning-rate", "3").err.partition("No such option")[2]
