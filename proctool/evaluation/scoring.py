"""A trained model scored with each mask of a diagnostic.

The published code checks the *input* token instead of the target (paper, section 6): in `4 7 + 8 5 = 1 3 2 !` it
neither trains nor scores the 1, and it scores the padding after the stop. Its accuracies are comparable only with
`official`.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from proctool.evaluation.diagnostic import held_out
from proctool.models.saved import open_model
from proctool.procedural.arithmetic import Arithmetic
from proctool.procedural.registry import Task
from proctool.procedural.samples import Samples
from proctool.results import RunScores

SCORINGS = ("answer", "official")


def by_scoring(task: Task) -> dict[str, Task]:
    """The task with each of its masks: the same sequences with other targets."""
    if isinstance(task, Arithmetic):
        return {name: dataclasses.replace(task, scoring=name) for name in SCORINGS}  # type: ignore[arg-type]
    return {"answer": task}


def scores_of(model: Path, task: Task, samples: int, batch: int) -> dict[str, RunScores]:
    """The scores of a saved model on the validation samples, by mask, in fp32. Raises ArtifactError, ModelError."""
    from proctool.training.devices import accelerator_of
    from proctool.training.evaluate import evaluate
    from proctool.training.loss import TargetLoss

    accelerator = accelerator_of("fp32")
    module = TargetLoss(open_model(model).model().to(accelerator.device))
    found = {
        name: evaluate(accelerator, module, held_out(scored), samples, batch)
        for name, scored in by_scoring(task).items()
    }
    return {
        name: RunScores(
            loss=scores.measures()["loss"],
            accuracy=scores.accuracy,
            exact_match=scores.exact_match,
            targets=scores.targets,
        )
        for name, scores in found.items()
    }


def fingerprint(samples: Samples) -> str:
    """SHA-256 of the sequences and their targets."""
    hashed = hashlib.sha256(np.ascontiguousarray(samples.tokens, "<u4").tobytes())
    hashed.update(np.ascontiguousarray(samples.targets).tobytes())
    return hashed.hexdigest()
