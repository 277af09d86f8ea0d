"""A run's folder: its settings, events and checkpoints, and its lock.

NAME.run/config.json      the resolved settings, in a form that makes this folder a run folder (run_form.py)
NAME.run/metrics.jsonl    one JSON object per event, flushed
NAME.run/run.log          what was started with which versions, and how it ended
NAME.run/state-00001000.safetensors    the final state of a complete run, which --extend continues from
NAME.run/checkpoints/     step-00000500.safetensors: weights, optimiser, random states; complete or absent
                           best-00000400.safetensors: the weights with the best validation loss, if asked for
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from proctool import artifact
from proctool.artifact import Artifact
from proctool.errors import ArtifactError, RunError, naming
from proctool.events import FILE, EndEvent, Event, ExtendEvent, NoteEvent, read_events, write_event
from proctool.locks import Taken, take
from proctool.outputs import is_artifact
from proctool.training.claim import (
    CHECKPOINT,
    Kind,
    checked_extension,
    checkpoints_of,
    claim,
    last_end,
    lasting,
    state_of,
    step_of,
)
from proctool.training.extension import EXTENDED_FROM
from proctool.training.run_form import SETTINGS, read_form, require_run_folder, write_form
from proctool.training.run_state import extensions_of


class RunFolder:
    """An open run folder, locked against other processes until `close`.

    `settings` contains everything that the run's result depends on. If the folder holds a checkpoint or result of
    another run, opening it fails, so that nothing is lost or mixed. With `fresh`, what proctool wrote there is
    discarded instead. Opening also fails, before anything is written, if the folder is neither empty nor a run folder.
    Only a run's main process is a `writer`; the others only read. `extend` continues a finished run for more steps.
    Raises RunError, ArtifactError (a damaged state to extend from), OSError.
    """

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, Any],
        *,
        fresh: bool = False,
        extend: bool = False,
        writer: bool = True,
    ) -> None:
        self.path = path
        self.is_writer = writer
        self.listeners: list[Callable[[Event], None]] = []
        self._checkpoints = path / "checkpoints"
        self._metrics: IO[bytes] | None = None
        self._settings = json.loads(json.dumps(settings))
        if not writer:
            self.extended_from = extensions_of(self.path)
            return
        require_run_folder(path)
        path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = take(path / ".lock")
        except Taken as holder:
            raise RunError(f"{path}: this run is in use by {holder}; wait for it or choose another --run-dir") from None
        if fresh:
            self._clear()
        self._claim(extend)
        self.extended_from = extensions_of(self.path)

    def _clear(self) -> None:
        for name in (FILE, SETTINGS, "identity", "run.log"):
            (self.path / name).unlink(missing_ok=True)
        for old in [*self._steps(), *self._bests(), *self._states()]:
            old.unlink()

    def _claim(self, extend: bool) -> None:
        match claim(self.path, self._settings, extend=extend):
            case "new":
                write_form(self.path, self._settings)
            case "extends":
                found = read_form(self.path) or {}
                entry = checked_extension(self.path, found, self._settings)
                write_form(self.path, {**self._settings, EXTENDED_FROM: [*found.get(EXTENDED_FROM, []), entry]})

    @property
    def extensions_begun(self) -> int:
        """The number of extensions recorded in the metrics."""
        return sum(isinstance(event, ExtendEvent) for event in self.events())

    def last_end(self, output: Path | None = None) -> EndEvent | None:
        """The end event; None if the run must continue or write its `output` again."""
        return last_end(self.path, output)

    def close(self) -> None:
        """Close the metrics file and release the folder."""
        if self._metrics is not None:
            self._metrics.close()
        if self.is_writer and self._lock is not None:
            self._lock.close()

    @property
    def identity(self) -> str:
        """A unique name for trackers, drawn once and stored in the folder."""
        kept = self.path / "identity"
        if not kept.exists():
            with naming(kept):
                kept.write_text(secrets.token_hex(4), encoding="utf-8")
        return kept.read_text(encoding="utf-8")

    # -- events --

    def events(self) -> list[Event]:
        """The events recorded so far, without a last line that a kill has cut off."""
        return read_events(self.path)

    def begin(self, step: int) -> None:
        """Open the metrics file to continue from `step`. Later events of a killed run are dropped and will be repeated.

        Later checkpoints are removed too. They are damaged, and would be kept instead of new ones.
        """
        if not self.is_writer:
            return
        kept = [event for event in self.events() if (getattr(event, "step", None) or 0) <= step] if step else []
        for path in [*self._bests(), *self._steps()]:
            if step_of(path) > step:
                path.unlink()
        with artifact.replacing(self.path / FILE) as file:
            for event in kept:
                write_event(file, event)
        self._metrics = (self.path / FILE).open("ab")

    def record(self, event: Event) -> None:
        """Append an event to the metrics and pass it to the listeners."""
        if not self.is_writer:
            return
        assert self._metrics is not None
        with naming(self._metrics.name):
            write_event(self._metrics, event)
        self._tell(event)

    def say(self, note: str) -> None:
        """Pass a note to the listeners without recording it."""
        self._tell(NoteEvent(note=note))

    def _tell(self, event: Event) -> None:
        for listener in list(self.listeners):
            try:
                listener(event)
            except OSError:  # training continues without its terminal or pipe
                self.listeners = [each for each in self.listeners if each is not listener]

    # -- checkpoints --

    def save(self, step: int, tensors: Mapping[str, Any], state: Mapping[str, Any], keep: int) -> Path:
        """Write the checkpoint of `step`, then drop all but the latest `keep`."""
        self._checkpoints.mkdir(exist_ok=True)
        path = self._checkpoints / f"step-{step:08d}.safetensors"
        artifact.write(path, tensors, kind="checkpoint", metadata={**state, "step": step})
        for old in self._steps()[:-keep]:
            old.unlink()
        self._drop_bests()
        return path

    def save_best(self, step: int, weights: Mapping[str, Any]) -> None:
        """Write the weights of `step`, the best so far. Best weights that a kept checkpoint refers to stay."""
        self._checkpoints.mkdir(exist_ok=True)
        path = self._checkpoints / f"best-{step:08d}.safetensors"
        artifact.write(path, weights, kind="weights", metadata={"step": step})
        self._drop_bests()

    def best(self, step: int) -> Artifact:
        """The weights that `save_best` wrote at `step`. Raises ArtifactError."""
        return artifact.open_artifact(self._checkpoints / f"best-{step:08d}.safetensors", "weights")

    def _drop_bests(self) -> None:
        """Remove best weights, except the latest and those that each checkpoint needs for a resume."""
        bests = {step_of(path): path for path in self._bests()}
        needed = set(list(bests)[-1:])
        for checkpoint in map(step_of, self._steps()):
            needed |= set([step for step in bests if step <= checkpoint][-1:])
        for step in bests.keys() - needed:
            bests[step].unlink()

    def latest(self) -> Artifact | None:
        """The latest checkpoint with correct hashes. Damaged ones are skipped, with a note."""
        for path in reversed(self._named("step")):
            try:
                found = artifact.open_artifact(path, "checkpoint")
                artifact.verify(found)
            except ArtifactError as error:
                self.say(f"skipping a damaged checkpoint: {error}")
                continue
            return found
        if self.extended_from and (state := state_of(self.path, self.extended_from[-1]["step"])).exists():
            return artifact.open_artifact(state, "checkpoint")
        return None

    def save_state(self, step: int, tensors: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Write the final training state, from which an extension continues."""
        metadata = {**state, "step": step, "final": True, "settings": lasting(self._settings)}
        artifact.write(state_of(self.path, step), tensors, kind="checkpoint", metadata=metadata)

    def complete(self, step: int) -> None:
        """Remove all checkpoints. If the final state of `step` was saved, best weights that an extension needs stay."""
        if not self.is_writer:
            return
        bests = self._bests()
        if state_of(self.path, step).exists():
            needed = [path for path in bests if step_of(path) < step][-1:]
            bests = [path for path in bests if path not in needed]
        old = [path for path in self._states() if path != state_of(self.path, step)]
        for path in [*self._steps(), *bests, *old]:
            path.unlink()

    def _states(self) -> list[Path]:
        named = [path for path in self.path.glob("state-*.safetensors") if _STATE.fullmatch(path.name)]
        return [path for path in named if is_artifact(path)]

    def _steps(self) -> list[Path]:
        return self._ours("step")

    def _bests(self) -> list[Path]:
        return self._ours("best")

    def _ours(self, kind: Kind) -> list[Path]:
        """Checkpoints that proctool wrote, including damaged ones. No other files are counted or removed."""
        return [path for path in self._named(kind) if is_artifact(path)]

    def _named(self, kind: Kind) -> list[Path]:
        """Files with the name of a checkpoint, ordered by step."""
        if self.is_writer and self._checkpoints.is_dir():
            for left in self._checkpoints.glob(".*"):  # by a killed run: the lock keeps other writers out
                if _LEFT.fullmatch(left.name):
                    left.unlink()
        return checkpoints_of(self.path, kind)


_STATE = re.compile(r"state-\d{8,}\.safetensors")
_LEFT = re.compile(rf"\.{CHECKPOINT.pattern}\.([a-z0-9_]{{8}}\.partial|lock)")
