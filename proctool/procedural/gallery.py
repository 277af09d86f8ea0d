"""The gallery of tasks, generated from the registry: docs/tasks.md, or an HTML page."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from proctool.procedural.registry import Task, build_task, option_help, tasks
from proctool.procedural.render import as_text, render
from proctool.procedural.samples import Samples
from proctool.procedural.statistics import BIAS, measure

_WIDTH, _MOST = 100, 200
_MEASURED = 1 << 18  # tokens

# Tasks whose small preset (or default) shows too little.
_EXAMPLES: dict[str, dict[str, Any]] = {"eca": {"width": 96, "steps": 39}}

# The order of the gallery, by skill; tasks of other packages come last.
_SECTIONS: dict[str, tuple[str, ...]] = {
    "Languages": ("dyck", "shuffle-dyck", "ww", "dfa", "pcfg"),
    "Random models": ("rnn", "markov"),
    "Automata": ("eca", "life", "nca"),
    "Transductions": (
        *("identity", "reverse", "duplicate", "sort", "set", "delete", "replace", "stack"),
        *("union", "intersect", "difference"),
        *("first", "last", "select", "search", "count"),
    ),
    "Reasoning": ("induct", "deduct", "abduct", "derivations"),
    "Diagnostics": (*("haystack", "mqar", "addition", "reversed-addition", "multiplication", "modular", "sorting"),),
}

_INTRODUCTION = """\
# Tasks

Every task is a rule that makes sequences of tokens without meaning. `proctool generate TASK --show 3` prints some;
`proctool warmup --task TASK` trains on them. Options are written `dyck:k=16,length=128`; `dyck:small` uses a preset.

In the drawings, `x` marks the target tokens, `|` a separator and `_` padding. On a terminal with colour, samples show
targets in **bold green**.

Controls and mixtures work with any task: `shuffle(set)` destroys the order inside each sequence, `unigram(set)` draws
every token from the token frequencies of the task, and `random(set)` draws every token uniformly from its vocabulary.
All three keep the padding, and the loss on the same positions.
`set*0.5 + union*0.5` mixes tasks by weight over one vocabulary: parts of their layouts with the same name share ids,
in the order in which the names first appear.

Statistics come from `proctool generate TASK --stats` with about 260,000 tokens; `–` means too few tokens for an
entropy.

