"""Diagnostics: train on a small task from an init, report accuracy on a fixed validation set (paper, section 4)."""

from __future__ import annotations

from proctool.errors import OptionError
from proctool.evaluation.options import DiagnosticOptions, diagnostic_task
from proctool.models.build import model_config
from proctool.models.saved import SavedModel
from proctool.procedural.controls import Control
from proctool.procedural.mixture import Mixture, parse_tasks
from proctool.procedural.registry import Task
from proctool.training.carried_state import open_state
from proctool.training.curriculum import task_curriculum
from proctool.training.init_from import open_init, transplant_from
from proctool.training.job import Job
from proctool.training.run_place import check_files
from proctool.training.sources import TaskSource

HELD_OUT_SEED = 0
"""The validation set is the same for every init and seed."""


def held_out(task: Task, seed: int = HELD_OUT_SEED) -> TaskSource:
    """The validation samples. No seed trains on one of them: streams keep their splits apart by content."""
    return TaskSource(task, seed, "validation")


def diagnostic_job(name: str, options: DiagnosticOptions, held_out_seed: int = HELD_OUT_SEED) -> Job:
    """The job that trains on the task `name` from `options.init`.

    Another `held_out_seed` gives other validation samples than those that diagnostics are scored on.
    Raises OptionError, ArtifactError, ModelError.
    """
    check_files(f"eval {name}", options, options.output)
    task = diagnostic_task(name, options)
    donor = open_init(options)
    if donor is not None:
        _check_unseen(task, donor)
    config = model_config(
        options.model,
        vocab_size=task.vocab_size,
        context=task.length,
        family=options.family,
        dropout=options.dropout,
        init_std=options.init_std,
        tie=options.tie,
        padded=False,
    )
    return Job(
        command=f"eval {task.name}",
        options=options,
        config=config,
        source=TaskSource(task, options.seed),
        held_out=held_out(task, held_out_seed),
        curriculum=task_curriculum(
            task, options.curriculum, lambda part: (TaskSource(part, options.seed), held_out(part, held_out_seed))
        ),
        output=options.output,
        metadata={"stage": "diagnostic"},
        parents=[donor.parent] if donor else [],
        prepare=transplant_from(donor, options, options.seed),
        state=open_state(options, donor),
    )


def _check_unseen(task: Task, donor: SavedModel) -> None:
    """Raise OptionError if the donor may have been trained on the validation samples."""
    if donor.metadata.get("split") != "validation":
        return
    try:
        trained_on = parse_tasks(donor.metadata.get("task", ""))
    except OptionError:  # of a package that is not installed
        return
    if task.name in _names(trained_on):
        raise OptionError(
            f"{donor.path}: was warmed up on the validation split of {task.name}, which this command scores on; "
            "warm it up on the train split"
        )


def _names(task: Task) -> set[str]:
    """The names of the tasks in a task: those of a mixture, and the task of a control."""
    parts = task.tasks if isinstance(task, Mixture) else [task.task] if isinstance(task, Control) else []
    return {task.name}.union(*map(_names, parts))
