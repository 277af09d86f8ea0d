"""Optuna's part: the storage that processes share, the studies in it, and which trial comes next.

A phase of the search is one study. Its trials are given (cells of a grid) or sampled by TPE. A trial of a process that
was killed is marked as failed, and its cell is tried again. `next_trial` is called under the lock of the folder, so
that no two processes get the same cell.
"""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from proctool.errors import OptionError, RunError, first_line
from proctool.locks import Taken, take
from proctool.models.shapes import Shape
from proctool.search.space import Params

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

STARTUP = 10
"""Trials of random candidates, the first ones included, before TPE models them."""


Kind = Literal["cold", "candidates", "finals", "confirm"]
KIND = "kind"
"""The attribute of a trial, and of its study, that holds the kind of its phase."""


@dataclass(frozen=True)
class Phase:
    """A study: its parameters, and the cells to try if they are given."""

    kind: Kind
    shape: Shape
    maximise: bool
    space: Mapping[str, BaseDistribution]
    cells: tuple[Params, ...] = ()
    """The cells to try, in order; of a sampled phase only the first ones."""
    is_sampled: bool = False
    most: int | None = None
    """Most trials of a sampled phase."""
    prunes: bool = False
    """Whether weak trials are stopped (asynchronous successive halving)."""
    is_timed: bool = False
    """Whether it ends when the time that later phases need begins."""

    @property
    def name(self) -> str:
        """The name of the study in Optuna's storage."""
        return f"{self.kind}-{self.shape}"


@dataclass(frozen=True)
class Taking:
    """A trial that this process runs, with the lock that shows it is alive."""

    trial: Trial
    lock: IO[str] | None
    study: Study
    params: Params = field(default_factory=dict)

    def tell(self, value: float | None) -> None:
        """End the trial: with its value, or as pruned."""
        from optuna.trial import TrialState

        if value is None:
            self.study.tell(self.trial, state=TrialState.PRUNED)
        else:
            self.study.tell(self.trial, value)
        self.release()

    def give_up(self) -> None:
        """Mark the trial as failed; it will be tried again."""
        from optuna.trial import TrialState

        self.study.tell(self.trial, state=TrialState.FAIL)
        self.release()

    def release(self) -> None:
        """Close the lock."""
        if self.lock is not None:
            self.lock.close()


def require_optuna() -> Any:
    """The module optuna. Raises OptionError where it is not installed."""
    try:
        import optuna
    except ImportError:
        raise OptionError("search needs Optuna: pip install 'proctool[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", module="optuna")
    return optuna


def open_storage(url: str) -> BaseStorage:
    """Optuna's storage at `url`. Raises RunError if it cannot be used."""
    optuna = require_optuna()
    waits = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    try:
        storage: BaseStorage = optuna.storages.RDBStorage(url, engine_kwargs=waits)
    except Exception as error:  # SQLAlchemy and database drivers have many
        raise RunError(f"storage {without_password(url)}: cannot be used: {first_line(error)}") from None
    return storage


@contextlib.contextmanager
def storage_errors() -> Iterator[None]:
    """Turn an error of the storage (a full disk, a lost connection) into a RunError."""
    try:
        yield
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("optuna", "sqlalchemy", "sqlite3"):
            raise
        raise RunError(
            f"storage: {first_line(error)}; finished trials are kept; run the same command again to resume"
        ) from None


def without_password(url: str) -> str:
    """A storage's URL as it may be shown."""
    scheme, mark, rest = url.partition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"


def open_study(storage: BaseStorage, prefix: str, phase: Phase) -> Study:
    """The study of a phase, made if it is missing."""
    optuna = require_optuna()
    # Reports count evaluations from 1, so the rungs are at 1, 2, 4, ... of them.
    halving = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
    study: Study = optuna.create_study(
        storage=storage,
        study_name=f"{prefix}/{phase.name}",
        direction="maximize" if phase.maximise else "minimize",
        pruner=halving if phase.prunes else optuna.pruners.NopPruner(),
        load_if_exists=True,
    )
    study.set_user_attr(KIND, phase.kind)  # trials of earlier versions have no kind themselves
    return study


