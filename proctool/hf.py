"""A diagnostic while HF Trainer trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from proctool.api.tasks import load_task
from proctool.arguments import count_of, require_callable
from proctool.procedural.mixture import Spec
from proctool.procedural.registry import Task

__all__ = ["INDUCTION", "DiagnosticCallback"]

INDUCTION = "induction"


class DiagnosticCallback(TrainerCallback):  # type: ignore[misc]
    """Scores the model before the first training step, every `every` steps, and at the end.

    `what` is one of

    - "induction": the highest induction and previous-token scores of the attention heads on repeated random tokens,
      and the loss on the first and on the later copies.
    - a task specification, such as "set:inputs=24" or "haystack:pairs=8": loss, accuracy and exact match on `samples`
      samples of the validation split. The model is not trained on the task.

    Scores go to `log`, for example `trainer.log`, which sends them to the Trainer's trackers; without `log` they go to
    the log history. `history` has them as (step, scores). The callback does not support FSDP and ZeRO-3, where each
    process has only a part of the model. Raises OptionError.
    """

    def __init__(
        self,
        what: Spec | Task = INDUCTION,
        *,
        every: int = 100,
        samples: int = 32,
        batch_size: int = 32,
        log: Callable[[dict[str, float]], None] | None = None,
    ) -> None:
        every, samples = count_of("every", every, 1), count_of("samples", samples, 1)
        batch_size = count_of("batch_size", batch_size, 1)
        if log is not None:
            require_callable("log", log)
        self.task = None if what == INDUCTION else load_task(what)
        self.every, self.samples, self.batch_size, self.log = every, samples, batch_size, log
        self.history: list[tuple[int, dict[str, float]]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Score the model before its first step, so that errors appear at once."""
        if state.global_step == 0:
            self._note(state, control, kwargs["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Score the model every `every` steps."""
        if state.global_step % self.every == 0:
            self._note(state, control, kwargs["model"])

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Score the model after the last step, unless it is already scored."""
        if state.global_step % self.every:
            self._note(state, control, kwargs["model"])

    def _note(self, state: Any, control: Any, model: Any) -> None:
        scores = self.scores(model)
        self.history.append((state.global_step, scores))
        if self.log is not None:
            should_log = control.should_log
            self.log(dict(scores))
            control.should_log = should_log  # Trainer resets this flag on any log, and would skip its own
        else:
            state.log_history.append({**scores, "step": state.global_step})

    def scores(self, model: Any) -> dict[str, float]:
        """The scores of a model in memory by name; the model does not change. Raises ModelError, OptionError."""
        if self.task is not None:
            from proctool.training.in_memory import score
            from proctool.training.sources import TaskSource

            found = score(model, TaskSource(self.task, 0, "validation"), self.samples, self.batch_size)
            measures = {"loss": found.loss, "accuracy": found.accuracy, "exact_match": found.exact_match}
            return {f"{self.task.name}_{name}": value for name, value in measures.items()}
        import numpy as np

        from proctool.models.build import context_of
        from proctool.models.head_scores import score_model
        from proctool.models.probes import random_probe

        name, limit = type(model).__name__, context_of(model.config) or 50
        probe = random_probe(model.config, name, length=min(25, limit // 2), samples=self.samples)
        heads = score_model(model, probe, name)
        return {
            "induction": float(np.nanmax(heads.induction)),
            "previous_token": float(np.nanmax(heads.previous_token)),
            "loss_first": float(heads.loss_first or 0.0),
            "loss_repeated": heads.loss,
        }
