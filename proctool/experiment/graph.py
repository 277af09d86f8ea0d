"""From a recipe to a graph of stages. A stage is one proctool command line and what it is computed from.

A stage's key is a hash of what its command line means: the command, its options, and the keys of the stages whose
artifacts it reads. Names, folders and the order of options are not part of it. So two arms that need the same donor
share one stage, and after a change to a recipe only the stages that mean something else are run again.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proctool import config
from proctool.corpora.catalog import NAMES
from proctool.errors import OptionError
from proctool.models.shapes import PRESETS
from proctool.procedural.controls import Control
from proctool.procedural.mixture import Mixture
from proctool.procedural.registry import Task
from proctool.recipe import PlannedArm, Recipe, arms_of
from proctool.recipe.arms import carried_into, diagnostic_task, warmup_task
from proctool.reporting.metrics import MetricsLog
from proctool.training.options import InitOptions, TrainingOptions, WarmupOptions
from proctool.transplantation.options import TransplantOptions

KEY_FORMAT = 1
"""Part of every key. Raised when the same command line comes to compute something else."""

# Options that leave every result as it is.
_WITHOUT_MEANING = {
    "run_dir", "output", "resume", "checkpoint_every", "keep_checkpoints", "log_every", "cache_dir", "spike", "track",
}  # fmt: skip
# Options that a command line shows even where they are the default.
_ALWAYS_SHOWN = {"model", "corpus", "context", "steps", "batch_size", "lr", "seed"}
# Options that may name a file or a folder, whose contents are then part of the meaning.
_PATHS = {"corpus", "tokenizer", "model", "init", "data", "base", "attention", "mixer", "mlp", "norms", "positions"}

Options = TrainingOptions | TransplantOptions


@dataclass(frozen=True, eq=False)
class Stage:
    """One command line: `command` (its words), every option resolved, and the stages whose artifacts it reads."""

    name: str
    """For people: `warmup-set-s0`. Not part of the key."""
    command: tuple[str, ...]
    options: Options
    inputs: Mapping[str, Stage]
    """Stages by the option that is the file of their artifact: `init`, or `attention`, `mlp`, `base`, ..."""
    output: str | None
    """File name of its own artifact."""
    length: int
    """Tokens in one sample."""
    key: str = field(init=False)

    def __post_init__(self) -> None:
        # Options that are not given stay out, so that one that is added later changes no key.
        given = {name: value for name, value in config.plain(self.options).items() if value is not None}
        options = {name: value for name, value in given.items() if name not in _WITHOUT_MEANING}
        for name in _PATHS & options.keys():
            options[name] = _fingerprint(options[name], name) if isinstance(options[name], str) else options[name]
        if "components" in options:
            options["components"] = sorted(options["components"])  # the order they are listed in means nothing
        keys = {name: stage.key for name, stage in self.inputs.items()}
        document = {"format": KEY_FORMAT, "command": self.command, "options": options, "donor": keys.pop("init", None)}
        if keys:
            document["inputs"] = keys
        digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
        object.__setattr__(self, "key", digest)

    @property
    def donor(self) -> Stage | None:
        """The stage whose model it starts from."""
        return self.inputs.get("init")

    @property
    def parents(self) -> tuple[Stage, ...]:
        """The stages whose artifacts it reads, each once."""
        return tuple({stage.key: stage for stage in self.inputs.values()}.values())

    @property
    def trains(self) -> bool:
        """Whether it takes steps and writes metrics; a transplant does not."""
        return isinstance(self.options, TrainingOptions)

    @property
    def steps(self) -> int:
        """Optimiser steps it takes."""
        return self.options.steps if isinstance(self.options, TrainingOptions) else 0

    @property
    def tokens(self) -> int:
        """Tokens it trains on."""
        if not isinstance(self.options, TrainingOptions):
            return 0
        return self.options.steps * self.options.batch_size * self.length

    @property
    def short(self) -> str:
        """The part of its key that its folder's name ends with."""
        return self.key[:8]

    def folder(self, root: Path) -> Path:
        """Its folder under `root`: the one with its key, whatever name it was given when it was made."""
        return root / _folders(root, _changed(root)).get(self.short, f"{self.name}-{self.short}")

    def artifact(self, root: Path) -> Path | None:
        """Where its artifact goes."""
        return None if self.output is None else self.folder(root) / self.output

    def argv(self, root: Path) -> list[str]:
        """What follows `proctool` on its command line: the main options and those that differ from the default."""
        words = list(self.command)
        for each in dataclasses.fields(self.options):
            value = getattr(self.options, each.name)
            if each.name in ("run_dir", "output"):
                continue
            if value is None or (value == each.default and each.name not in _ALWAYS_SHOWN):
                continue
            words += _flag(each.name, value)
        for option, stage in self.inputs.items():
            words += _flag(option, str(stage.artifact(root)))
        if self.trains:
            words += ["--run-dir", str(self.folder(root))]
        artifact = self.artifact(root)
        return words if artifact is None else [*words, "-o", str(artifact)]

    def state(self, root: Path) -> str:
        """ "done" (it has ended and its artifact is there), "started" (it will go on) or "missing"."""
        artifact = self.artifact(root)
        if not self.trains:  # its file appears complete or not at all
            return "done" if artifact is not None and artifact.is_file() else "missing"
        log = MetricsLog(self.folder(root))
        log.update()
        if log.end is not None and (artifact is None or artifact.is_file()):
            return "done"
        return "missing" if log.start is None else "started"

    def is_done(self, root: Path) -> bool:
        """Whether there is nothing left to do."""
        return self.state(root) == "done"


