"""The task registry."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import logging
import multiprocessing
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from proctool import config
from proctool.errors import OptionError
from proctool.procedural.plugins import Package, Plugins, load_plugins
from proctool.procedural.samples import Samples

if TYPE_CHECKING:
    from proctool.procedural.streams import Stream

# Importing these modules fills the registry; plugins.py adds tasks of other packages.
_BUILT_IN = (
    "brackets",
    "transduction",
    "stack",
    "two_inputs",
    "lookup",
    "strings",
    "automata",
    "nca",
    "life",
    "finite_automata",
    "grammars",
    "markov",
    "recurrent",
    "lime",
    "derivations",
    "diagnostics",
    "arithmetic",
    "mqar",
)

WARMUPS = (
    "set", "union", "sort", "identity", "reverse", "stack", "dyck:k=16", "shuffle-dyck:k=16", "eca:width=16",
)  # fmt: skip
"""The tasks that `proctool search` tries by default: those that the literature warms language models up with, in
versions that a small model learns in minutes. `nca` is left out, because its 10,003 tokens dominate a small model."""

MOST_TOKENS = 1 << 16
"""Largest vocabulary of a task, so that its tokens fit 16 bits and its tables fit in memory."""
MOST_LENGTH = 1 << 17
"""Longest sample of a task, for the same reason."""


class Task(ABC):
    """A rule that makes sequences. Subclasses are frozen dataclasses whose fields are the task's options.

    Options are checked on construction: `__post_init__` raises OptionError (see `require`).
    """

    name: ClassVar[str]
    """The registered name; set by `@task`."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Named sets of options, used as `dyck:small` or `--preset small`."""
    size_option: ClassVar[str]
    """The option that makes samples longer; a length curriculum raises it."""

    @property
    @abstractmethod
    def length(self) -> int:
        """Tokens per sample."""

    @property
    @abstractmethod
    def layout(self) -> dict[str, range]:
        """Token ids by role ("symbol", "separator", "pad", ...), in order, together 0..vocab_size - 1."""

    @property
    @abstractmethod
    def min_entropy_bits(self) -> float:
        """-log2 of the probability of the likeliest sample, or a lower bound of it.

        If it is small, a sequence is likely to be drawn twice, so streams separate splits by content.
        """

    @abstractmethod
    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw n samples, vectorised over n, with no other randomness than `rng`."""

    targets_determined: ClassVar[bool] = False
    """Whether the tokens before each target determine it."""

    def determined(self, samples: Samples) -> NDArray[np.bool_] | None:
        """Which tokens of these samples are determined by those before them, if the task knows. (n, length)."""
        return samples.targets if self.targets_determined else None

    @property
    def vocab_size(self) -> int:
        """Token ids are 0..vocab_size - 1."""
        return sum(ids.stop - ids.start for ids in self.layout.values())  # len() of a range has an upper bound

    @property
    def dtype(self) -> type[np.unsignedinteger[Any]]:
        """The smaller of uint16 and uint32 that fits the vocabulary."""
        return np.uint16 if self.vocab_size <= 1 << 16 else np.uint32

    def resized(self, size: int) -> Self:
        """The same task with its size option set to `size`: one step of a length curriculum. Raises OptionError."""
        return dataclasses.replace(self, **{self.size_option: size})  # type: ignore[type-var]

    def with_length(self, length: int) -> Self:
        """The largest version of the task whose samples have at most `length` tokens. Raises OptionError."""
        for size in range(length, 0, -1):
            with contextlib.suppress(OptionError):
                smaller = self.resized(size)
                if smaller.length <= length:
                    return smaller
        raise OptionError(f"{self.name}: no {self.size_option} gives samples of at most {length} tokens")

    @property
    def description(self) -> str:
        """One line: the first of the class's docstring."""
        return (inspect.getdoc(type(self)) or "").partition("\n")[0]

    @property
    def options(self) -> dict[str, Any]:
        """Every option with its value, in order."""
        return config.plain(self)  # type: ignore[no-any-return]

    @property
    def spec(self) -> str:
        """The full specification: `dyck:k=16,length=128,p_open=0.5`. `parse_spec` parses it to the same task."""
        written = ",".join(f"{key}={value}" for key, value in self.options.items() if value is not None)
        return f"{self.name}:{written}" if written else self.name

    @property
    def vocabulary(self) -> str:
        """The token ids by role: `symbol 0..99, separator 100, pad 101`."""
        return ", ".join(
            f"{role} {ids.start}" if len(ids) == 1 else f"{role} {ids.start}..{ids.stop - 1}"
            for role, ids in self.layout.items()
        )

    def describe(self) -> str:
        """The task's docstring, options, vocabulary and length, as text with several lines."""
        meanings = option_help(type(self))
        options = [
            f"{name} = {value}: {' '.join(meanings[name].split())}"
            for name, value in self.options.items()
            if name in meanings
        ]
        sizes = f"vocabulary: {self.vocab_size} tokens: {self.vocabulary}\nlength: {self.length} tokens"
        parts = [self.spec, inspect.getdoc(type(self)) or "", "\n".join(options), sizes]
        return "\n\n".join(part for part in parts if part)

    def show(self, n: int = 3, *, seed: int = 0, split: str = "train", colour: bool = False, width: int = 100) -> str:
        """The first n samples of a stream as text, `width` columns wide.

        `colour` marks the target tokens in bold green by ANSI codes. Raises OptionError for n below 1.
        """
        from proctool.procedural.render import as_text

        if n < 1:
            raise OptionError(f"n = {n}: must be at least 1")
        return as_text(self, self.stream(seed, split).read(0, n), colour=colour, width=width)

    def stream(self, seed: int = 0, split: str = "train") -> Stream:
        """The endless stream of samples of one seed and split: `stream.read(start, stop)`. Raises OptionError."""
        from proctool.procedural.streams import Stream

        return Stream(self, seed, split)


