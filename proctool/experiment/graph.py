"""From a recipe to a graph of stages. Arms that need the same stage share it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from proctool.errors import OptionError
from proctool.evaluation.options import diagnostic_task
from proctool.experiment import identity
from proctool.experiment.selection import PRETRAIN, TEXT, Choice, Trials, Use, files_of
from proctool.experiment.stage import ChooseOptions, Chosen, Label, Stage
from proctool.procedural.controls import Control
from proctool.procedural.mixture import Mixture
from proctool.procedural.registry import Task
from proctool.recipe import PlannedArm, Recipe, arms_of
from proctool.recipe.arms import carried_into, warmup_task
from proctool.recipe.choosing import Search, search_of
from proctool.recipe.ladder import rungs_of
from proctool.recipe.repeats import seed_of_run
from proctool.recipe.sweep import at, cells_of, selection_seeds
from proctool.recipe.text import SEEDS
from proctool.reporting.record import rung_name
from proctool.results import RESULTS
from proctool.training.options import InitOptions, PretrainOptions, TrainingOptions, WarmupOptions
from proctool.transplantation.options import TransplantOptions


@dataclass(frozen=True)
class ArmStages:
    """The stages that measure one arm with one seed; donors are inputs of these stages."""

    budgets: dict[float, Stage]
    """Pretraining by share of the steps, the largest last; empty without a corpus."""
    diagnostics: dict[str, Stage]
    finetunes: dict[str, Stage] = field(default_factory=dict)
    """Fine-tunings of the pretrained model on a corpus, by name."""
    tasks: dict[str, dict[str, Stage]] = field(default_factory=dict)
    """Fine-tunings of the pretrained model on tasks, by name and task."""
    evaluations: dict[str, Stage] = field(default_factory=dict)
    """Benchmarks of the pretrained model, by name."""
    repeats: dict[str, tuple[Stage, ...]] = field(default_factory=dict)
    """Further runs of each diagnostic from the same start, by name."""

    @property
    def pretrain(self) -> Stage | None:
        """The pretraining with the largest budget."""
        return next(reversed(self.budgets.values()), None)


@dataclass(frozen=True)
class Rung:
    """The recipe at one width of a ladder."""

    width: int
    recipe: Recipe
    arms: dict[str, dict[int, ArmStages]]
    planned: dict[str, PlannedArm]
    choices: dict[str, Choice]


@dataclass(frozen=True)
class Plan:
    """The distinct stages of a recipe, parents before children, and the stages of each arm and seed."""

    recipe: Recipe
    root: Path
    stages: tuple[Stage, ...]
    arms: dict[str, dict[int, ArmStages]]
    planned: dict[str, PlannedArm]
    """The planned arms by name."""
    choices: dict[str, Choice] = field(default_factory=dict)
    """By name of an arm that a sweep decides on: its trials, and the stage that chooses among them."""
    rungs: dict[int, Rung] = field(default_factory=dict)
    """By width, with a ladder; `arms` and `planned` are those of the widest."""

    def missing(self) -> list[Stage]:
        """The stages that are not done, those that `stop_hopeless` may leave out included."""
        return [stage for stage in self.stages if not stage.is_done(self.root)]


def plan(recipe: Recipe, root: Path) -> Plan:
    """The stages of a recipe, with their folders under `root`. Raises OptionError."""
    identity.forget()
    graph = _Graph()
    rungs = {width: graph.rung(width, rung) for width, rung in rungs_of(recipe).items()}
    whole = rungs[max(rungs)] if rungs else graph.rung(None, recipe)
    shorts = {stage.short for stage in graph.stages.values()}
    if len(shorts) < len(graph.stages):
        raise OptionError(
            f"seeds: two of {len(graph.stages)} stages have the same folder name by chance; change a seed"
        )
    for stage in graph.stages.values():
        _check_processes(stage, recipe.launch.processes)
    return Plan(recipe, root, tuple(graph.stages.values()), whole.arms, whole.planned, whole.choices, rungs)


def _check_processes(stage: Stage, processes: int) -> None:
    """Raise OptionError if the stage's batch cannot be divided evenly over the processes of a launch."""
    options = stage.options
    try:
        if isinstance(options, TrainingOptions):
            options.samples_at_once(processes)
    except OptionError as error:
        raise OptionError(f"launch.processes: {stage.name}: {error}; change accumulate or processes") from None


