"""A recipe: one strict YAML file that describes an experiment.

    name: demo
    model: 4x4x64
    corpus: python
    context: 128
    seeds: [0, 1]
    warmup: {steps: 600, batch_size: 64}                    # of every arm's warm-up
    pretrain: {steps: 1000, batch_size: 32, schedule: cosine}
    diagnostics:
      haystack: {pairs: 8, steps: 400, batch_size: 64}      # the task's options beside the training's
    arms:                                                   # each arm: only what differs
      cold: {}
      set: {warmup: {task: "set:inputs=24"}}
      attention: {warmup: {task: "set:inputs=24"}, components: [attention]}
    baseline: cold

Options are named as the flags of `proctool warmup`, `pretrain` and `eval` (dashes and underscores are the same) and
checked by the same classes. An option left out has the command's default.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from proctool import config
from proctool.errors import OptionError, ProctoolError
from proctool.evaluation.options import DiagnosticOptions, HaystackOptions
from proctool.models.components import COMPONENTS
from proctool.models.shapes import parse_model
from proctool.procedural.mixture import parse_tasks
from proctool.procedural.registry import Task, build_task
from proctool.training.options import InitOptions, PretrainOptions, WarmupOptions

T = TypeVar("T")
Values = dict[str, Any]
"""Options by name, not yet checked against the class they are for."""

DIAGNOSTICS: Mapping[str, type[DiagnosticOptions]] = {"haystack": HaystackOptions}
"""What `proctool eval NAME` trains on, with the options of each."""

# Names become folder names and words in sentences.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
# Options that a recipe gives once for all, or the graph itself.
_NOT_HERE = {
    "seed": "seeds are the recipe's (seeds: [0, 1, 2])",
    "output": "every stage's file has its place in the run folder",
    "run_dir": "every stage has its own folder",
    "resume": "a stage goes on from its checkpoint by itself",
}


@dataclass(frozen=True)
class Arm:
    """One treatment, as its differences from the recipe."""

    warmup: Values = field(default_factory=dict)
    """Its warm-up, over the recipe's. Without `task` (or `data`) the arm starts cold."""
    init: str | None = None
    """Start from this artifact or Hugging Face folder instead of a warm-up."""
    components: tuple[str, ...] | None = None
    """What is carried over, into pretraining and diagnostics alike."""
    embeddings: str | None = None
    """Start of the token embeddings, in pretraining and diagnostics alike."""
    pretrain: Values = field(default_factory=dict)
    """Its pretraining, over the recipe's."""
    diagnostics: dict[str, Values] = field(default_factory=dict)
    """Its diagnostics, over the recipe's, by name."""

    @property
    def is_warmed(self) -> bool:
        """Whether it has a warm-up."""
        return bool(self.warmup)

    @property
    def carried(self) -> Values:
        """The options at the arm's own level that pretraining and diagnostics share."""
        given = {"init": self.init, "components": self.components, "embeddings": self.embeddings}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Recipe:
    """An experiment: arms that differ in one thing, seeds, and what is measured. Raises OptionError."""

    name: str
    model: str
    arms: dict[str, Arm]
    title: str = ""
    """The question it answers, in one line."""
    family: str | None = None
    corpus: str | None = None
    """What arms are pretrained on. None: diagnostics only."""
    tokenizer: str | None = None
    context: int = 128
    """Tokens the model can attend to: pretraining's row, and room for every warm-up sequence."""
    seeds: tuple[int, ...] = (0,)
    warmup: Values = field(default_factory=dict)
    pretrain: Values = field(default_factory=dict)
    diagnostics: dict[str, Values] = field(default_factory=dict)
    """By name of the task: its options, the training's, and `warmup` for differences of the warm-ups before it."""
    baseline: str = ""
    """The arm others are compared with. Default: the first."""

    def __post_init__(self) -> None:
        if not self.baseline and self.arms:
            object.__setattr__(self, "baseline", next(iter(self.arms)))
        for values in (self.warmup, self.pretrain):
            _underscored(values)
        for group in (self.diagnostics, *(arm.diagnostics for arm in self.arms.values())):
            for options in group.values():
                _underscored(options)
                _underscored(options.get("warmup"))
        for arm in self.arms.values():
            _underscored(arm.warmup)
            _underscored(arm.pretrain)
        self._check()

    def warmup_options(self, arm: str, seed: int, diagnostic: str | None = None) -> WarmupOptions | None:
        """The arm's warm-up with everything inherited; before a diagnostic, with its model and differences too.

        Raises OptionError.
        """
        mine = self.arms[arm]
        if not mine.is_warmed:
            return None
        shared = self._shared() | {"context": self.context} | self.warmup | mine.warmup
        where = f"arms.{arm}.warmup"
        if diagnostic is not None:
            asked = self._diagnostic_values(diagnostic, arm)
            shared |= {key: asked[key] for key in ("model", "family") if key in asked}
            shared |= asked.get("warmup", {})
        if "task" in shared:
            shared["task"] = (_named(f"{where}.task", lambda: parse_tasks(shared["task"])).spec,)
        options = _build(WarmupOptions, shared, where, seed)
        _check_model(f"{where}.model", options.model)
        return options

    def pretrain_options(self, arm: str, seed: int) -> PretrainOptions:
        """The arm's pretraining with everything inherited; `init` is still to be filled in where it is warmed up.

        Raises OptionError.
        """
        mine = self.arms[arm]
        given = {"corpus": self.corpus, "tokenizer": self.tokenizer, "context": self.context}
        shared = self._shared() | {key: value for key, value in given.items() if value is not None}
        values = shared | self.pretrain | mine.carried | mine.pretrain
        options = _build(PretrainOptions, self._only_if_warm(mine, values), f"arms.{arm}.pretrain", seed)
        _check_components(f"arms.{arm}.components", options.components)
        return options

    def diagnostic_options(self, name: str, arm: str, seed: int) -> DiagnosticOptions:
        """The diagnostic from the arm's weights; `init` is still to be filled in where it is warmed up.

        Raises OptionError.
        """
        values = self._diagnostic_values(name, arm)
        values.pop("warmup", None)
        where = f"diagnostics.{name}"
        made = _build(DIAGNOSTICS[name], self._only_if_warm(self.arms[arm], values), where, seed)
        _check_model(f"{where}.model", made.model)
        _check_components(f"arms.{arm}.components", made.components)
        # In full, so that a task's default written out means what it means left out.
        task = _named(where, partial(diagnostic_task, name, made))
        return dataclasses.replace(made, **{option: getattr(task, option) for option in made.task_options})

    def _shared(self) -> Values:
        return {"model": self.model} | ({"family": self.family} if self.family is not None else {})

    def _diagnostic_values(self, name: str, arm: str) -> Values:
        mine = self.arms[arm]
        return self._shared() | self.diagnostics[name] | mine.carried | mine.diagnostics.get(name, {})

    def _only_if_warm(self, arm: Arm, values: Values) -> Values:
        """Without a donor, what would be carried over means nothing, and must not tell two equal stages apart."""
        if arm.is_warmed or values.get("init") is not None:
            return values
        return {key: value for key, value in values.items() if key not in _INIT}

    def _check(self) -> None:
        _check_name("name", self.name)
        if not self.arms:
            raise OptionError("arms: at least one arm is needed")
        if self.baseline not in self.arms:
            near = config.suggestion(self.baseline, self.arms)
            raise OptionError(f'baseline: no arm is named "{self.baseline}"{near}')
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise OptionError(f"seeds = {list(self.seeds)}: write different whole numbers from 0 up")
        if self.corpus is None and not self.diagnostics:
            raise OptionError("nothing to measure: give a corpus, diagnostics, or both")
        _check_model("model", self.model)
        _check_given(WarmupOptions, self.warmup, "warmup")
        _check_given(PretrainOptions, self.pretrain, "pretrain")
        for key in ("task", "data"):
            if key in self.warmup:
                raise OptionError(f"warmup.{key}: belongs to an arm (arms.NAME.warmup.{key}), else none would be cold")
        for name, values in self.diagnostics.items():
            _check_diagnostic(name, values, f"diagnostics.{name}")
        for name, arm in self.arms.items():
            self._check_arm(name, arm)

    def _check_arm(self, name: str, arm: Arm) -> None:
        where = f"arms.{name}"
        _check_name("arms", name)
        _check_given(WarmupOptions, arm.warmup, f"{where}.warmup")
        _check_given(PretrainOptions, arm.pretrain, f"{where}.pretrain")
        for key, values in arm.diagnostics.items():
            if key not in self.diagnostics:
                near = config.suggestion(key, self.diagnostics)
                raise OptionError(f'{where}.diagnostics: the recipe has no diagnostic "{key}"{near}')
            _check_diagnostic(key, values, f"{where}.diagnostics.{key}")
        if arm.is_warmed and arm.init is not None:
            raise OptionError(f"{where}: a warm-up and init cannot both be given")
        if not arm.is_warmed and arm.init is None and arm.carried:
            raise OptionError(f"{where}.{next(iter(arm.carried))}: there is no warm-up to carry anything over from")
        # Building every stage's options once checks them all; what they give is the same for every seed.
        for diagnostic in (None, *self.diagnostics):
            warm = self.warmup_options(name, self.seeds[0], diagnostic)
            if warm is not None and warm.task:
                room = warm.context or self.context
                _check_fits(f"{where}.warmup.task", parse_tasks(warm.task), room)
            if diagnostic is not None:
                self.diagnostic_options(diagnostic, name, self.seeds[0])
        if self.corpus is not None:
            self.pretrain_options(name, self.seeds[0])