def require(holds: bool, task: Task, option: str, reason: str) -> None:
    """Raise OptionError with the task, the option, its value and the reason, unless `holds`."""
    if not holds:
        raise OptionError(f"{task.name}: {option} = {getattr(task, option)}: {reason}")


def require_fits(task: Task, length: str, vocabulary: str) -> None:
    """Raise OptionError if the task has more than MOST_LENGTH tokens per sample or MOST_TOKENS in its vocabulary.

    `length` and `vocabulary` are the options that the error names.
    """
    require(task.length <= MOST_LENGTH, task, length, f"a sample may have at most {MOST_LENGTH} tokens")
    require(task.vocab_size <= MOST_TOKENS, task, vocabulary, f"the vocabulary may have at most {MOST_TOKENS} tokens")


_TASKS: dict[str, type[Task]] = {}
_LOG = logging.getLogger("proctool")
_NAME = re.compile(r"[a-z][a-z0-9_-]*")

AnyTask = TypeVar("AnyTask", bound=Task)


def task(name: str) -> Callable[[type[AnyTask]], type[AnyTask]]:
    """Register a frozen dataclass as the task `name`. Raises TypeError, ValueError if it cannot be a task."""

    def register(cls: type[AnyTask]) -> type[AnyTask]:
        known = _TASKS.get(name, cls)
        if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"task {name!r} is already registered as {known.__module__}.{known.__qualname__}")
        if not _NAME.fullmatch(name):
            raise ValueError(f"task {name!r}: a name may have only lower-case letters, digits, _ and -")
        _require_task(name, cls)
        cls.name = name
        _TASKS[name] = cls
        return cls

    return register


def _require_task(name: str, cls: type) -> None:
    """Raise TypeError for a class that commands cannot use."""
    if not (isinstance(cls, type) and issubclass(cls, Task)):
        raise TypeError(f"task {name!r}: {cls!r} is not a subclass of Task")
    if "__dataclass_params__" not in vars(cls) or not vars(cls)["__dataclass_params__"].frozen:
        raise TypeError(
            f"task {name!r}: {cls.__qualname__} is not a frozen dataclass; put @dataclass(frozen=True) below @task"
        )
    for option in dataclasses.fields(cls):  # type: ignore[arg-type]
        if option.default is dataclasses.MISSING and option.default_factory is dataclasses.MISSING:
            raise TypeError(f"task {name!r}: option {option.name} has no default; give it one")
    if inspect.isabstract(cls) or not hasattr(cls, "size_option"):
        lacking = sorted({*cls.__abstractmethods__, *(() if hasattr(cls, "size_option") else ("size_option",))})
        raise TypeError(f"task {name!r}: {cls.__qualname__} must define {', '.join(lacking)}")


@functools.cache
def _load() -> Plugins:
    for module in _BUILT_IN:
        __import__(f"proctool.procedural.{module}")
    found = load_plugins(_TASKS)
    if multiprocessing.parent_process() is None:  # only once, not in workers
        for each in found.broken:
            _LOG.warning("proctool: %s", each)
    return found


def tasks() -> dict[str, type[Task]]:
    """Every registered task class by name, sorted."""
    _load()
    return dict(sorted(_TASKS.items()))


def task_class(name: str) -> type[Task]:
    """The task class registered as `name`. Raises OptionError with the most similar name."""
    known = tasks()
    if name not in known:
        if broken := next((each for each in _load().broken if each.entry == name), None):
            raise OptionError(f'task "{name}": {broken}')
        raise OptionError(f'unknown task "{name}"{config.suggestion(name, known)}')
    return known[name]


def package_of(cls: type[Task]) -> Package | None:
    """The package of a task; None for built-in tasks."""
    if cls.__module__.startswith("proctool."):
        return None
    return _load().package(cls.__module__)


def build_task(name: str, options: Mapping[str, Any] | None = None, preset: str | None = None) -> Task:
    """The task `name` with `options` over its `preset` over its defaults. Raises OptionError."""
    cls = task_class(name)
    values: dict[str, Any] = {}
    if preset is not None:
        if preset not in cls.presets:
            raise OptionError(f'{name}: unknown preset "{preset}"{config.suggestion(preset, cls.presets)}')
        values.update(cls.presets[preset])
    values.update(options or {})
    return config.build(cls, values, name)


def parse_spec(spec: str | Mapping[str, Any]) -> Task:
    """A task from `dyck:k=16,length=128`, `dyck:small,k=8`, or the mapping {name: dyck, k: 16}.

    Raises OptionError.
    """
    if isinstance(spec, Mapping):
        values = dict(spec)
        name, preset = values.pop("name", None), values.pop("preset", None)
        if name is None:
            raise OptionError(f"task {dict(spec)!r} has no name; write for example {{name: dyck, k: 16}}")
        return build_task(str(name), values, preset)
    name, _, written = spec.partition(":")
    options: dict[str, Any] = {}
    preset = None
    for index, part in enumerate(filter(None, written.split(","))):
        key, equals, value = part.partition("=")
        if equals and key.strip() in options:
            raise OptionError(f'task "{spec}": {key.strip()} is given twice; remove one')
        if equals:
            options[key.strip()] = value.strip()
        elif index == 0:
            preset = key.strip()
        else:
            raise OptionError(f'task "{spec}": "{part}" is not option=value; write for example dyck:k=16,length=128')
    return build_task(name.strip(), options, preset)


def option_help(cls: type[Task]) -> dict[str, str]:
    """The description of each option: the string below its field."""
    return config.field_help(cls)
