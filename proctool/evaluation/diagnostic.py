"""Diagnostics: train on a small task from an init, report accuracy on a fixed held-out set (the paper's section 4)."""

from __future__ import annotations

from proctool.evaluation.options import DiagnosticOptions
from proctool.models.build import model_config
from proctool.procedural.registry import build_task
from proctool.training.job import Job
from proctool.training.sources import TaskSource
from proctool.training.start import open_init, transplant_from

HELD_OUT_SEED = 0
"""The held-out set is one and the same for every init and seed."""


def diagnostic_job(name: str, options: DiagnosticOptions) -> Job:
    """The job that trains on the task `name` from `options.init`. Raises OptionError, ArtifactError, ModelError."""
    given = {option: getattr(options, option) for option in options.task_options}
    task = build_task(name, {option: value for option, value in given.items() if value is not None})
    donor = open_init(options)
    config = model_config(
        options.model,
        vocab_size=task.vocab_size,
        context=task.length,
        family=options.family,
        dropout=options.dropout,
    )
    return Job(
        command=f"eval {task.name}",
        options=options,
        config=config,
        source=TaskSource(task, options.seed),
        held_out=TaskSource(task, HELD_OUT_SEED, "validation"),
        output=options.output,
        about={"stage": "diagnostic"},
        parents=[donor.parent] if donor else [],
        prepare=transplant_from(donor, options, options.seed),
    )
