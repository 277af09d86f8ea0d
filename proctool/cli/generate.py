"""`proctool generate SPEC`: any specification, and for each registered task its options as typed flags."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from proctool import config
from proctool.cli import display, tables
from proctool.cli.lazy import LazyGroup, group, single
from proctool.cli.options import Common, with_values
from proctool.errors import OptionError
from proctool.outputs import reads_of, require_safe
from proctool.units import counted, format_bytes

if TYPE_CHECKING:
    from proctool.procedural.formats import Format
    from proctool.procedural.registry import Task

_DEFAULT_SAMPLES = 10_000


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """Generate samples of a task into a data file."""

    samples: int | None = None
    """Samples to generate (default: 10000)."""
    tokens: int | None = None
    """Generate enough samples for this many tokens, for example 2M."""
    seed: int = 0
    """Seed of the stream; different seeds give independent samples."""
    split: Literal["train", "validation", "test"] = "train"
    """Split of the stream; splits have no samples in common."""
    control: Literal["shuffle", "unigram", "random"] | None = None
    """Destroy structure: shuffle tokens, draw them by frequency or evenly."""
    shard: str | None = None
    """Generate only part i/n; the n files together equal one full run."""
    show: int | None = None
    """Print this many samples instead of writing a file."""
    stats: bool = False
    """Print statistics (entropies, copies) instead of writing a file."""
    check: bool = False
    """Check the rules for tasks instead of writing a file."""
    format: Literal["safetensors", "parquet", "jsonl", "arrow", "nanogpt", "megatron"] | None = None
    """File format (default: by the file's extension)."""
    as_text: bool = False
    """Write JSON Lines with words of --tokenizer instead of token ids."""
    tokenizer: str | None = None
    """Tokenizer for --as-text: a name, a file or a folder."""
    output: Path | None = None
    """The file to write (default: TASK.safetensors)."""


@dataclass(frozen=True, kw_only=True)
class TaskGenerateOptions(GenerateOptions):
    """Generate samples of a task into a data file."""

    preset: str | None = None
    """Named set of options, such as small; flags override it."""


def _of_task(values: Sequence[Mapping[str, Any]], common: Common, name: str) -> None:
    from proctool.procedural.registry import build_task

    options = config.build(TaskGenerateOptions, values[0], "")
    _generate(build_task(name, values[1], options.preset), options, common)


def _of_spec(values: Sequence[Mapping[str, Any]], common: Common, spec: str) -> None:
    from proctool.procedural.mixture import parse_tasks

    _generate(parse_tasks(spec), config.build(GenerateOptions, values[0], ""), common)


def _generate(task: Task, options: GenerateOptions, common: Common) -> None:
    from proctool.procedural.controls import control
    from proctool.procedural.formats import FORMATS, format_of

    if options.control is not None:
        task = control(options.control, task)
    if options.check:
        _check(task, options, common)
        return
    if options.stats:
        from proctool.procedural.statistics import of_task

        count = None if options.samples is None and options.tokens is None else _samples(task, options)
        display.statistics(task.spec, of_task(task, samples=count, seed=options.seed, split=options.split), common.json)
        return
    if options.show is not None:
        _show(task, options, options.show)
        return
    samples = _samples(task, options)
    name = _text_format(options) if options.as_text else format_of(options.output, options.format)
    if options.tokenizer is not None and not options.as_text:
        raise OptionError("--tokenizer works only with --as-text; add it, or leave --tokenizer out")
    form = FORMATS[name]
    output = options.output or Path(f"{task.name}{'.bin' if name == 'megatron' else form.ending}")
    require_safe(form.outputs(output), reads_of(options))
    if common.dry_run:
        _plan(task, options, samples, form, output, common)
        return
    _write(task, options, samples, form, output, common)


def _samples(task: Task, options: GenerateOptions) -> int:
    if options.samples is not None and options.tokens is not None:
        raise OptionError("give --samples or --tokens, not both")
    if options.tokens is not None:
        if options.tokens < task.length:
            raise OptionError(f"tokens = {options.tokens}: one sample has {task.length} tokens; ask for at least that")
        return -(-options.tokens // task.length)
    return _DEFAULT_SAMPLES if options.samples is None else options.samples


def _text_format(options: GenerateOptions) -> str:
    from proctool.procedural.formats import format_of

    if options.tokenizer is None:
        raise OptionError("--as-text needs --tokenizer: its words stand for the symbols")
    named = options.format is not None or (options.output is not None and options.output.suffix)
    if named and format_of(options.output, options.format) != "jsonl":
        raise OptionError("--as-text writes JSON Lines; name a file that ends in .jsonl")
    return "jsonl"


def _plan(task: Task, options: GenerateOptions, samples: int, form: Format, output: Path, common: Common) -> None:
    from proctool.procedural.dataset import shard_range

    start, stop = shard_range(samples, options.shard)
    tokens = (stop - start) * task.length
    size = tokens * form.bytes_per_token(task) if form.bytes_per_token is not None else None
    if common.json:
        planned = {"task": task.spec, "samples": stop - start, "tokens": tokens, "vocab_size": task.vocab_size}
        display.emit({**planned, "bytes": size, "output": str(output)})
    else:
        large = f", {format_bytes(size)}" if size is not None else ""
        display.say(f"{task.spec}: would write {counted(tokens, 'token')}{large} to {output}")


def _write(task: Task, options: GenerateOptions, samples: int, form: Format, output: Path, common: Common) -> None:
    from proctool.procedural.dataset import generate, shard_range

    write = form.write
    if options.as_text:
        from proctool.corpora.subwords import load_tokenizer
        from proctool.procedural.formats.lines import write_text
        from proctool.procedural.formats.words import words_for

        assert options.tokenizer is not None
        write = functools.partial(write_text, words=words_for(load_tokenizer(options.tokenizer), task.vocab_size))
    with display.progress(task.name, samples, "samples") as shown:
        content = generate(
            task,
            output,
            samples=samples,
            seed=options.seed,
            split=options.split,
            shard=options.shard,
            write=write,
            progress=shown.update,
        )
    start, stop = shard_range(samples, options.shard)
    tokens = (stop - start) * task.length
    files = [str(each.path) for each in form.outputs(output)]
    result = {
        "event": "generate",
        "artifact": str(output),
        "files": files,
        "content": content,
        "task": task.spec,
        "samples": stop - start,
        "tokens": tokens,
        "vocab_size": task.vocab_size,
    }
    display.say(
        f"wrote {', '.join(files)}: {counted(stop - start, 'sample')}, {counted(tokens, 'token')} of "
        f"{task.spec} (content {content[:12]})"
    )
    if common.json:
        display.emit(result)


def _show(task: Task, options: GenerateOptions, count: int) -> None:
    from proctool.procedural.streams import Stream

    if count < 1:
        raise OptionError(f"show = {count}: must be at least 1")
    from proctool.procedural.render import render

    console, stream = tables.console(), Stream(task, options.seed, options.split)
    for start in range(0, count, _AT_ONCE):
        console.print(render(task, stream.read(start, min(start + _AT_ONCE, count)), most=_SHOWN))


_AT_ONCE = 128
"""Samples drawn at a time, so that the first ones appear soon (`| head`)."""
_SHOWN = 256
"""Tokens shown of a sample: two samples of most tasks fit a screen."""


def _check(task: Task, options: GenerateOptions, common: Common) -> None:
    from proctool.procedural.contract import RULES, broken_rules

    broken = broken_rules(task)
    if common.json:
        found = [{"rule": each.rule, "reason": each.reason} for each in broken]
        display.emit({"event": "check", "task": task.spec, "rules": list(RULES), "broken": found})
    for each in broken:
        display.say(f"proctool: {task.name}: {each}")
    if broken:
        raise typer.Exit(1)
    if not common.json:
        _show(task, options, 1)
    display.say(f"{task.spec}: follows all {len(RULES)} rules ({', '.join(RULES)})")


class TaskGroup(LazyGroup):
    """One subcommand per registered task, and one for any other specification."""

    def entries(self) -> Mapping[str, str]:
        """Every registered task with its line."""
        from proctool.procedural.registry import tasks

        return {name: (cls.__doc__ or "").strip().partition("\n")[0] for name, cls in tasks().items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command of a task or a specification. Raises OptionError with the nearest name."""
        from proctool.procedural.registry import task_class

        if not args[0].startswith("-") and args[0] not in self.entries():
            if not set(args[0]) & set(":(*+ "):
                task_class(args[0])
            function = with_values((GenerateOptions,), functools.partial(_of_spec, spec=args[0]))
            command = typer.main.get_command(single("SPEC", function, f"Generate samples of {args[0]}."))
            return args[0], command, args[1:]
        return super().resolve_command(ctx, args)

    def load(self, name: str) -> typer.Typer:
        """The command of one task: its options as flags."""
        from proctool.procedural.registry import task_class

        function = with_values((TaskGenerateOptions, task_class(name)), functools.partial(_of_task, name=name))
        return single(name, function, self.entries()[name])


app = group(
    TaskGroup,
    "Generate procedural data. Give a task below with its options as flags, or a full specification: set:inputs=24, "
    "shuffle(set), set*0.5 + union*0.5.",
)