_INIT = tuple(each.name for each in dataclasses.fields(InitOptions))


def _build(cls: type[T], values: Values, where: str, seed: int) -> T:
    """`cls` from values; errors that its own checks raise get the place they lack."""
    try:
        return config.build(cls, values | {"seed": seed}, where)
    except OptionError as error:
        raise OptionError(str(error) if str(error).startswith(where) else f"{where}: {error}") from None


def _named(where: str, make: Callable[[], Task]) -> Task:
    try:
        return make()
    except OptionError as error:
        raise OptionError(f"{where}: {error}") from None


def diagnostic_task(name: str, options: DiagnosticOptions) -> Task:
    """The task that a diagnostic trains on. Raises OptionError."""
    given = {option: getattr(options, option) for option in options.task_options}
    return build_task(name, {option: value for option, value in given.items() if value is not None})


def _underscored(values: Any) -> None:
    """Write keys with underscores, in place, so that layers that spell them differently still overlay."""
    if isinstance(values, dict):
        for key in [key for key in values if "-" in key]:
            values[key.replace("-", "_")] = values.pop(key)


def _check_given(cls: type[Any], values: Values, where: str, also: Iterable[str] = ()) -> None:
    """Check the names and kinds of options where they are written, before they are merged and lose their place."""
    hints = typing.get_type_hints(cls)
    kinds = {each.name: hints[each.name] for each in dataclasses.fields(cls)}
    for key, value in values.items():
        if key in _NOT_HERE:
            raise OptionError(f"{where}.{key}: not here; {_NOT_HERE[key]}")
        if key in also or (key == "task" and "task" in kinds):  # a task has forms of its own, read by parse_tasks
            continue
        if key not in kinds:
            raise OptionError(f'{where}: unknown option "{key}"{config.suggestion(key, {*kinds, *also})}')
        config.convert(value, kinds[key], f"{where}.{key}")


