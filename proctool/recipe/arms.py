"""A planned arm with every option of its stages; forms.py makes planned arms from the arms of a recipe.

Options are built once per arm with seed 0; the code that makes stages replaces the seed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, TypeVar

from proctool import config
from proctool.artifact import read_header
from proctool.errors import OptionError
from proctool.evaluation.finetune import FinetuneOptions
from proctool.evaluation.finetune.tasks import task_data
from proctool.evaluation.harness import HarnessOptions
from proctool.evaluation.options import DIAGNOSTICS, DiagnosticOptions, diagnostic_task
from proctool.procedural.mixture import parse_tasks
from proctool.procedural.registry import Task
from proctool.recipe.form import Arm, Recipe, TreatmentOptions, Values
from proctool.recipe.text import CORPUS, text_values
from proctool.training.mix import MixOptions
from proctool.training.options import InitOptions, PretrainOptions, WarmupOptions
from proctool.transplantation.options import CARRIED

T = TypeVar("T")
Started = TypeVar("Started", PretrainOptions, DiagnosticOptions)

INIT = tuple(each.name for each in dataclasses.fields(InitOptions))
WHOLE: Values = {"components": ("attention", "mlp", "norms", "positions"), "embeddings": "copy"}
"""Options that carry a whole model. Norms and positions are skipped if the family has none with weights."""
ON_TEXT = ("text", "text-continued")
"""Controls whose warm-up is on natural text."""
_ON_OTHER_TOKENS = {"shuffled": "shuffle", "random": "random"}
"""Controls whose warm-up is on a control of the arm's task, and the name of that in a specification."""
_WITH_POSITIONS = ("gpt2", "opt")
"""Families with learned position embeddings, which a treatment can change."""


