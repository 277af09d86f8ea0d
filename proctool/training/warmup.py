"""Warm-up: train a fresh model on procedural data."""

from __future__ import annotations

from proctool.artifact import Artifact
from proctool.errors import OptionError
from proctool.models.build import model_config
from proctool.procedural.mixture import parse_tasks
from proctool.procedural.registry import Task
from proctool.training.curriculum import task_curriculum
from proctool.training.job import Job
from proctool.training.options import WarmupOptions
from proctool.training.run_place import check_files
from proctool.training.sources import FileSource, TaskSource

_HELD_OUT = "validation"


def warmup_job(options: WarmupOptions, kind: type[Job] = Job) -> Job:
    """Make the job, of class `kind`, that trains `options.model` on a task's stream or a generated file.

    Raises OptionError, ArtifactError, ModelError.
    """
    check_files("warmup", options, options.output)
    source: FileSource | TaskSource
    parents: list[Artifact] = []
    if options.data is not None:
        source = FileSource(options.data)
        if source.file.split == _HELD_OUT:
            raise OptionError(
                f"{options.data}: has samples of the {_HELD_OUT} split, which scores a warm-up; "
                "generate it with --split train"
            )
        parents = [source.file.artifact]
        task: Task = source.file.task
        seed = source.file.seed
    else:
        task, seed = parse_tasks(list(options.task)), options.seed
        source = TaskSource(task, seed)
    config = model_config(
        options.model,
        vocab_size=task.vocab_size,
        context=options.positions(task.length),
        family=options.family,
        dropout=options.dropout,
        init_std=options.init_std,
        tie=options.tie,
        padded=False,
    )
    return kind(
        command="warmup",
        options=options,
        config=config,
        source=source,
        held_out=TaskSource(task, seed, _HELD_OUT),
        curriculum=task_curriculum(
            task, options.curriculum, lambda part: (TaskSource(part, seed), TaskSource(part, seed, _HELD_OUT))
        ),
        output=options.output,
        metadata={"stage": "warmup"},
        parents=parents,
    )