def _flag(name: str, value: Any) -> list[str]:
    flag = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return [flag if value else "--no-" + flag[2:]]
    if name in ("task", "layers"):  # repeated, as they may hold commas
        return [word for each in value for word in (flag, each)]
    return [flag, ",".join(value) if isinstance(value, tuple) else str(value)]


def _changed(root: Path) -> int:
    """When folders in `root` were last made or removed, in the file system's ticks; 0 where it does not exist."""
    try:
        return root.stat().st_mtime_ns
    except OSError:
        return 0


@functools.lru_cache(maxsize=16)
def _folders(root: Path, changed: int) -> dict[str, str]:
    """The stages' folders in `root` by the short key at their end. Listed once for each state of `root`."""
    if not changed:
        return {}
    names = [entry.name for entry in os.scandir(root) if "-" in entry.name and not entry.name.startswith(".")]
    return {name.rpartition("-")[2]: name for name in sorted(names, reverse=True)}


def _path_in(value: str, option: str) -> Path | None:
    """The path that an option names, in the order in which its reader looks: names that are known first."""
    if option == "corpus":
        base, colon, variant = value.partition(":")
        if base in NAMES:  # python and docstrings read no path; mathematics:30000 is a number
            takes = colon and base not in ("python", "docstrings") and not variant.isdecimal()
            return Path(variant).expanduser() if takes and variant else None
    elif value in PRESETS or value in ("bytes", "characters"):
        return None
    return Path(value)


@functools.cache
def _fingerprint(value: str, option: str) -> Any:
    """A path with its files' sizes and times, so that a changed file counts as a change; a name as it is."""
    path = _path_in(value, option)
    if path is None or not path.exists():
        return value
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    stats = [(str(each.relative_to(path)), each.stat()) for each in files if each.is_file()]
    return {"path": value, "files": [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]}


@dataclass(frozen=True)
class ArmStages:
    """What measures one arm with one seed; donors are the stages' own."""

    budgets: dict[float, Stage]
    """Pretraining by share of the steps, the largest last. Empty: no corpus."""
    diagnostics: dict[str, Stage]
    finetunes: dict[str, Stage] = field(default_factory=dict)
    """What goes on from the pretrained model, by name."""

    @property
    def pretrain(self) -> Stage | None:
        """Pretraining with the largest budget."""
        return next(reversed(self.budgets.values()), None)


@dataclass(frozen=True)
class Plan:
    """A recipe's stages, parents before children, each once; and which of them serve which arm and seed."""

    recipe: Recipe
    root: Path
    stages: tuple[Stage, ...]
    arms: dict[str, dict[int, ArmStages]]
    planned: dict[str, PlannedArm]
    """What each arm is."""

    def missing(self) -> list[Stage]:
        """Stages that are still to be run."""
        return [stage for stage in self.stages if not stage.is_done(self.root)]


def plan(recipe: Recipe, root: Path) -> Plan:
    """The stages of a recipe, with their folders under `root`. Raises OptionError."""
    _fingerprint.cache_clear()  # files may have changed since the last plan
    graph = _Graph()
    planned = arms_of(recipe)
    arms = {name: graph.arm(arm) for name, arm in planned.items()}
    shorts = {stage.short for stage in graph.stages.values()}
    if len(shorts) < len(graph.stages):
        raise OptionError(f"seeds: two of {len(graph.stages)} stages happen to share a folder name; change a seed")
    for stage in graph.stages.values():
        _check_processes(stage, recipe.launch.processes)
    return Plan(recipe, root, tuple(graph.stages.values()), arms, planned)


def _check_processes(stage: Stage, processes: int) -> None:
    """Raise OptionError where the processes of a launch could not share the stage's batch out evenly."""
    options = stage.options
    if isinstance(options, TrainingOptions) and options.batch_size % (options.accumulate * processes):
        raise OptionError(
            f"launch.processes = {processes}: {stage.name} has batch_size = {options.batch_size}, which is not a "
            f"multiple of {options.accumulate} micro-batches on {processes} processes; change accumulate or processes"
        )


