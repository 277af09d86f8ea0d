"""From a recipe to a graph of stages. Arms that need the same stage share it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proctool.errors import OptionError
from proctool.evaluation.options import diagnostic_task
from proctool.experiment import identity
from proctool.experiment.stage import Label, Stage
from proctool.procedural.controls import Control
from proctool.procedural.mixture import Mixture
from proctool.procedural.registry import Task
from proctool.recipe import PlannedArm, Recipe, arms_of
from proctool.recipe.arms import carried_into, warmup_task
from proctool.recipe.text import SEEDS
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
    """Fine-tunings of the pretrained model, by name."""
    evaluations: dict[str, Stage] = field(default_factory=dict)
    """Benchmarks of the pretrained model, by name."""

    @property
    def pretrain(self) -> Stage | None:
        """The pretraining with the largest budget."""
        return next(reversed(self.budgets.values()), None)


@dataclass(frozen=True)
class Plan:
    """The distinct stages of a recipe, parents before children, and the stages of each arm and seed."""

    recipe: Recipe
    root: Path
    stages: tuple[Stage, ...]
    arms: dict[str, dict[int, ArmStages]]
    planned: dict[str, PlannedArm]
    """The planned arms by name."""

    def missing(self) -> list[Stage]:
        """The stages that are not done."""
        return [stage for stage in self.stages if not stage.is_done(self.root)]


def plan(recipe: Recipe, root: Path) -> Plan:
    """The stages of a recipe, with their folders under `root`. Raises OptionError."""
    identity.forget()
    graph = _Graph()
    planned = arms_of(recipe)
    arms = {name: graph.arm(arm) for name, arm in planned.items()}
    shorts = {stage.short for stage in graph.stages.values()}
    if len(shorts) < len(graph.stages):
        raise OptionError(
            f"seeds: two of {len(graph.stages)} stages have the same folder name by chance; change a seed"
        )
    for stage in graph.stages.values():
        _check_processes(stage, recipe.launch.processes)
    return Plan(recipe, root, tuple(graph.stages.values()), arms, planned)


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

    def arm(self, arm: PlannedArm) -> dict[int, ArmStages]:
        """The stages of an arm by seed."""
        recipe = arm.recipe
        budgets = {share: arm.pretrain(share) for share in arm.budgets} if recipe.corpus is not None else {}
        finetunes = {name: arm.finetune(name) for name in recipe.finetune}
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
                start = self._start(arm, options, warmups[None], texts[None], seed)
                label = Label("pretrain", f"{arm.name}{part}", seed)
                stages[share] = self._trained(("pretrain",), label, options, start, options.context)
            measured = {}
            for name, asked in diagnostics.items():
                start = self._start(arm, asked, warmups[name], texts[name], seed)
                label, task = Label(name, arm.name, seed), tasks[name]
                measured[name] = self._trained(("eval", name), label, asked, start, task.length, task)
            pretrained = next(reversed(stages.values()), None)
            tuned = {
                name: self._trained(
                    ("pretrain",), Label("finetune", f"{name}-{arm.name}", seed), options, pretrained, options.context
                )
                for name, options in finetunes.items()
            }
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
            made[seed] = ArmStages(stages, measured, tuned, scored)
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
    ) -> Stage:
        output = "model.safetensors" if words == ("pretrain",) else None
        assert label.seed is not None
        seeded = dataclasses.replace(options, seed=label.seed)
        inputs = {} if start is None else {"init": start}
        return self._shared(Stage(label, words, seeded, inputs, output, length, task))

    def _start(
        self,
        arm: PlannedArm,
        options: InitOptions,
        warmups: Mapping[str, tuple[WarmupOptions, Task]],
        text: PretrainOptions | None,
        seed: int,
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
                )
            )
            for component, (warmup, task) in warmups.items()
        }
        start = donors.get("") if text is None else self._text(text, seed)
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

    def _text(self, options: PretrainOptions, seed: int) -> Stage:
        """The warm-up on natural text."""
        seeded = dataclasses.replace(options, seed=seed + SEEDS)
        label = Label("warmup", "text", seed)
        return self._shared(Stage(label, ("pretrain",), seeded, {}, "warm.safetensors", options.context))

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
    """The training stages among its ancestors, each once."""
    found: dict[str, Stage] = {}
    for parent in stage.parents:
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
