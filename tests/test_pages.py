"""Every `proctool` command line in README.md and docs/ parses; some of each page run as printed, at tiny sizes."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from proctool.cli.lazy import LazyGroup
from proctool.cli.main import app

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("docs/**/*.md")))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$|^((?: {4}[^\n]*\n|\n(?= {4}))+)", re.MULTILINE | re.DOTALL)
WRITTEN = {"echo": "set"}  # the task that docs/your-own-task.md writes has the options of one that is here
UNFINISHED = ("MissingParameter", "BadOptionUsage")  # a sentence may name a command without its arguments
COMMAND = re.compile(r"^ *(?:\$ )?(?:[\w -]* -m )?proctool (?=[\w-]).*")


def in_blocks(text: str) -> Iterator[str]:
    """Command lines in fenced and indented blocks; a line that ends in a backslash goes on in the next."""
    for language, fenced, indented in BLOCK.findall(text):
        if language in ("", "sh", "console"):
            for line in (fenced or indented).replace("\\\n", " ").splitlines():
                if COMMAND.match(line) and (language != "console" or line.startswith("$ ")):  # the rest is output
                    yield line.partition("proctool ")[2]


def in_sentences(text: str) -> Iterator[str]:
    """Command lines in backquotes; they may go on in the next line of the page."""
    for code in re.findall(r"`([^`]+)`", BLOCK.sub("\n", text)):
        line = " ".join(code.split())
        if COMMAND.match(line):
            yield line.partition("proctool ")[2]


def placeholder(words: list[str]) -> bool:
    """Whether a command is left open: `...` for arguments, or capitals (`NAME`) for the command's own name."""
    return any(word.endswith("...") for word in words) or any(re.fullmatch("[A-Z]+", word) for word in words[:2])


def parse(words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    context, name = typer.Context(command, info_name="proctool"), ""
    while isinstance(command, LazyGroup) and words:
        name, command, words = command.resolve_command(context, [WRITTEN.get(words[0], words[0]), *words[1:]])
    with contextlib.suppress(typer.Exit):  # --help, --schema: printed and left
        command.make_context(name, words, parent=context)


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_parse(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for line in in_blocks(text):
        words = shlex.split(line, comments=True)
        if not placeholder(words):
            parse(words)
    for line in in_sentences(text):
        words = shlex.split(line)
        if not placeholder(words):
            try:
                parse(words)
            except Exception as error:  # typer's copy of click has no public names
                if type(error).__name__ not in UNFINISHED:
                    raise


def test_an_option_that_does_not_exist_fails() -> None:
    page = "Use `proctool run\ndemo`.\n\n```sh\nproctool warmup \\\n    --lean 3  # wide\n```\n\n    proctool run x\n"
    assert list(in_blocks(page)) == ["warmup      --lean 3  # wide", "run x"]
    assert list(in_sentences(page)) == ["run demo"]
    with pytest.raises(Exception, match="No such option"):
        parse(shlex.split(next(in_blocks(page)), comments=True))