class _Graph:
    """Collects stages by key, so that equal stages are one."""

    def __init__(self) -> None:
        self.stages: dict[str, Stage] = {}

    def rung(self, width: int | None, recipe: Recipe) -> Rung:
        """The stages of a recipe, or of one width of a ladder, whose stages have the width in their names."""
        planned = arms_of(recipe)
        if width is not None:
            planned = {name: dataclasses.replace(arm, name=rung_name(name, width)) for name, arm in planned.items()}
        trials = {arm.name: self.trials(arm) for arm in planned.values()}
        choices = {
            name: self.choice(arm, search, trials)
            for name, arm in planned.items()
            if (search := search_of(arm, planned)) is not None
        }
        arms = {name: self.arm(arm, choices.get(name)) for name, arm in planned.items()}
        return Rung(width or 0, recipe, arms, planned, choices)

    def trials(self, arm: PlannedArm) -> Trials:
        """The pretraining of each cell of an arm, by seed."""
        found: Trials = {}
        for cell in cells_of(arm):
            form = at(arm, cell, is_trial=True)
            options, warmups, text = form.pretrain(), _with_tasks(form.warmups()), form.text_warmup()
            found[cell] = {}
            for seed in selection_seeds(arm.recipe):
                start = self._start(form, options, warmups, text, seed)
                label = Label("trial", f"{arm.name}-{cell}", seed)
                found[cell][seed] = self._trained(("pretrain",), label, options, start, options.context)
        return found

    def choice(self, arm: PlannedArm, search: Search, trials: Mapping[str, Trials]) -> Choice:
        """The stage that chooses the cell of an arm."""
        files = files_of(search)
        options = ChooseOptions(
            arm.name,
            {name: tuple(each) for name, each in files.contents.items()},
            tuple(search.forms),
        )
        inputs = {
            f"{number}.{place}.{seed}": stage
            for number, group in enumerate(search.groups)
            for place, cell in enumerate(group.cells)
            for seed, stage in trials[group.arm][cell].items()
        }
        stage = self._shared(Stage(Label("choose", arm.name), ("choose",), options, inputs, "chosen.safetensors", 0))
        groups = {group.arm: {cell: trials[group.arm][cell] for cell in group.cells} for group in search.groups}
        return Choice(stage, groups, files)

    def arm(self, arm: PlannedArm, choice: Choice | None = None) -> dict[int, ArmStages]:
        """The stages of an arm by seed. With a `choice` they read their options from its files."""
        if choice is not None:
            arm = choice.files.costliest
        chosen = dict(choice.chosen) if choice is not None else {}
        recipe = arm.recipe
        budgets = {share: arm.pretrain(share) for share in arm.budgets} if recipe.corpus is not None else {}
        finetunes = {name: arm.finetune(name) for name in arm.finetunes}
        on_tasks = {name: arm.tasks(name) for name in recipe.on_tasks}
        evaluations = {name: arm.evaluation(name) for name in recipe.evaluate}
        diagnostics = {name: arm.diagnostic(name) for name in arm.diagnostics}
        tasks = {name: diagnostic_task(name, asked) for name, asked in diagnostics.items()}
        warmups = {name: _with_tasks(arm.warmups(name)) for name in (None, *diagnostics)}
        texts = {name: arm.text_warmup(name) for name in (None, *diagnostics)}
        made = {}
        for seed in recipe.seeds:
            stages = {}
            for share, options in budgets.items():
                part = "" if share == 1 else f"-{share:.3g}"
                start = self._start(arm, options, warmups[None], texts[None], seed, chosen)
                label = Label("pretrain", f"{arm.name}{part}", seed)
                stages[share] = self._trained(
                    ("pretrain",), label, options, start, options.context, chosen=chosen.get(PRETRAIN)
                )
            measured, again = {}, {}
            for name, asked in diagnostics.items():
                start = self._start(arm, asked, warmups[name], texts[name], seed, chosen, name)
                measured[name], *more = [
                    self._trained(
                        ("eval", name),
                        Label(name, f"{arm.name}-run{number + 1}" if number else arm.name, seed),
                        asked, start, tasks[name].length, tasks[name], seed=seed_of_run(seed, number),
                    )
                    for number in range(recipe.repeats)
                ]  # fmt: skip
                again[name] = tuple(more)
            pretrained = next(reversed(stages.values()), None)
            tuned = {
                name: self._trained(
                    ("pretrain",), Label("finetune", f"{name}-{arm.name}", seed), options, pretrained, options.context
                )
                for name, options in finetunes.items()
            }
            on_each = {
                name: {
                    task: self._trained(
                        ("eval", "finetune", task), Label("finetune", f"{name}-{task}-{arm.name}", seed), each,
                        pretrained, each.context or recipe.context,
                    )
                    for task, each in asked.items()
                }
                for name, asked in on_tasks.items()
            }  # fmt: skip
            scored = {
                name: self._shared(
                    Stage(
                        Label("evaluate", f"{name}-{arm.name}", seed),
                        ("eval", "harness"),
                        options,
                        {"model": pretrained},
                        RESULTS,
                        0,
                    )
                )
                for name, options in evaluations.items()
                if pretrained is not None
            }
            made[seed] = ArmStages(stages, measured, tuned, on_each, scored, again)
        return made

    def _shared(self, stage: Stage) -> Stage:
        return self.stages.setdefault(stage.key, stage)

    def _trained(
        self,
        words: tuple[str, ...],
        label: Label,
        options: TrainingOptions,
        start: Stage | None,
        length: int,
        task: Task | None = None,
        chosen: Chosen | None = None,
        seed: int | None = None,
    ) -> Stage:
        output = "model.safetensors" if words == ("pretrain",) else None
        assert label.seed is not None
        seeded = dataclasses.replace(options, seed=label.seed if seed is None else seed)
        inputs = {} if start is None else {"init": start}
        return self._shared(Stage(label, words, seeded, inputs, output, length, task, chosen))

    def _start(
        self,
        arm: PlannedArm,
        options: InitOptions,
        warmups: Mapping[str, tuple[WarmupOptions, Task]],
        text: PretrainOptions | None,
        seed: int,
        chosen: Mapping[Use, Chosen] = MappingProxyType({}),
        diagnostic: str | None = None,
    ) -> Stage | None:
        """The stage that a stage with these options starts from: a warm-up or a mixture, possibly with a treatment."""
        donors = {
            component: self._shared(
                Stage(
                    Label("warmup", _task_names(task), seed),
                    ("warmup",),
                    dataclasses.replace(warmup, seed=seed),
                    {},
                    "warm.safetensors",
                    task.length,
                    task,
                    chosen.get((diagnostic, component)),
                )
            )
            for component, (warmup, task) in warmups.items()
        }
        start = donors.get("") if text is None else self._text(text, seed, chosen.get((diagnostic, TEXT)))
        if start is None and donors:
            start = self._mixture(arm.name, donors, {each: task for each, (_, task) in warmups.items()}, seed)
        treatment = arm.treatment_of(options)
        if treatment is None:
            return start
        asked: dict[str, Any] = {name: getattr(treatment, name) for name in ("shuffle", "match_scale", "noise")}
        if treatment.sharpen is not None:
            asked["sharpen"] = treatment.sharpen
        carried = carried_into(options)
        if start is not None:
            inputs = {"base": start, **dict.fromkeys(carried, start)}
        else:  # the arm starts from a file
            inputs = {}
            asked |= {"base": options.init, **dict.fromkeys(carried, (options.init,))}
        return self._transplant(Label("treated", arm.name, seed), TransplantOptions(**asked, seed=seed), inputs)

    def _text(self, options: PretrainOptions, seed: int, chosen: Chosen | None) -> Stage:
        """The warm-up on natural text."""
        seeded = dataclasses.replace(options, seed=seed + SEEDS)
        label = Label("warmup", "text", seed)
        output = "warm.safetensors"
        return self._shared(Stage(label, ("pretrain",), seeded, {}, output, options.context, chosen=chosen))

    def _mixture(self, arm: str, donors: Mapping[str, Stage], tasks: Mapping[str, Task], seed: int) -> Stage:
        """The mixture of the donors' components. It copies embeddings; the next stage applies their start."""
        owner = "embeddings" if "embeddings" in donors else next(iter(donors))
        inputs = {name: stage for name, stage in donors.items() if name != "embeddings"}
        options = TransplantOptions(embeddings="copy", vocab_size=tasks[owner].vocab_size, seed=seed)
        return self._transplant(Label("mixed", arm, seed), options, {**inputs, "embeddings_from": donors[owner]})

    def _transplant(self, label: Label, options: TransplantOptions, inputs: Mapping[str, Stage]) -> Stage:
        return self._shared(Stage(label, ("transplant",), options, inputs, "start.safetensors", 0))


def _with_tasks(warmups: Mapping[str, WarmupOptions]) -> dict[str, tuple[WarmupOptions, Task]]:
    return {component: (options, warmup_task(options)) for component, options in warmups.items()}


def _task_names(task: Task) -> str:
    if isinstance(task, Mixture):
        return "+".join(_task_names(each) for each in task.tasks)
    return f"{task.name}-{_task_names(task.task)}" if isinstance(task, Control) else task.name


def warmups_of(stage: Stage) -> list[Stage]:
    """The training stages that its weights come from, each once; the trials behind its options are none of them."""
    found: dict[str, Stage] = {}
    for parent in stage.inputs.values():
        if parent.trains:
            found[parent.key] = parent
        found |= {each.key: each for each in warmups_of(parent)}
    return list(found.values())


def descendants(stage: Stage, stages: tuple[Stage, ...]) -> Iterator[Stage]:
    """The stages that depend on `stage`, directly or indirectly. `stages` has parents before children."""
    found = {stage.key}
    for each in stages:
        if any(parent.key in found for parent in each.parents):
            found.add(each.key)
            yield each
