"""Tables and lines at any width: whole columns are dropped and lines break between words; characters are never lost."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from proctool.cli import display, tables
from proctool.columns import fitting, left_out, wrapped


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


WIDTHS = {"stage": 22, "key": 8, "state": 7, "steps": 5, "tokens": 6, "starts from": 13}


@pytest.mark.parametrize("room", range(10, 90, 5))
def test_kept_columns_fit_and_the_least_important_go_first(room: int) -> None:
    kept = fitting(WIDTHS, room, drop=("key", "starts from"))
    assert kept == [name for name in WIDTHS if name in kept]
    assert kept[0] == "stage"
    assert len(kept) == 1 or sum(WIDTHS[name] + 3 for name in kept) <= room
    assert "key" not in kept or kept == list(WIDTHS)
    assert "starts from" not in kept or set(WIDTHS) - set(kept) <= {"key"}
    said = left_out(WIDTHS, kept)
    assert (said is None) == (kept == list(WIDTHS))
    assert said is None or all(name in said for name in WIDTHS if name not in kept)


def made_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """Let Rich see a terminal of `width` characters."""
    made = Console

    def terminal(**given: Any) -> Console:
        return made(**{**given, "force_terminal": True, "width": width, "color_system": None})

    monkeypatch.setattr("rich.console.Console", terminal)


@pytest.mark.parametrize("width", [20, 40, 60, 80])
def test_a_table_on_a_terminal_shows_every_cell_whole(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made_terminal(monkeypatch, width)
    columns = {"stage": "left", "key": "left", "steps": "right", "tokens": "right", "FLOPs": "right"}
    tables.show(columns, [("pretrain-scale-s0", "8d4d896a", 12800, "3.28M", "5.5e+12")], drop=("key", "FLOPs"))
    out = capsys.readouterr().out
    assert "…" not in out
    assert max(map(len, out.splitlines())) <= width
    table = out.partition("not shown")[0]
    found = re.findall(r"\S+", table)
    for name, cell in (("steps", "12800"), ("tokens", "3.28M"), ("FLOPs", "5.5e+12"), ("key", "8d4d896a")):
        assert (name in found) == (cell in found) == (width == 80 or name not in out.partition("terminal:")[2])


@pytest.mark.parametrize("width", [60, 70, 80])
def test_a_table_on_a_terminal_splits_no_word(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made_terminal(monkeypatch, width)
    name, question = "paper/codeparrot-substitutive", "How much code (CodeParrot) does a procedural warm-up replace?"
    tables.show({"recipe": "left", "question": "left"}, [(name, question), ("demo", "Does it help? " * 6)])
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    assert {name, *question.split()} <= set(out.split())


def test_a_line_breaks_between_words_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    text = "memory      about 1.3 MiB at peak, of which 108.0 KiB for weights, gradients and optimiser state"
    assert wrapped(text, io.StringIO()) == text
    lines = wrapped(text, Terminal(), hanging=12).split("\n")
    assert max(map(len, lines)) <= 40
    assert all(line.startswith(" " * 12) for line in lines[1:])
    assert " ".join(lines).split() == text.split()
    assert wrapped("x" * 50, Terminal()) == "x" * 50


@pytest.mark.parametrize("width", [40, 60, 100])
def test_a_progress_line_on_a_terminal_shows_whole_parts(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made_terminal(monkeypatch, width)
    monkeypatch.setattr("sys.stderr", Terminal())
    shown = display.ProgressLine("warmup", 300, "steps")
    shown.update(12, "loss 4.621  validation 4.778, accuracy 2%  12.3k tokens/s")
    words = shown._bar.tasks[0].fields["words"]
    shown.close()
    assert words.startswith("12/300 steps")
    assert words.endswith({40: "12/300 steps", 60: "loss 4.621", 100: "12.3k tokens/s"}[width])


@pytest.mark.parametrize(("columns", "width"), [(None, 160), ("", 160), ("0", 160), ("70", 70)])
def test_every_table_in_a_pipe_has_one_width(
    columns: str | None, width: int, proctool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    assert tables.console().width == tables.console(stderr=True).width == width
    shown = proctool("generate", "set:inputs=120,symbols=130", "--show", 1)
    assert width - 8 < max(map(len, shown.out.splitlines())) <= width
