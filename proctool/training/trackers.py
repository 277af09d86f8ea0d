"""Sends a run's events to experiment trackers, through Accelerate."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from proctool import config
from proctool.errors import OptionError
from proctool.events import CurriculumEvent, EvalEvent, Event, ExtendEvent, ResumeEvent, StartEvent, TrainEvent, to_json
from proctool.internals.of_accelerate import trackers
from proctool.training.run import RunFolder

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

_PROJECT = "proctool"
# The fields of each event to send as metrics; the others say where and when it happened.
_SENT = {
    "train": ("loss", "corpus_loss", "procedural_loss", "lr", "grad_norm", "tokens_per_second", "mfu", "tokens"),
    "eval": ("loss", "accuracy", "exact_match"),
    "curriculum": ("size", "length"),
}


def check_trackers(names: Sequence[str]) -> None:
    """Check the names of trackers. Raises OptionError for unknown ones and for missing packages."""
    known = trackers() if names else {}
    for name in names:
        if name not in known:
            raise OptionError(f'track: unknown tracker "{name}"{config.suggestion(name, known)}')
        is_registered = known[name].__module__ != "accelerate.tracking"  # by its user, not built in
        if not is_registered and importlib.util.find_spec(name) is None:
            raise OptionError(f"track: {name} is not installed; run pip install {name.replace('_', '-')}")


@contextlib.contextmanager
def tracked(run: RunFolder, names: Sequence[str], settings: Mapping[str, Any]) -> Iterator[None]:
    """Send the run's events to the trackers inside the block. A tracker that fails is dropped, with a note."""
    senders = [_Sender(run, name, settings) for name in names if run.is_writer]
    run.listeners.extend(sender.take for sender in senders)
    try:
        yield
    finally:
        for sender in senders:
            sender.close()


class _Sender:
    """One tracker. It starts at the first event, which shows whether the run resumes from a checkpoint."""

    def __init__(self, run: RunFolder, name: str, settings: Mapping[str, Any]) -> None:
        self._run, self._name, self._settings = run, name, settings
        self._tracker: GeneralTracker | None = None
        self._failed = False

    def take(self, event: Event) -> None:
        """Send an event."""
        if self._failed:
            return
        try:
            if isinstance(event, StartEvent | ResumeEvent | ExtendEvent):
                self._begin(getattr(event, "step", 0), is_new=isinstance(event, StartEvent))
            elif self._tracker is not None and isinstance(event, TrainEvent | EvalEvent | CurriculumEvent):
                group = event.split if isinstance(event, EvalEvent) else event.kind
                found = {f"{group}/{key}": value for key, value in to_json(event).items() if key in _SENT[event.kind]}
                self._tracker.log(found, step=event.step)
        except Exception as error:  # a tracker's failure (such as a server that is down) must not end the run
            self._lose(error)

    def close(self) -> None:
        """Let the tracker send its remaining data."""
        if self._tracker is not None and not self._failed:
            try:
                self._tracker.finish()
            except Exception as error:
                self._lose(error)

    def _begin(self, step: int, is_new: bool) -> None:
        made = trackers()[self._name]
        arguments: dict[str, Any] = {"run_name": _PROJECT}
        if self._name == "tensorboard":
            # Metrics that a killed run wrote after its checkpoint are hidden and will be repeated.
            arguments = {"run_name": "tensorboard", "purge_step": step + 1 if step else None}
        elif self._name == "wandb":
            arguments |= {"name": self._run.path.name, "id": self._run.identity, "resume": "allow"}
            arguments |= {"dir": str(self._run.path)}
        elif self._name == "trackio":
            arguments |= {"name": f"{self._run.path.name}-{self._run.identity}", "resume": "allow"}
        if made.requires_logging_directory:
            arguments["logging_dir"] = str(self._run.path)
        self._tracker = made(**arguments)
        if hasattr(self._tracker, "start"):  # in older versions of Accelerate, the constructor starts the tracker
            self._tracker.start()
        if is_new:
            simple = (str, int, float, bool)
            self._tracker.store_init_configuration(
                {key: value if isinstance(value, simple) else str(value) for key, value in self._settings.items()}
            )

    def _lose(self, error: Exception) -> None:
        self._failed = True
        self._run.say(
            f"{self._name} failed and gets no more metrics ({type(error).__name__}: {error}); metrics.jsonl still does"
        )
