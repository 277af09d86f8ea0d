"""A run's folder: its settings, its events, its checkpoints, and whose it is.

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
from proctool.errors import ArtifactError, RunError
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

    `settings` is what the run's result depends on. A folder that holds another run's checkpoint or result is refused,
    so nothing is lost or mixed; `fresh` discards what proctool wrote of it instead. A folder that is neither empty nor
    a run folder is refused before anything is written. Of a run's processes only the main one is a `writer`; to the
    others the folder is there to be read. `extend` takes more steps than a finished run has as its continuation.
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
        """Extensions that the metrics have recorded."""
        return sum(isinstance(event, ExtendEvent) for event in self.events())

    def last_end(self, output: Path | None = None) -> EndEvent | None:
        """How the run ended; None while it is to go on, or to write its `output` again."""
        return last_end(self.path, output)

    def close(self) -> None:
        """Close the metrics file and release the folder."""
        if self._metrics is not None:
            self._metrics.close()
        if self.is_writer and self._lock is not None:
            self._lock.close()

    @property
    def identity(self) -> str:
        """A name that no other run has, for trackers to know this one by; drawn once and kept in the folder."""
        kept = self.path / "identity"
        if not kept.exists():
            kept.write_text(secrets.token_hex(4), encoding="utf-8")
        return kept.read_text(encoding="utf-8")

    # -- events --

    def events(self) -> list[Event]:
        """The events recorded so far; a last line cut off by a kill is left out."""
        return read_events(self.path)

    def begin(self, step: int) -> None:
        """Open the metrics file to go on from `step`: what a killed run recorded past it is dropped, to be redone.

        So are checkpoints past it, which are damaged, and would be kept in the place of newer ones.
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
        """Append an event and tell the listeners."""
        if not self.is_writer:
            return
        assert self._metrics is not None
        try:
            write_event(self._metrics, event)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._metrics.name) from None
        self._tell(event)

    def say(self, note: str) -> None:
        """Tell the listeners something that the run does not record."""
        self._tell(NoteEvent(note=note))

    def _tell(self, event: Event) -> None:
        for listener in list(self.listeners):
            try:
                listener(event)
            except OSError:  # a terminal or a pipe that is gone is no reason to stop training
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
        """Write the weights of `step`, the best so far; those that a kept checkpoint goes back to stay beside them."""
        self._checkpoints.mkdir(exist_ok=True)
        path = self._checkpoints / f"best-{step:08d}.safetensors"
        artifact.write(path, weights, kind="weights", metadata={"step": step})
        self._drop_bests()

    def best(self, step: int) -> Artifact:
        """The weights that `save_best` wrote at `step`. Raises ArtifactError."""
        return artifact.open_artifact(self._checkpoints / f"best-{step:08d}.safetensors", "weights")

    def _drop_bests(self) -> None:
        """Keep the last, and for each checkpoint the last before it: a run that goes on from there has it again."""
        bests = {step_of(path): path for path in self._bests()}
        needed = set(list(bests)[-1:])
        for checkpoint in map(step_of, self._steps()):
            needed |= set([step for step in bests if step <= checkpoint][-1:])
        for step in bests.keys() - needed:
            bests[step].unlink()

    def latest(self) -> Artifact | None:
        """The latest checkpoint whose every hash is right; a damaged one is passed over for the one before."""
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
        """Write the final training state, for an extension to continue from."""
        metadata = {**state, "step": step, "final": True, "settings": lasting(self._settings)}
        artifact.write(state_of(self.path, step), tensors, kind="checkpoint", metadata=metadata)

    def complete(self, step: int) -> None:
        """Remove every checkpoint. What an extension from `step` needs stays, where its state was saved."""
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
        """Checkpoints that proctool wrote, damaged since or not: these alone are counted and removed."""
        return [path for path in self._named(kind) if is_artifact(path)]

    def _named(self, kind: Kind) -> list[Path]:
        """Files with a checkpoint's name, in the order of their steps."""
        if self.is_writer and self._checkpoints.is_dir():
            for left in self._checkpoints.glob(".*"):  # by a kill; ours, since the folder is locked
                if _LEFT.fullmatch(left.name):
                    left.unlink()
        return checkpoints_of(self.path, kind)


_STATE = re.compile(r"state-\d{8,}\.safetensors")
_LEFT = re.compile(rf"\.{CHECKPOINT.pattern}\.([a-z0-9_]{{8}}\.partial|lock)")
