"""`proctool generate TASK`: a subcommand for every registered task, its options as typed flags."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from proctool import config
from proctool.cli import display
from proctool.cli.lazy import LazyGroup, group, single
from proctool.cli.options import Common, with_values
from proctool.errors import OptionError
from proctool.outputs import Output, require_safe
from proctool.units import format_bytes, format_count

if TYPE_CHECKING:
    from proctool.procedural.registry import Task

_DEFAULT_SAMPLES = 10_000


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """Generate samples of a task into a data file."""

    samples: int | None = None
    """Samples to make (default: 10000)."""
    tokens: int | None = None
    """Make as many samples as hold this many tokens, for example 2M."""
    seed: int = 0
    """The stream's seed; other seeds share nothing with it."""
    split: Literal["train", "validation", "test"] = "train"
    """The stream's split; splits share nothing."""
    control: Literal["shuffle", "unigram"] | None = None
    """Destroy the structure: shuffle each sequence, or draw tokens by their frequency."""
    preset: str | None = None
    """Named options, such as small; flags go over them."""
    shard: str | None = None
    """Make only part i of n, written i/n: the n files together are the single run's."""
    show: int | None = None
    """Print this many samples for people instead of writing a file."""
    output: Path | None = None
    """The file to write (default: TASK.safetensors)."""


def _generate(values: Sequence[Mapping[str, Any]], common: Common, name: str) -> None:
    from proctool.procedural.controls import control
    from proctool.procedural.registry import build_task

    options = config.build(GenerateOptions, values[0], "")
    task: Task = build_task(name, values[1], options.preset)
    if options.control is not None:
        task = control(options.control, task)
    if options.show is not None:
        _show(task, options)
        return
    samples = _samples(task, options)
    output = options.output or Path(f"{name}.safetensors")
    require_safe([Output(output, "--output", "data")])
    if common.dry_run:
        from proctool.procedural.dataset import shard_range

        start, stop = shard_range(samples, options.shard)
        tokens = (stop - start) * task.length
        size = tokens * (task.dtype().itemsize + 1)
        if common.json:
            planned = {"task": task.spec, "samples": stop - start, "tokens": tokens, "vocab_size": task.vocab_size}
            display.emit({**planned, "bytes": size, "output": str(output)})
        else:
            display.say(f"{task.spec}: {format_count(tokens)} tokens, {format_bytes(size)}, would go to {output}")
        return
    _write(task, options, samples, output, common)


def _samples(task: Task, options: GenerateOptions) -> int:
    if options.samples is not None and options.tokens is not None:
        raise OptionError("give --samples or --tokens, not both")
    if options.tokens is not None:
        if options.tokens < task.length:
            raise OptionError(f"tokens = {options.tokens}: fewer than one sample's {task.length}")
        return -(-options.tokens // task.length)
    return _DEFAULT_SAMPLES if options.samples is None else options.samples


def _write(task: Task, options: GenerateOptions, samples: int, output: Path, common: Common) -> None:
    from proctool.procedural.dataset import generate

    with display.progress(task.name, samples, "samples") as shown:
        written = generate(
            task,
            output,
            samples=samples,
            seed=options.seed,
            split=options.split,
            shard=options.shard,
            progress=shown.update,
        )
    start, stop = written.metadata["samples"]
    result = {
        "event": "generate",
        "artifact": str(output),
        "content": written.content,
        "task": task.spec,
        "samples": stop - start,
        "tokens": (stop - start) * task.length,
        "vocab_size": task.vocab_size,
    }
    display.say(
        f"wrote {output}: {format_count(stop - start)} samples, {format_count(result['tokens'])} tokens of {task.spec} "
        f"(content {written.content[:12]})"
    )
    if common.json:
        display.emit(result)


def _show(task: Task, options: GenerateOptions) -> None:
    from proctool.procedural.streams import Stream

    if options.show is None or options.show < 1:
        raise OptionError(f"show = {options.show}: must be at least 1")
    from rich.console import Console

    from proctool.procedural.render import render

    console, stream = Console(), Stream(task, options.seed, options.split)
    for start in range(0, options.show, _AT_ONCE):
        console.print(render(task, stream.read(start, min(start + _AT_ONCE, options.show))))


_AT_ONCE = 128
"""Samples drawn and shown together, so that a reader who wants few (`| head`) waits for few."""


class TaskGroup(LazyGroup):
    """One subcommand per registered task."""

    def entries(self) -> Mapping[str, str]:
        """Every registered task with its line."""
        from proctool.procedural.registry import tasks

        return {name: (cls.__doc__ or "").strip().partition("\n")[0] for name, cls in tasks().items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The task's command. Raises OptionError with the nearest name."""
        from proctool.procedural.registry import task_class

        if not args[0].startswith("-"):
            task_class(args[0])
        return super().resolve_command(ctx, args)

    def load(self, name: str) -> typer.Typer:
        """The command of one task: its options as flags."""
        from proctool.procedural.registry import task_class

        function = with_values((GenerateOptions, task_class(name)), functools.partial(_generate, name=name))
        return single(name, function, self.entries()[name])


app = group(TaskGroup, "Generate procedural data: one subcommand per task.")
