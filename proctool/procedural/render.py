"""Readable samples: brackets as brackets, automata as block graphics, targets in colour."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, Group
from rich.text import Text

from proctool.procedural.arithmetic import Modular
from proctool.procedural.automata import ElementaryAutomaton
from proctool.procedural.controls import Control
from proctool.procedural.draws import Mask, Tokens
from proctool.procedural.nca import NeuralAutomaton
from proctool.procedural.registry import Task
from proctool.procedural.samples import Samples

_TARGET = "bold green"
_CONTEXT = "default"
_FAINT = "bright_black"

_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
_PAIRS = ("()", "[]", "{}", "<>")


def _bracket(index: int, side: int) -> str:
    if index < len(_PAIRS):
        return _PAIRS[index][side]
    return "()"[side] + str(index).translate(_SUBSCRIPTS)


# Text of the index-th token of a layout part; other parts are written as their name and the index.
_WRITTEN: dict[str, Callable[[int], str]] = {
    "symbol": lambda index: str(index + 1),
    "pop": lambda index: "POP",
    "separator": lambda index: "|",
    "pad": lambda index: "·",
    "blank": lambda index: "·",
    "open": lambda index: _bracket(index, 0),
    "close": lambda index: _bracket(index, 1),
    "number": str,
    "numeral": lambda index: f"#{index}",
    "digit": str,
    "answer": str,
    "operator": lambda index: "+",
    "equals": lambda index: "=",
    "stop": lambda index: "■",
    "key": lambda index: f"k{index}",
    "query": lambda index: f"?{index}",
    "value": str,
    "cells": str,
    "patch": str,
    "start": lambda index: "<",
    "end": lambda index: ">",
    "alphabet": lambda index: "ULM"[index],
    "atom": lambda index: chr(ord("a") + index) if index < 26 else f"a{index}",
    "connective": lambda index: "→∧∨"[index],
    "rule": lambda index: ("premise", "detach", "join", "left", "right", "weaken")[index],
    "space": lambda index: "/",
    "colon": lambda index: ":",
    "bracket": lambda index: "[]"[index],
    "comma": lambda index: ",",
}

_SIGNS = {"add": "+", "subtract": "−", "multiply": "×"}


def spelling(task: Task) -> list[str]:
    """The text of each token id. vocab_size strings."""
    if isinstance(task, Control):
        return spelling(task.task)
    words = []
    for role, ids in task.layout.items():
        write = _WRITTEN.get(role, lambda index, role=role: f"{role}{index}")
        words += [write(index) for index in range(len(ids))]
    if "pop" not in task.layout and "symbol" in task.layout:
        ids = task.layout["symbol"]
        words[ids.start : ids.stop] = map(str, range(len(ids)))
    if task.name == "multiplication":
        words[task.layout["operator"].start] = "×"
    if isinstance(task, Modular):
        words[task.layout["operator"].start] = _SIGNS[task.operation]
    return words


def render(task: Task, samples: Samples, most: int = 512, colour: bool = True) -> Group:
    """Each sample as a rich renderable, at most its first `most` tokens. Targets are bold green.

    Neural automata show states as colours, or as digits without colour.
    """
    kind = task.task if isinstance(task, Control) else task
    drawn = []
    for tokens, targets in zip(samples.tokens, samples.targets, strict=True):
        if isinstance(kind, ElementaryAutomaton):
            text = _rows(kind, tokens)
        elif isinstance(kind, NeuralAutomaton) and kind is task:
            text = _frames(kind, tokens, colour)
        else:
            text = _line(task, tokens[:most], targets[:most])
            if len(tokens) > most:
                text.append(f" … {len(tokens) - most} more", _FAINT)
        text.append("\n")
        drawn.append(text)
    return Group(*drawn)


def as_text(task: Task, samples: Samples, *, most: int = 512, colour: bool = False, width: int = 100) -> str:
    """The output of `render` as text of at most `width` columns, with ANSI codes if `colour`."""
    console = Console(
        width=width,
        file=io.StringIO(),
        force_terminal=colour,
        color_system="truecolor" if colour else None,
        legacy_windows=False,
    )
    with console.capture() as captured:
        console.print(render(task, samples, most, colour=colour))
    return "\n".join(line.rstrip() for line in captured.get().rstrip().splitlines())


def _line(task: Task, tokens: Tokens, targets: Mask) -> Text:
    words = spelling(task)
    faint = {token for role in ("pad", "blank") for token in task.layout.get(role, ())}
    # Brackets and digits are written without spaces, numbers with spaces.
    close_together = (
        not {"symbol", "number", "value", "rule"} & set(task.layout) and len(task.layout.get("cells", ())) <= 10
    )
    text = Text(no_wrap=False)
    for token, target in zip(tokens.tolist(), targets.tolist(), strict=True):
        if text and not close_together:
            text.append(" ")
        text.append(words[token], _TARGET if target else _FAINT if token in faint else _CONTEXT)
    return text


_HALVES = {(0, 0): " ", (1, 0): "▀", (0, 1): "▄", (1, 1): "█"}


def eca_cells(task: ElementaryAutomaton, tokens: Tokens) -> NDArray[np.uint8]:
    """The cells of one sample. (length,) -> (steps + 1, width)."""
    places = np.arange(task.patch - 1, -1, -1, dtype=tokens.dtype)
    cells = (tokens[:, None] >> places) & 1
    return cells.astype(np.uint8).reshape(task.steps + 1, task.width)


def _rows(task: ElementaryAutomaton, tokens: Tokens) -> Text:
    """Two rows of cells per line; the line with the given first row has no target colour."""
    cells = eca_cells(task, tokens)
    if len(cells) % 2:
        cells = np.concatenate([cells, np.zeros_like(cells[:1])])
    text = Text(no_wrap=True, overflow="crop")
    for number, (upper, lower) in enumerate(zip(cells[::2].tolist(), cells[1::2].tolist(), strict=True)):
        line = "".join(_HALVES[pair] for pair in zip(upper, lower, strict=True))
        text.append(("\n" if number else "") + line, _TARGET if number else _CONTEXT)
    return text


_STATES = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white", "bright_red", "bright_blue")


def nca_frames(task: NeuralAutomaton, tokens: Tokens) -> NDArray[np.uint8]:
    """The cells of one sample's whole frames. (length,) -> (frames, grid, grid)."""
    half = task.grid // 2
    frames = len(tokens) // task.frame_length
    patches = tokens[: frames * task.frame_length].reshape(frames, task.frame_length)[:, 1:-1].astype(np.int64)
    cells = np.stack([patches // task.states**place % task.states for place in range(4)], axis=-1)
    # (frames, rows of patches, patches, 2, 2) -> (frames, rows of patches, 2, patches, 2)
    square = cells.reshape(frames, half, half, 2, 2).swapaxes(2, 3)
    return square.reshape(frames, task.grid, task.grid).astype(np.uint8)


def _frames(task: NeuralAutomaton, tokens: Tokens, colour: bool, most: int = 6) -> Text:
    """The first frames side by side: lines of half blocks with two rows of cells, or lines of digits with one row."""
    frames = nca_frames(task, tokens)[:most]
    text = Text(no_wrap=True, overflow="crop")
    for row in range(0, task.grid, 2 if colour else 1):
        for frame in frames:
            if colour:
                for upper, lower in zip(frame[row].tolist(), frame[row + 1].tolist(), strict=True):
                    text.append("▀", f"{_STATES[upper % len(_STATES)]} on {_STATES[lower % len(_STATES)]}")
            else:
                text.append("".join(f"{state:x}" for state in frame[row].tolist()))
            text.append("  ")
        text.append("\n")
    return text