class _Graph:
    """Stages by key, so that equal ones are one."""

    def __init__(self) -> None:
        self.stages: dict[str, Stage] = {}

    def arm(self, arm: PlannedArm) -> dict[int, ArmStages]:
        """An arm's stages by seed."""
        recipe = arm.recipe
        budgets = {share: arm.pretrain(share) for share in arm.budgets} if recipe.corpus is not None else {}
        finetunes = {name: arm.finetune(name) for name in recipe.finetune}
        diagnostics = {name: arm.diagnostic(name) for name in recipe.diagnostics}
        lengths = {name: diagnostic_task(name, asked).length for name, asked in diagnostics.items()}
        warmups = {name: _with_tasks(arm.warmups(name)) for name in (None, *diagnostics)}
        made = {}
        for seed in recipe.seeds:
            stages = {}
            for share, options in budgets.items():
                part = "" if share == 1 else f"-{share:.3g}"
                start = self._start(arm, options, warmups[None], seed)
                stages[share] = self._trained(("pretrain",), f"{arm.name}{part}", options, start, options.context, seed)
            measured = {}
            for name, asked in diagnostics.items():
                start = self._start(arm, asked, warmups[name], seed)
                measured[name] = self._trained(("eval", name), arm.name, asked, start, lengths[name], seed)
            pretrained = next(reversed(stages.values()), None)
            tuned = {
                name: self._trained(
                    ("pretrain",), f"{name}-{arm.name}", options, pretrained, options.context, seed, "finetune"
                )
                for name, options in finetunes.items()
            }
            made[seed] = ArmStages(stages, measured, tuned)
        return made

    def _shared(self, stage: Stage) -> Stage:
        return self.stages.setdefault(stage.key, stage)

    def _trained(
        self,
        words: tuple[str, ...],
        label: str,
        options: TrainingOptions,
        start: Stage | None,
        length: int,
        seed: int,
        verb: str = "",
    ) -> Stage:
        output = "model.safetensors" if words == ("pretrain",) else None
        seeded = dataclasses.replace(options, seed=seed)
        inputs = {} if start is None else {"init": start}
        return self._shared(Stage(f"{verb or words[-1]}-{label}-s{seed}", words, seeded, inputs, output, length))

    def _start(
        self, arm: PlannedArm, options: InitOptions, warmups: Mapping[str, tuple[WarmupOptions, Task]], seed: int
    ) -> Stage | None:
        """The stage whose model a stage with these options starts from: a warm-up, a mixture, either one treated."""
        donors = {
            component: self._shared(
                Stage(
                    f"warmup-{_label(task)}-s{seed}",
                    ("warmup",),
                    dataclasses.replace(warmup, seed=seed),
                    {},
                    "warm.safetensors",
                    task.length,
                )
            )
            for component, (warmup, task) in warmups.items()
        }
        start = donors.get("")
        if start is None and donors:
            start = self._mixture(arm.name, donors, {each: task for each, (_, task) in warmups.items()}, seed)
        treatment = arm.treatment_of(options)
        if treatment is None:
            return start
        asked = {name: getattr(treatment, name) for name in ("shuffle", "match_scale", "noise")}
        carried = carried_into(options)
        if start is not None:
            inputs = {"base": start, **dict.fromkeys(carried, start)}
        else:  # from a file
            inputs = {}
            asked |= {"base": options.init, **dict.fromkeys(carried, (options.init,))}
        return self._transplant(f"treated-{arm.name}", TransplantOptions(**asked, seed=seed), inputs)

    def _mixture(self, arm: str, donors: Mapping[str, Stage], tasks: Mapping[str, Task], seed: int) -> Stage:
        """Each component from its donor. Whatever the embeddings' start, it is made from copied ones later on."""
        owner = "embeddings" if "embeddings" in donors else next(iter(donors))
        inputs = {name: stage for name, stage in donors.items() if name != "embeddings"}
        options = TransplantOptions(embeddings="copy", vocab_size=tasks[owner].vocab_size, seed=seed)
        return self._transplant(f"mixed-{arm}", options, {**inputs, "embeddings_from": donors[owner]})

    def _transplant(self, name: str, options: TransplantOptions, inputs: Mapping[str, Stage]) -> Stage:
        return self._shared(Stage(f"{name}-s{options.seed}", ("transplant",), options, inputs, "start.safetensors", 0))


def _with_tasks(warmups: Mapping[str, WarmupOptions]) -> dict[str, tuple[WarmupOptions, Task]]:
    return {component: (options, warmup_task(options)) for component, options in warmups.items()}


def _label(task: Task) -> str:
    if isinstance(task, Mixture):
        return "+".join(_label(each) for each in task.tasks)
    return f"{task.name}-{_label(task.task)}" if isinstance(task, Control) else task.name


def warmups_of(stage: Stage) -> list[Stage]:
    """The training stages that it goes back to, itself left out, each once."""
    found: dict[str, Stage] = {}
    for parent in stage.parents:
        if parent.trains:
            found[parent.key] = parent
        found |= {each.key: each for each in warmups_of(parent)}
    return list(found.values())


def descendants(stage: Stage, stages: tuple[Stage, ...]) -> Iterator[Stage]:
    """The stages that read what `stage` makes, directly or not. `stages` has parents before children."""
    found = {stage.key}
    for each in stages:
        if any(parent.key in found for parent in each.parents):
            found.add(each.key)
            yield each
