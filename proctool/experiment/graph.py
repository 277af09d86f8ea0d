"""From a recipe to a graph of stages. A stage is one proctool command line and what it is computed from.

A stage's key is a hash of what its command line means: the command, its options, and the keys of the stages whose
artifacts it reads. Names, folders and the order of options are not part of it. So two arms that need the same donor
share one stage, and after a change to a recipe only the stages that mean something else are run again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proctool import config
from proctool.artifact import read_header
from proctool.procedural.controls import Control
from proctool.procedural.mixture import Mixture, parse_tasks
from proctool.procedural.registry import Task
from proctool.recipe import Recipe, diagnostic_task
from proctool.reporting.metrics import MetricsLog
from proctool.training.options import TrainingOptions, WarmupOptions

KEY_FORMAT = 1
"""Part of every key. Raised when the same command line comes to compute something else."""

# Options that leave every result as it is.
_WITHOUT_MEANING = {"run_dir", "output", "resume", "checkpoint_every", "keep_checkpoints", "log_every", "cache_dir"}
# Options that a command line shows even where they are the default.
_ALWAYS_SHOWN = {"model", "corpus", "context", "steps", "batch_size", "lr", "seed"}
# Options that may name a file or a folder, whose contents are then part of the meaning.
_PATHS = {"corpus", "tokenizer", "model", "init", "data"}


@dataclass(frozen=True, eq=False)
class Stage:
    """One command line: `command` (its words), every option resolved, and the stage whose artifact it starts from."""

    name: str
    """For people: `warmup-set-s0`. Not part of the key."""
    command: tuple[str, ...]
    options: TrainingOptions
    donor: Stage | None
    """Its artifact is the option `init`."""
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
            options[name] = _fingerprint(options[name])
        if "components" in options:
            options["components"] = sorted(options["components"])  # the order they are listed in means nothing
        document = {
            "format": KEY_FORMAT,
            "command": self.command,
            "options": options,
            "donor": self.donor.key if self.donor else None,
        }
        digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
        object.__setattr__(self, "key", digest)

    @property
    def parents(self) -> tuple[Stage, ...]:
        """The stages whose artifacts it reads."""
        return () if self.donor is None else (self.donor,)

    @property
    def steps(self) -> int:
        """Optimiser steps it takes."""
        return self.options.steps

    @property
    def tokens(self) -> int:
        """Tokens it trains on."""
        return self.options.steps * self.options.batch_size * self.length

    def folder(self, root: Path) -> Path:
        """Its folder under `root`: the one with its key, whatever name it was given when it was made."""
        short = self.key[:8]
        return next(iter(sorted(root.glob(f"*-{short}"))), root / f"{self.name}-{short}")

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
            if value == each.default and each.name not in _ALWAYS_SHOWN:
                continue
            words += _flag(each.name, value)
        if self.donor is not None:
            words += ["--init", str(self.donor.artifact(root))]
        words += ["--run-dir", str(self.folder(root))]
        artifact = self.artifact(root)
        return words if artifact is None else [*words, "-o", str(artifact)]

    def state(self, root: Path) -> str:
        """ "done" (it has ended and its artifact is there), "started" (it will go on) or "missing"."""
        log = MetricsLog(self.folder(root))
        log.update()
        artifact = self.artifact(root)
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
    if name == "task":  # repeated, as specifications may hold commas
        return [word for each in value for word in (flag, each)]
    return [flag, ",".join(value) if isinstance(value, tuple) else str(value)]


def _fingerprint(value: str | None) -> Any:
    """A path with its files' sizes and times, so that a changed file counts as a change; a name as it is."""
    if value is None or not any(mark in value for mark in "/\\.") or not Path(value).exists():
        return value
    path = Path(value)
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    stats = [(str(each.relative_to(path)), each.stat()) for each in files if each.is_file()]
    return {"path": value, "files": [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]}


@dataclass(frozen=True)
class ArmStages:
    """What measures one arm with one seed; donors are the stages' own. None: not part of the experiment."""

    pretrain: Stage | None
    diagnostics: dict[str, Stage]


@dataclass(frozen=True)
class Plan:
    """A recipe's stages, parents before children, each once; and which of them serve which arm and seed."""

    recipe: Recipe
    root: Path
    stages: tuple[Stage, ...]
    arms: dict[str, dict[int, ArmStages]]

    def missing(self) -> list[Stage]:
        """Stages that are still to be run."""
        return [stage for stage in self.stages if not stage.is_done(self.root)]


def plan(recipe: Recipe, root: Path) -> Plan:
    """The stages of a recipe, with their folders under `root`. Raises OptionError."""
    known: dict[str, Stage] = {}
    arms = {name: {seed: _arm_stages(recipe, name, seed, known) for seed in recipe.seeds} for name in recipe.arms}
    return Plan(recipe, root, tuple(known.values()), arms)


def _arm_stages(recipe: Recipe, name: str, seed: int, known: dict[str, Stage]) -> ArmStages:
    """An arm's stages for one seed; those that are not in `known` by key yet are added to it."""

    def shared(stage: Stage) -> Stage:
        return known.setdefault(stage.key, stage)

    def warmed(diagnostic: str | None) -> Stage | None:
        options = recipe.warmup_options(name, seed, diagnostic)
        return None if options is None else shared(_warmup(options))

    def trained(words: tuple[str, ...], options: TrainingOptions, donor: Stage | None, length: int) -> Stage:
        output = "model.safetensors" if words == ("pretrain",) else None
        return shared(Stage(f"{words[-1]}-{name}-s{seed}", words, options, donor, output, length))

    pretrain = None
    if recipe.corpus is not None:
        training = recipe.pretrain_options(name, seed)
        pretrain = trained(("pretrain",), training, warmed(None), training.context)
    diagnostics = {}
    for diagnostic in recipe.diagnostics:
        asked = recipe.diagnostic_options(diagnostic, name, seed)
        length = diagnostic_task(diagnostic, asked).length
        diagnostics[diagnostic] = trained(("eval", diagnostic), asked, warmed(diagnostic), length)
    return ArmStages(pretrain, diagnostics)


def _warmup(options: WarmupOptions) -> Stage:
    task = parse_tasks(options.task if options.data is None else read_header(options.data).about["task"])
    return Stage(f"warmup-{_label(task)}-s{options.seed}", ("warmup",), options, None, "warm.safetensors", task.length)


def _label(task: Task) -> str:
    if isinstance(task, Mixture):
        return "+".join(_label(each) for each in task.tasks)
    return f"{task.name}-{_label(task.task)}" if isinstance(task, Control) else task.name


def descendants(stage: Stage, stages: tuple[Stage, ...]) -> Iterator[Stage]:
    """The stages that read what `stage` makes, directly or not. `stages` has parents before children."""
    found = {stage.key}
    for each in stages:
        if any(parent.key in found for parent in each.parents):
            found.add(each.key)
            yield each