def retire_dead(study: Study, locks: Path) -> None:
    """Mark the running trials of ended processes as failed. A sampled trial's parameters wait to be tried again."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        try:
            held = take(_lock_of(study, trial.number, locks))
        except Taken:
            continue
        if held is None:  # a file system without locks does not tell who is alive
            return
        with held:
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)


def next_trial(study: Study, phase: Phase, seed: int, locks: Path) -> Taking | None:
    """The next trial of a phase; None if all are taken or done.

    With one process, the trials depend only on the seed and on the earlier results, however often it was interrupted:
    the sampler starts again for each trial, from the number of trials that did not fail.
    """
    from optuna.samplers import TPESampler
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    alive = [trial for trial in trials if trial.state not in (TrialState.FAIL, TrialState.WAITING)]
    lost = [trial.params for trial in trials if trial.state is TrialState.FAIL]
    lost = [params for params in lost if params.keys() == phase.space.keys()]  # not killed while it was made
    known = [trial.params for trial in alive]
    missing = [dict(cell) for cell in (*phase.cells, *lost) if cell not in known]
    if not missing and not phase.is_sampled:
        return None
    if phase.is_sampled and phase.most is not None and len(alive) >= phase.most:
        return None
    number = len(alive)
    digest = hashlib.sha256(f"{seed}/{phase.name}/{number}".encode()).digest()
    startup = max(STARTUP, len(phase.cells))
    study.sampler = TPESampler(seed=int.from_bytes(digest[:4], "little"), n_startup_trials=startup)
    if missing and not any(trial.state is TrialState.WAITING for trial in trials):  # by a kill in between
        study.enqueue_trial(missing[0])
    trial = study.ask(dict(phase.space))
    trial.set_user_attr(KIND, phase.kind)
    with contextlib.suppress(Taken):
        lock = take(_lock_of(study, trial.number, locks))
        return Taking(trial, lock, study, trial.params)
    raise AssertionError("a new trial's lock is free")


def _lock_of(study: Study, number: int, locks: Path) -> Path:
    locks.mkdir(parents=True, exist_ok=True)
    name = study.study_name.rpartition("/")[2]
    return locks / f".trial-{name}-{number}.lock"


def complete(study: Study) -> list[FrozenTrial]:
    """The trials with a value, in order."""
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def reached(study: Study) -> list[tuple[int, float, Params]]:
    """The last report of each trial that ended without an error, its value there, and its parameters."""
    from optuna.trial import TrialState

    return [
        (last, trial.intermediate_values[last], trial.params)
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        if "error" not in trial.user_attrs and (last := trial.last_step) is not None
    ]


def first_error(study: Study) -> str:
    """Why trials failed."""
    errors = [trial.user_attrs["error"] for trial in study.get_trials(deepcopy=False) if "error" in trial.user_attrs]
    return errors[0] if errors else "all were stopped"


def is_settled(study: Study) -> bool:
    """Whether no trial is running."""
    from optuna.trial import TrialState

    return not study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def tried(study: Study) -> int:
    """The trials that ended, stopped ones included."""
    from optuna.trial import TrialState

    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))


def cells_tried(studies: Sequence[Study], *kinds: Kind) -> int:
    """The trials of these kinds that ended, stopped ones included."""
    from optuna.trial import TrialState

    states = (TrialState.COMPLETE, TrialState.PRUNED)
    return sum(
        trial.user_attrs.get(KIND, study.user_attrs.get(KIND)) in kinds
        for study in studies
        for trial in study.get_trials(deepcopy=False, states=states)
    )


def worked_seconds(studies: Sequence[Study], now: Callable[[], datetime] = datetime.now) -> float:
    """Seconds in which a trial was running, across resumes; simultaneous trials count once."""
    from optuna.trial import TrialState

    spans = sorted(
        (trial.datetime_start, trial.datetime_complete or now())
        for study in studies
        for trial in study.get_trials(deepcopy=False)
        if trial.datetime_start is not None and trial.state is not TrialState.FAIL
    )
    total, end = 0.0, None
    for begins, ends in spans:
        since = begins if end is None or begins > end else end
        if ends > since:
            total += (ends - since).total_seconds()
            end = ends
    return total