@dataclass(frozen=True, eq=False)
class PlannedArm:
    """An arm as it is run. Building its options raises OptionError with the place in the recipe."""

    recipe: Recipe
    name: str
    arm: Arm
    made_from: str
    """The name of the arm in the recipe that it is made from."""
    control: str | None = None
    """Which control it is; None for an arm of the recipe."""
    of: tuple[str, ...] = ()
    """The arms that it controls."""
    amount: int | None = None
    """Number of procedural tokens, if the recipe lists amounts or a sweep's cell gives one."""
    cell: Values = field(default_factory=dict)
    """Options of pretraining that a sweep's cell gives."""
    is_trial: bool = False
    """Whether it is a trial of a sweep, which is judged on other validation rows than the report."""

    @cached_property
    def _where(self) -> str:
        # Errors name the arm that the user wrote.
        return f"arms.{self.made_from}"

    def warmups(self, diagnostic: str | None = None) -> dict[str, WarmupOptions]:
        """The warm-ups that it starts from, by component; a single one has the name "". Empty for a cold start.

        A diagnostic can have its own model and warm-up options. Empty too for a control that warms up on text.
        """
        return {} if self.control in ON_TEXT else self._procedural(diagnostic)

    def text_warmup(self, diagnostic: str | None = None) -> PretrainOptions | None:
        """The warm-up on natural text that it starts from: all tokens of the arm's warm-ups, with the options of the
        first; None for an arm without one.
        """
        if self.control not in ON_TEXT:
            return None
        recipe, warmups = self.recipe, self._procedural(diagnostic)
        asked = recipe.controls.text if recipe.controls is not None else {}
        text: Values = {"tokenizer": recipe.tokenizer or "bytes", "end_of_text": recipe.end_of_text}
        text |= {"context": recipe.context}
        if recipe.corpus is not None:
            mine = self.pretrain()
            given = ("tokenizer", "end_of_text", "context", "cache_dir", *(() if "corpus" in asked else CORPUS))
            text |= {name: getattr(mine, name) for name in given}
        first, tokens = next(iter(warmups.values())), _total_tokens(warmups)
        values = text_values(first, tokens, text | asked, recipe.launch.processes)
        return _build(PretrainOptions, values, "controls.text")

    def _procedural(self, diagnostic: str | None) -> dict[str, WarmupOptions]:
        if self.arm.warmup:
            return {"": self._warmup(self.arm.warmup, f"{self._where}.warmup", diagnostic, 1)}
        count = len({config_key(values) for values in self.arm.donors.values()})
        return {
            component: self._warmup(values, f"{self._where}.donors.{component}", diagnostic, count)
            for component, values in self.arm.donors.items()
        }

    def pretrain(self, share: float = 1.0) -> PretrainOptions:
        """Its pretraining with a share of the steps; the caller fills in `init` if it is warmed up."""
        recipe = self.recipe
        given = {"corpus": recipe.corpus, "context": recipe.context, **self._tokenizer}
        shared = self._shared | {key: value for key, value in given.items() if value is not None}
        values = self._only_if_started(shared | recipe.pretrain | self.arm.carried | self.arm.pretrain) | self.cell
        if not values.get("mix"):  # an arm without a mix in a recipe that sets how others mix
            values = {key: value for key, value in values.items() if key not in ("mix_schedule", "mix_symbols")}
        if recipe.is_swept:
            values["eval_split"] = "selection" if self.is_trial else "test"
        if self.is_trial:
            # Too high a rate is a result of the sweep. Nobody continues a trial.
            values |= {"on_divergence": "end", "keep_state": False}
        options = self._with_own_state(_build(PretrainOptions, values, f"{self._where}.pretrain"))
        if share == 1:
            return options
        steps = max(1, round(share * options.steps))
        return located(f"{self._where}.pretrain", partial(dataclasses.replace, options, steps=steps))

    @property
    def _tokenizer(self) -> Values:
        return {"tokenizer": self.recipe.tokenizer, "end_of_text": self.recipe.end_of_text}

    @property
    def finetunes(self) -> tuple[str, ...]:
        """The fine-tunings on a corpus."""
        return tuple(name for name in self.recipe.finetune if name not in self.recipe.on_tasks)

    def finetune(self, name: str) -> PretrainOptions:
        """A fine-tuning of its pretrained model on a corpus, with all weights; the caller fills in `init`."""
        recipe = self.recipe
        given = {"context": recipe.context, **self._tokenizer}
        shared = self._shared | {key: value for key, value in given.items() if value is not None}
        # A fine-tuning has its own corpus, as it is.
        own = {"validation", "load_optimizer_state", *(each.name for each in dataclasses.fields(MixOptions))}
        pretrain = {key: value for key, value in recipe.pretrain.items() if key not in own}
        return _build(PretrainOptions, shared | pretrain | WHOLE | recipe.finetune[name], f"finetune.{name}")

    def tasks(self, name: str) -> dict[str, FinetuneOptions]:
        """A fine-tuning of its pretrained model on each of its tasks; the caller fills in `init`."""
        where, values = f"finetune.{name}", self.recipe.finetune[name]
        given = {key: value for key, value in values.items() if key not in ("tasks", "data")}
        # Its scores are the result; no model is kept, and nobody continues it.
        shared = self._shared | given | {"output": None, "keep_state": False}
        found = {}
        for task in config.convert(values["tasks"], tuple[str, ...], f"{where}.tasks"):
            data = {} if values.get("data") is None else {"data": task_data(task, str(values["data"]))}
            found[task] = _build(FinetuneOptions, shared | data, where)
        return found

    def evaluation(self, name: str) -> HarnessOptions:
        """Benchmarks of its pretrained model."""
        return _build(HarnessOptions, self.recipe.evaluate[name], f"evaluate.{name}")

    def diagnostic(self, name: str) -> DiagnosticOptions:
        """The diagnostic from its weights; the caller fills in `init` if it is warmed up."""
        values = self._diagnostic_values(name)
        values.pop("warmup", None)
        where = f"diagnostics.{name}"
        made = self._with_own_state(_build(DIAGNOSTICS[name], self._only_if_started(values), where))
        # With all defaults, so that writing a task's default and leaving it out give the same key.
        task = located(where, partial(diagnostic_task, name, made))
        return dataclasses.replace(made, **{option: getattr(task, option) for option in made.task_options})

    @property
    def diagnostics(self) -> tuple[str, ...]:
        """The diagnostics that it is measured with: all of the recipe, except where it has only a pretraining."""
        return () if self.control == "text-continued" else tuple(self.recipe.diagnostics)

    @property
    def budgets(self) -> tuple[float, ...]:
        """The shares of the pretraining steps that it is run with, the largest last."""
        if self.recipe.setting == "additive" or self.control is not None:
            return (1.0,)
        default = (1.0,) if self.name == self.recipe.baseline else self.recipe.budgets
        return tuple(sorted(default if self.arm.budgets is None else self.arm.budgets))

    def treatment_of(self, options: InitOptions) -> TreatmentOptions | None:
        """The treatment of the weights that it carries into the stage with these options."""
        carried = carried_into(options)
        if not carried:
            return None
        if self.control in ("scale", "sharpened"):
            return TreatmentOptions(match_scale=carried, sharpen="match" if self.control == "sharpened" else None)
        return self.arm.treatment

    @cached_property
    def _shared(self) -> Values:
        recipe = self.recipe
        values: Values = {"model": recipe.model}
        if recipe.family is not None:
            values["family"] = recipe.family
        if recipe.launch.precision is not None:
            values["precision"] = recipe.launch.precision
        return values

    def _warmup(self, written: Values, where: str, diagnostic: str | None, count: int) -> WarmupOptions:
        values = self._shared | {"context": self.recipe.context} | self.recipe.warmup | written
        asked: Values = {}
        if diagnostic is not None:
            asked = self._diagnostic_values(diagnostic)
            values |= {key: asked[key] for key in ("model", "family") if key in asked} | asked.get("warmup", {})
        other = _ON_OTHER_TOKENS.get(self.control or "")
        if other is not None and values.get("data") is not None:
            raise OptionError(
                f"{where}.data: the {self.control} control cannot change the tokens of a data file; give `task` "
                "instead of `data`, or leave this arm out of `controls: {of: [...]}`"
            )
        if other is not None:
            # Such tokens cannot be learned: no donor would pass, no length would grow, and training would soon end.
            values |= dict.fromkeys(("accept", "curriculum", "until", "patience"))
        if "task" in values:
            task = located(f"{where}.task", lambda: parse_tasks(values["task"]))
            values["task"] = (task.spec if other is None else f"{other}({task.spec})",)
        options = _build(WarmupOptions, values, where)
        if self.amount is not None and "steps" not in asked.get("warmup", {}):
            length = located(where, partial(warmup_task, options)).length
            steps = max(1, round(self.amount / count / (options.batch_size * length)))
            options = located(where, partial(dataclasses.replace, options, steps=steps))
        return options

    def _diagnostic_values(self, name: str) -> Values:
        return self._shared | self.recipe.diagnostics[name] | self.arm.carried | self.arm.diagnostics.get(name, {})

    def _only_if_started(self, values: Values) -> Values:
        """Drop options about carried weights if there is no donor, so that equal stages have equal keys."""
        if self.arm.is_warmed or values.get("init") is not None:
            return values
        return {key: value for key, value in values.items() if key not in INIT}

    def _with_own_state(self, options: Started) -> Started:
        """Without the optimiser's state of a warm-up for a control that keeps no weight; an error for other arms
        whose weights no single run wrote.
        """
        if not options.load_optimizer_state or (self.control in ON_TEXT and self.treatment_of(options) is None):
            return options
        if self.control is not None and self.control in ("scale", "sharpened"):
            return dataclasses.replace(options, load_optimizer_state=False)
        if self.arm.donors or self.treatment_of(options) is not None:
            raise OptionError(
                f"{self._where}: load_optimizer_state needs a single warm-up without a treatment; leave it out"
            )
        return options


