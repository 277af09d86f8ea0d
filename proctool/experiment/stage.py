"""One stage of an experiment: a proctool command line and its inputs.

The key of a stage is a hash of the command, its options, and the keys of the stages whose artifacts it reads. Files
count by their contents (identity.py), tasks of other packages also by their code (procedural/task_code.py). Names,
folders and the order of options do not count. So arms that need the same donor share one stage, and after a change to
a recipe only stages whose settings changed run again.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proctool.evaluation.finetune import FinetuneOptions
from proctool.evaluation.harness import HarnessOptions
from proctool.evaluation.options import diagnostic_task, probe_options
from proctool.experiment.identity import identity
from proctool.procedural.registry import Task
from proctool.procedural.task_code import task_code
from proctool.recipe.names import LONGEST_NAME
from proctool.reporting.metrics import MetricsLog
from proctool.training.mix import Placement
from proctool.training.options import PretrainOptions, TrainingOptions, WarmupOptions, recorded
from proctool.training.run_place import artifact_path
from proctool.training.run_state import State
from proctool.transplantation.options import TransplantOptions

KEY_FORMAT = 1
"""Part of every key. Increase it when the same command line computes something else."""

# Options that a command line shows even if they have their default.
_ALWAYS_SHOWN = {"model", "corpus", "context", "steps", "batch_size", "lr", "seed"}


@dataclass(frozen=True)
class ChooseOptions:
    """The choice of a sweep's best cell; the cells are the inputs of the stage."""

    arm: str
    """The arm in the experiment's record whose sweep it is."""
    files: Mapping[str, tuple[Mapping[str, Any], ...]]
    """By name of a file of options: its contents for each combination of cells."""
    combinations: tuple[tuple[int, ...], ...]


Options = TrainingOptions | TransplantOptions | HarnessOptions | ChooseOptions


@dataclass(frozen=True)
class Chosen:
    """Options that a stage reads from a file that another stage writes."""

    stage: Stage
    """The stage that chooses them."""
    file: str
    """The file in its folder, for `--config`."""
    names: frozenset[str]
    """The options that it sets."""


@dataclass(frozen=True)
class Label:
    """The name of a stage for people; not part of its key."""

    kind: str
    """warmup, pretrain, finetune, evaluate, mixed, treated, trial, choose, or the name of a diagnostic."""
    subject: str = ""
    """The tasks of a warm-up; for other stages the arm."""
    seed: int | None = None

    def __str__(self) -> str:
        seed = "" if self.seed is None else f"s{self.seed}"
        return "-".join(filter(None, (self.kind, self.subject, seed)))

    @property
    def group(self) -> str:
        """The name without the seed."""
        return str(dataclasses.replace(self, seed=None))


