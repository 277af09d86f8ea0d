"""Run a graph in this process, one stage after the other: for stages so small that starting a process takes longest."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable
from pathlib import Path

from proctool.errors import Interrupted, ProctoolError, describe_os_error, naming
from proctool.experiment.adopt import adopt
from proctool.experiment.execute import LOG_FILE, Display, Failure, Progress, alone_in, skip_after
from proctool.experiment.graph import Plan
from proctool.experiment.stage import Stage
from proctool.reporting.metrics import MetricsLog
from proctool.signals import Stopped


def execute_here(plan: Plan, call: Callable[[list[str]], object], display: Display) -> list[Failure]:
    """Run the missing stages of `plan` and return the failures. `call` runs proctool with a list of arguments.

    A failure stops only the stages that depend on it. Raises Interrupted; RunError if another run uses the folder.
    """
    progress = Progress(plan, {stage.key: MetricsLog(stage.folder(plan.root)) for stage in plan.stages})
    with alone_in(plan.root):
        progress.adopted = adopt(plan)
        for stage in plan.stages:
            (progress.done if stage.is_done(plan.root) else progress.waiting).append(stage)
        display.update(progress)  # what is done now was done before
        for stage in list(progress.waiting):
            if stage not in progress.waiting:
                continue  # skipped after a failure
            progress.waiting.remove(stage)
            failure = run_stage_here(stage, plan.root, call)
            progress.metrics[stage.key].update()
            if failure is None:
                progress.done.append(stage)
            else:
                progress.failed.append(failure)
                skip_after(stage, progress)
            display.update(progress)
        display.update(progress)
    return progress.failed


def run_stage_here(stage: Stage, root: Path, call: Callable[[list[str]], object]) -> Failure | None:
    """Run one stage; its output goes to its log. `call` runs proctool with a list of arguments. Raises Interrupted."""
    folder = stage.folder(root)
    folder.mkdir(parents=True, exist_ok=True)
    error = "it exited with 0 but wrote no end event or no artifact"
    with (
        naming(folder / LOG_FILE),
        (folder / LOG_FILE).open("a", encoding="utf-8", errors="backslashreplace") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        try:
            call(stage.argv(root))
        except (Interrupted, Stopped):
            raise
        except ProctoolError as said:
            error = str(said)
        except OSError as fault:
            error = describe_os_error(fault)
        except (Exception, SystemExit) as fault:  # a bug in one stage must not stop the others
            traceback.print_exc(file=log)
            error = f"{type(fault).__name__}: {fault}"
    return None if stage.is_done(root) else Failure(stage, error, folder / LOG_FILE)