def carried_into(options: InitOptions) -> tuple[str, ...]:
    """The components that are carried into a stage and can be treated."""
    learned = getattr(options, "family", "gpt2") in _WITH_POSITIONS
    return tuple(name for name in options.components if name in CARRIED and (name != "positions" or learned))


def warmup_task(options: WarmupOptions) -> Task:
    """The task that a warm-up trains on. Raises OptionError, ArtifactError."""
    return parse_tasks(options.task if options.data is None else read_header(options.data).metadata["task"])


def procedural_tokens(arm: PlannedArm, diagnostic: str | None = None) -> int:
    """Total tokens of its warm-ups; identical warm-ups count once. Raises OptionError."""
    return _total_tokens(arm.warmups(diagnostic))


def _total_tokens(warmups: Mapping[str, WarmupOptions]) -> int:
    different = {config_key(config.plain(each)): each for each in warmups.values()}
    return sum(each.steps * each.batch_size * warmup_task(each).length for each in different.values())


def config_key(values: Any) -> str:
    """A key that is equal for equal options."""
    return repr(sorted(values.items()))


def _build(cls: type[T], values: Values, where: str) -> T:
    """Build `cls` from values; an error of its own checks gets its place in the recipe."""
    return located(where, lambda: config.build(cls, values, where))


def located(where: str, make: Callable[[], T]) -> T:
    """Call `make`; its OptionError gets its place in the recipe if it has none."""
    try:
        return make()
    except OptionError as error:
        raise OptionError(str(error) if str(error).startswith(where) else f"{where}: {error}") from None