def _check_diagnostic(name: str, values: Values, where: str) -> None:
    if name not in DIAGNOSTICS:
        raise OptionError(f'diagnostics: unknown diagnostic "{name}"{config.suggestion(name, DIAGNOSTICS)}')
    _check_given(DIAGNOSTICS[name], values, where, {"warmup"})
    warmup = values.get("warmup", {})
    if not isinstance(warmup, Mapping):
        raise OptionError(f"{where}.warmup: expected a mapping of options, got {warmup!r}")
    _check_given(WarmupOptions, dict(warmup), f"{where}.warmup")


def _check_fits(where: str, task: Task, context: int) -> None:
    if task.length > context:
        raise OptionError(f"{where}: {task.spec} has {task.length} tokens, more than the context of {context}")


def _check_components(where: str, names: tuple[str, ...]) -> None:
    for name in names:
        if name not in COMPONENTS and names != ("none",):
            raise OptionError(f'{where}: "{name}" is not a component{config.suggestion(name, COMPONENTS)}')


def _check_name(where: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise OptionError(f'{where}: "{name}" must be letters, digits, dots, dashes and underscores')


def _check_model(where: str, model: str) -> None:
    try:
        parse_model(model)
    except ProctoolError as error:
        raise OptionError(f"{where}: {error}") from None


def load_recipe(path: Path) -> Recipe:
    """The recipe in a YAML file. Raises OptionError with the file, the dotted path and what is wrong."""
    values = config.load_yaml(path)
    try:
        return build_recipe(values)
    except OptionError as error:
        raise OptionError(f"{path}: {str(error).removeprefix(': ')}") from None


def build_recipe(values: Mapping[str, Any]) -> Recipe:
    """The recipe in a mapping. Raises OptionError."""
    values = dict(values)
    for key in ("arms", "diagnostics"):
        if isinstance(values.get(key), Mapping):
            # `cold:` with nothing after it is YAML's null, and means no differences.
            values[key] = {str(name): {} if each is None else each for name, each in values[key].items()}
    return config.build(Recipe, values, "")
