"""Working through a phase: take a trial, run it, tell Optuna, until no trial is left in any process."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from proctool.errors import Interrupted, RunError
from proctool.search.folder import TRIALS, locked
from proctool.search.study import (
    Phase,
    Taking,
    complete,
    is_settled,
    next_trial,
    open_study,
    retire_dead,
    tried,
    worked_seconds,
)

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage

_POLL = 0.5
"""Seconds between two looks at what other processes do."""


@dataclass(frozen=True)
class Progress:
    """A trial that ended."""

    phase: str
    shape: str
    ended: int
    of: int | None
    best: float | None
    """The lowest loss of cold starts, or the largest gap of candidates; None before the first, and while confirming."""
    is_gap: bool
    seconds_left: float


class Weak(Exception):
    """Successive halving stops this trial."""


@dataclass
class Loop:
    """This process at work on a search."""

    folder: Path
    storage: BaseStorage
    prefix: str
    seed: int
    seconds: float
    """Time of the whole search."""
    jobs: int
    listen: Callable[[Progress], None]
    pause: Callable[[], None] = lambda: time.sleep(_POLL)
    studies: list[Study] = field(default_factory=list)
    """Of the phases so far."""

    def spent(self, study: Study) -> float:
        """Seconds of work so far, those of the present phase included."""
        return worked_seconds([*(each for each in self.studies if each.study_name != study.study_name), study])

    def work(
        self,
        phase: Phase,
        measure: Callable[[Taking], float],
        price: float | None,
        rest: float,
    ) -> Study:
        """Run trials of a phase until none is left, here or in another process.

        `price` and `rest` are seconds of one process: for a trial (None: until the time is over), and for all later
        phases.
        """
        study = open_study(self.storage, self.prefix, phase)
        locks = self.folder / TRIALS
        while True:
            with locked(self.folder):
                retire_dead(study, locks)
                is_over = phase.is_timed and complete(study) and self.spent(study) + rest / self.jobs >= self.seconds
                taking = None if is_over else next_trial(study, phase, self.seed, locks)
            if taking is None:
                if is_settled(study):
                    break
                self.pause()
                continue
            self._try(taking, measure)
            ended, of = tried(study), phase.most if phase.is_sampled else len(phase.cells)
            if price is None:
                left = self.seconds - self.spent(study)
            else:
                left = (max(0, (of or 0) - ended) * price + rest) / self.jobs
            values = [float(trial.value or 0.0) for trial in complete(study)]
            best = None if not values or phase.kind == "confirm" else (max if phase.maximise else min)(values)
            self.listen(Progress(phase.kind, str(phase.shape), ended, of, best, phase.maximise, max(0.0, left)))
        if study.study_name not in [each.study_name for each in self.studies]:  # a grid may grow
            self.studies.append(study)
        return study

    def _try(self, taking: Taking, measure: Callable[[Taking], float]) -> None:
        try:
            value: float | None = measure(taking)
        except Weak:
            value = None
        except RunError as error:  # a bad rate can make the loss infinite
            taking.trial.set_user_attr("error", str(error))
            value = None
        except BaseException as error:
            with contextlib.suppress(Exception):  # the storage may be what failed
                taking.give_up()
            if isinstance(error, Interrupted):
                raise Interrupted("stopped; finished trials are kept; run the same command again to resume") from None
            raise
        taking.tell(value)
