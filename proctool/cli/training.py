"""`proctool warmup` and `proctool pretrain`: options in, artifact out."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING

from proctool.cli import display
from proctool.cli.options import Common, with_options
from proctool.config import plain
from proctool.events import to_json
from proctool.launched import launch
from proctool.training.options import PretrainOptions, WarmupOptions

if TYPE_CHECKING:
    from proctool.training.job import Job


def quiet_libraries() -> None:
    """Hide warnings of transformers, accelerate and torch that do not concern users of proctool."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module=r"(torch|transformers|accelerate)\.")
    # If DeepSpeed is installed, transformers imports it, and it warns on standard output.
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)


def dry_run(job: Job, common: Common) -> None:
    """Print what a job would do and what it costs."""
    planned = job.plan()
    planned["run"] = plain(job.outlook())
    planned["seconds_at_least"] = _seconds_at_least(job, planned["flops"])
    if job.options.extend:
        from proctool.training.extension import finished_step

        planned["extends_from"] = finished_step(job.run_path)
    if common.json:
        display.emit(planned)
    else:
        display.plan(planned)


def _seconds_at_least(job: Job, flops: float) -> float:
    """The least duration of a job on this machine; training takes longer."""
    from proctool.training.speed import seconds_at_least

    config, options = job.config.get_text_config(), job.options
    found = seconds_at_least(
        flops, options.steps, layers=config.num_hidden_layers, width=config.hidden_size, precision=options.precision,
        parts=options.accumulate, processes=launch().processes,
    )  # fmt: skip
    return round(found, 1)


def do(job: Job, common: Common) -> None:
    """Plan or run a job and print how it went."""
    if common.dry_run:
        dry_run(job, common)
        return
    with display.training_progress(job.command) as listen:
        job.listeners = [listen]
        end = job.run()
    if launch().speaks:  # only one process of a launch prints
        display.finished(end)
        if common.json:
            display.emit(to_json(end))


def _warmup(options: WarmupOptions, common: Common) -> None:
    quiet_libraries()
    from proctool.evaluation.acceptance import donor_job

    do(donor_job(options), common)


def _pretrain(options: PretrainOptions, common: Common) -> None:
    quiet_libraries()
    from proctool.training.pretrain import pretrain_job

    with display.store_progress() as listen:
        job = pretrain_job(options, listen)
    do(job, common)


warmup = with_options(WarmupOptions, _warmup)
pretrain = with_options(PretrainOptions, _pretrain)
