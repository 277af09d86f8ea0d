"""`proctool eval finetune`: a whole model on a task, then its scores."""

from __future__ import annotations

from proctool.cli import display
from proctool.cli.options import Common, argument, with_options
from proctool.cli.training import dry_run, quiet_libraries
from proctool.evaluation.finetune.options import FinetuneOptions
from proctool.launched import launch


def _finetune(options: FinetuneOptions, common: Common, task: str) -> None:
    quiet_libraries()
    from proctool.evaluation.finetune.job import finetuning

    with display.store_progress() as listen:
        found = finetuning(task, options, listen)
    if common.dry_run:
        dry_run(found.job, common)
        return
    with display.training_progress(found.job.command) as listen_to_training:
        found.job.listeners = [listen_to_training]
        end = found.job.run()
    if not launch().speaks:  # only one process of a launch prints
        return
    metrics = found.scores(end)
    shown = {
        name.replace("_", " "): "undefined" if value is None else f"{value:.4g}" for name, value in metrics.items()
    }
    results = display.Results(json=common.json)
    results.line(f"{task}: " + ", ".join(f"{name} {value}" for name, value in shown.items()))
    results.emit(found.record(task, end, metrics))


_task = argument("task", str, "wikitext, a GLUE task (cola, sst2, mrpc, qqp, stsb, mnli, qnli, rte, wnli) or py150.")
finetune = with_options(FinetuneOptions, _finetune, arguments=[_task])