@dataclass(frozen=True, eq=False)
class Stage:
    """A command line: the words of `command`, all resolved options, and the stages whose artifacts it reads."""

    label: Label
    command: tuple[str, ...]
    options: Options
    inputs: Mapping[str, Stage]
    """Input stages by the option that takes their artifact: `init`, `attention`, `mlp`, `base`, ..., or `model`."""
    output: str | None
    """File name of its artifact, or of an evaluation's results."""
    length: int
    """Tokens per sample."""
    task: Task | None = None
    """The procedural task that it trains on, if any."""
    chosen: Chosen | None = None
    """Options that are known only once another stage is done. Until then `options` holds their largest cost."""
    key: str = field(init=False)

    def __post_init__(self) -> None:
        # Options that are not set are left out, so that adding an option to proctool changes no key.
        later = self.chosen.names if self.chosen else ()
        given = {
            name: value for name, value in recorded(self.options).items() if value is not None and name not in later
        }
        if isinstance(self.options, ChooseOptions):
            del given["arm"]
        files = "task_files" if isinstance(self.options, FinetuneOptions) else "data"
        options = {name: identity(files if name == "data" else name, value) for name, value in given.items()}
        if "components" in options:
            options["components"] = sorted(options["components"])  # their order has no effect
        if "heads" in options:
            options["heads"] = sorted(options["heads"])
        keys = {name: stage.key for name, stage in self.inputs.items()}
        document = {"format": KEY_FORMAT, "command": self.command, "options": options, "donor": keys.pop("init", None)}
        if keys:
            document["inputs"] = keys
        if self.chosen is not None:
            document["chosen"] = [self.chosen.stage.key, self.chosen.file]
        if code := [each for task in (self.task, self._mixed_task) if task is not None for each in task_code(task)]:
            document["code"] = code
        digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
        object.__setattr__(self, "key", digest)

    @property
    def name(self) -> str:
        """Its label as text: `warmup-set-s0`."""
        return str(self.label)

    @property
    def donor(self) -> Stage | None:
        """The stage whose model it starts from."""
        return self.inputs.get("init")

    @property
    def parents(self) -> tuple[Stage, ...]:
        """The stages whose artifacts it reads, without repeats."""
        chosen = [self.chosen.stage] if self.chosen else []
        return tuple({stage.key: stage for stage in (*self.inputs.values(), *chosen)}.values())

    @property
    def trains(self) -> bool:
        """Whether it trains and writes metrics; a transplant or a benchmark does not."""
        return isinstance(self.options, TrainingOptions)

    @property
    def steps(self) -> int:
        """Optimiser steps it takes."""
        return self.options.steps if isinstance(self.options, TrainingOptions) else 0

    @property
    def tokens(self) -> int:
        """Training tokens; with `accept` those of one donor and its probe."""
        probe = 0 if self.probe is None else self.probe.tokens
        return self.trained_tokens + probe

    @property
    def trained_tokens(self) -> int:
        """Training tokens of its own model."""
        if not isinstance(self.options, TrainingOptions):
            return 0
        return self.options.steps * self.options.batch_size * self.length

    @property
    def procedural_tokens(self) -> int:
        """Those of its training tokens that are procedural; the others are of a corpus. With `accept` as `tokens`."""
        if self.task is not None:
            return self.tokens
        if not isinstance(self.options, PretrainOptions) or (mix := self.options.mixed) is None:
            return 0
        rows = self.options.steps * self.options.batch_size
        return Placement(mix.share, mix.schedule, rows, self.options.seed).before(rows) * self.length

    @property
    def _mixed_task(self) -> Task | None:
        mix = self.options.mixed if isinstance(self.options, PretrainOptions) else None
        return None if mix is None else mix.task

    @functools.cached_property
    def probe(self) -> Stage | None:
        """The diagnostic that a donor must pass; None without `accept`."""
        if not isinstance(self.options, WarmupOptions) or self.options.accept is None:
            return None
        asked, name = probe_options(self.options), self.options.accept.diagnostic
        task = diagnostic_task(name, asked)
        return Stage(Label("probe"), ("eval", name), asked, {}, None, task.length, task)

    @property
    def tries(self) -> int:
        """Maximum number of donors that it trains."""
        options = self.options
        return options.accept.tries if isinstance(options, WarmupOptions) and options.accept is not None else 1

    @property
    def short(self) -> str:
        """The part of its key at the end of its folder's name."""
        return self.key[:8]

    def folder(self, root: Path) -> Path:
        """Its folder under `root`. The key identifies it, whatever the rest of the folder's name."""
        return root / _folders(root, _changed(root)).get(self.short, f"{self.name[:LONGEST_NAME]}-{self.short}")

    def artifact(self, root: Path) -> Path | None:
        """The path of its artifact."""
        return None if self.output is None else self.folder(root) / self.output

    def argv(self, root: Path) -> list[str]:
        """The arguments of `proctool`: the main options and those that differ from their default."""
        words = list(self.command)
        if isinstance(self.options, ChooseOptions):
            return [*words, str(root), "--arm", self.options.arm, "-o", str(self.artifact(root))]
        if self.chosen is not None:
            words += ["--config", str(self.chosen.stage.folder(root) / self.chosen.file)]
        for each in dataclasses.fields(self.options):
            value = getattr(self.options, each.name)
            if each.name in ("run_dir", "output") or (self.chosen and each.name in self.chosen.names):
                continue
            if value is None or (value == each.default and each.name not in _ALWAYS_SHOWN):
                continue
            words += flag_words(each.name, value)
        for option, stage in self.inputs.items():
            path = str(stage.artifact(root))
            words += (
                [path] if option == "model" else flag_words(option, path)
            )  # an evaluation has the model as argument
        if self.trains:
            words += ["--run-dir", str(self.folder(root))]
        artifact = self.artifact(root)
        if artifact is None:  # a diagnostic keeps its model in its folder; a fine-tuning on a task keeps none
            return [*words, "-o", "none"] if isinstance(self.options, FinetuneOptions) else words
        return [*words, "-o", str(artifact)]

    def state(self, root: Path) -> State:
        """ "done" (it has ended and its artifact exists), "started" (it will resume) or "missing"."""
        folder = self.folder(root)
        log = MetricsLog(folder)
        log.update()
        kept = artifact_path(folder) if self.trains and self.output is None else None
        # The model of a diagnostic may be gone, but damaged weights are made again.
        return log.state(kept if kept is not None and kept.exists() else self.artifact(root), trains=self.trains)

    def is_done(self, root: Path) -> bool:
        """Whether it is done."""
        return self.state(root) == "done"


def flag_words(name: str, value: Any) -> list[str]:
    """An option with its value as words of a command line."""
    flag = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return [flag if value else "--no-" + flag[2:]]
    if name in ("task", "layers", "mix", "include_path"):  # repeated, as they may hold commas
        return [word for each in value for word in (flag, str(each))]
    return [flag, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]


def _changed(root: Path) -> int:
    """The modification time of `root` in nanoseconds; 0 if it does not exist."""
    try:
        return root.stat().st_mtime_ns
    except OSError:
        return 0


@functools.lru_cache(maxsize=16)
def _folders(root: Path, changed: int) -> dict[str, str]:
    """The stage folders in `root` by their short key. Cached per state of `root`."""
    if not changed:
        return {}
    names = [entry.name for entry in os.scandir(root) if "-" in entry.name and not entry.name.startswith(".")]
    return {name.rpartition("-")[2]: name for name in sorted(names, reverse=True)}