This page is generated from the registry: `python -m proctool.procedural.gallery --speeds bench.json > docs/tasks.md`.
"""


def sections() -> Iterator[tuple[str, list[str]]]:
    """The sections with the names of their tasks."""
    left = dict.fromkeys(tasks())
    for title, names in _SECTIONS.items():
        yield title, [name for name in names if left.pop(name, name) is None]
    if left:
        yield "From other packages", list(left)


def markdown(speeds: Mapping[str, float] | None = None, *, measured: bool = False) -> str:
    """The whole gallery, with the statistics of each task if `measured`.

    `speeds` gives tokens per second by task, as `make bench` measures them.
    """
    parts = [_INTRODUCTION]
    for title, names in sections():
        if names:
            parts.append(f"## {title}\n")
            parts += [entry(name, (speeds or {}).get(name), measured=measured) for name in names]
    return "\n".join(parts)


def entry(name: str, speed: float | None = None, *, measured: bool = False) -> str:
    """One task: definition, drawing, options, vocabulary, a sample, speed."""
    task = build_task(name)
    prose, drawing, source = _docstring(type(task))
    lines = [
        f"### {name}\n",
        prose[0] + "\n",
        f"```\n{drawing}\n```\n" if drawing else "",
        *(f"{p}\n" for p in prose[1:]),
    ]
    lines += ["| option | default | meaning |", "|---|---|---|"]
    for option, meaning in option_help(type(task)).items():
        default = task.options.get(option)
        lines.append(f"| `{option}` | {'' if default is None else default} | {' '.join(meaning.split())} |")
    presets = [f"`{name}:{preset}` is {build_task(name, preset=preset).spec}" for preset in task.presets]
    lines += ["", f"Presets: {'; '.join(presets)}." if presets else ""]
    lines += ["", f"Vocabulary, {task.vocab_size} tokens: {task.vocabulary}. Length {task.length}.", ""]
    lines += [f"```\n{_shown(_example(name))}\n```\n"]
    lines += [f"Source: {source}\n" if source else ""]
    if measured:
        lines.append(f"Statistics: {_statistics(task)}.\n")
    if speed:
        lines.append(f"Speed: {speed / 1e6:.3g} M tokens/s on one core.\n")
    return "\n".join(line for line in lines if line is not None)


def _statistics(task: Task) -> str:
    """One line with the statistics of `--stats`."""
    count = max(2, _MEASURED // task.length)
    drawn = task.sample(np.random.Generator(np.random.PCG64(0)), count)
    found = measure(drawn, task.vocab_size, determined=task.determined(drawn))
    entropies = ", ".join(
        f"{bits:.2f}" if bias <= BIAS else "–" for bits, bias in zip(found.entropies, found.biases, strict=True)
    )
    known = "" if found.determined is None else f"; {found.determined:.0%} of tokens determined by the past"
    return (
        f"gzip ratio {found.gzip_ratio:.2f}; 1- to {len(found.entropies)}-gram entropy {entropies} bits a token{known}"
        f"; {found.new:.0%} new in their sequence; {found.used} of {found.vocab_size} tokens used "
        f"(of {found.sequences * found.length} tokens)"
    )


def _docstring(cls: type[Task]) -> tuple[list[str], str, str]:
    """The paragraphs, the drawing and the source in a task's docstring."""
    import inspect

    prose, drawing, source = [], "", ""
    for paragraph in (inspect.getdoc(cls) or "").split("\n\n"):
        if paragraph.startswith(" "):
            drawing = inspect.cleandoc(paragraph)
        elif paragraph.startswith("Source:"):
            source = " ".join(paragraph.removeprefix("Source:").split())
        else:
            prose.append(" ".join(paragraph.split()))
    return prose, drawing, source


def _example(name: str) -> Task:
    return build_task(name, _EXAMPLES.get(name), preset="small" if "small" in tasks()[name].presets else None)


def _shown(task: Task) -> str:
    return as_text(task, _samples(task), most=_MOST, width=_WIDTH)


def _samples(task: Task) -> Samples:
    # Drawing a whole block of a neural automaton takes seconds, but only two samples are shown.
    alone = task.name == "nca"
    return task.sample(np.random.Generator(np.random.PCG64(0)), 2) if alone else task.stream().read(0, 2)


def page() -> str:
    """The gallery as an HTML page with coloured samples."""
    from rich.console import Console
    from rich.panel import Panel
    from rich.terminal_theme import MONOKAI

    console = Console(width=_WIDTH + 4, file=io.StringIO(), record=True, force_terminal=True, color_system="truecolor")
    for title, names in sections():
        if not names:
            continue
        console.rule(f"[bold]{title}")
        for name in names:
            task = _example(name)
            drawn = render(task, _samples(task), most=_MOST)
            console.print(Panel(drawn, title=f"[bold]{name}[/] {task.description}", title_align="left"))
    return re.sub(r"<title>.*?</title>", "<title>proctool tasks</title>", console.export_html(theme=MONOKAI))


def main() -> None:
    """Print the gallery."""
    import argparse
    import json
    from pathlib import Path

    parser = argparse.ArgumentParser(description="Print the gallery of tasks.")
    parser.add_argument("--html", action="store_true", help="write an HTML page instead of Markdown")
    parser.add_argument("--speeds", type=Path, help="JSON file printed by `python -m benchmarks.tasks --json`")
    chosen = parser.parse_args()
    speeds = {}
    if chosen.speeds:
        speeds = {row["name"]: row["generator"] for row in json.loads(chosen.speeds.read_text())["tasks"]}
    print(page() if chosen.html else markdown(speeds, measured=True), end="")


if __name__ == "__main__":
    main()
