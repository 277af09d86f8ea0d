"""Checkpoints: the whole state of a run in one artifact. The first process writes it, all processes read it."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from accelerate.utils import gather_object
from torch import Tensor

from proctool import artifact
from proctool.errors import ProctoolError, RunError
from proctool.training.background import Background, HostCopies
from proctool.training.devices import random_state, restore_random_state

if TYPE_CHECKING:
    from proctool.training.engine import Engine
    from proctool.training.run import RunFolder

_FORMAT = 2
"""Version of the checkpoint format. Increase it when the contents of a checkpoint change."""
_COPIED_ON_CPU = 2 << 30
"""On a CPU, states of up to this many bytes are copied, so that training continues while the copy is written."""


class HasState(Protocol):
    """A part of the loop whose state belongs to a checkpoint."""

    def state(self) -> dict[str, Any]:
        """The state, as JSON values."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""


@dataclass
class Position:
    """The progress of a run: steps taken, tokens seen, and time."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    """Total time across resumes."""


class Checkpoints:
    """Saves and restores the model, the optimiser, random states, the gradient scaler and `parts`.

    All processes must call each method, because the engine gathers sharded tensors. The first process writes the files
    in a thread, one at a time. A failed write raises its OSError from the next method that is called. Leaving the
    context waits until the last file is complete.
    """

    def __init__(self, run: RunFolder, engine: Engine, parts: Mapping[str, HasState], keep: int) -> None:
        self.run, self.engine, self.parts, self.keep = run, engine, parts, keep
        self.accelerator = engine.accelerator
        self._copies, self._writer = HostCopies(), Background()
        self.extends = False
        """Whether `restore` read the final state of a completed run, which is now being extended."""

    def restore(self, start: Mapping[str, Tensor] | None = None) -> Position | None:
        """Restore the latest checkpoint and return its position.

        Without a checkpoint, returns None and gives the optimiser the state `start` (by PARAMETER/KEY). Raises RunError
        for a checkpoint of another format version, number of processes or sharding layout.
        """
        saved = self.run.latest()
        if saved is None:
            if start:
                self.engine.restore({}, start)
            return None
        if saved.metadata.get("format") != _FORMAT:
            raise RunError(
                f"{saved.path}: made by another version of proctool; finish with that version, or use --resume never"
            )
        if saved.metadata["processes"] != self.accelerator.num_processes:
            raise RunError(
                f"{saved.path}: made by {saved.metadata['processes']} processes, resumed by "
                f"{self.accelerator.num_processes}; use the same number, or --resume never"
            )
        if saved.metadata.get("layout") != self.engine.layout:
            made, now = (each or "DDP or FSDP2" for each in (saved.metadata.get("layout"), self.engine.layout))
            raise RunError(
                f"{saved.path}: made under {made}, resumed under {now}; launch as before, or use --resume never"
            )
        tensors = artifact.read_torch(saved, check=False)  # `latest` has already checked the hashes
        self.engine.restore(_under(tensors, "model/"), _under(tensors, "optimiser/"))
        mine = _under(tensors, f"random/{self.accelerator.process_index}/")
        restore_random_state(mine, self.accelerator.device)
        if self.accelerator.scaler is not None and saved.metadata["scaler"]:
            self.accelerator.scaler.load_state_dict(saved.metadata["scaler"])
        for name, part in self.parts.items():
            part.restore(saved.metadata[name])
        self.extends = bool(saved.metadata.get("final"))
        return Position(**saved.metadata["position"])

    def part_states(self) -> dict[str, Any]:
        """A snapshot of the states of `parts`, which later changes do not affect."""
        return copy.deepcopy({name: part.state() for name, part in self.parts.items()})

    def write(self, position: Position, random: Mapping[str, Tensor] | None = None) -> None:
        """Save a checkpoint at `position`. `random` holds this process's random states (default: the current ones)."""
        self._writer.wait()  # the previous write still reads the copies
        copies = self._copies if self._has_room else None
        tensors, metadata = self._whole(position, self.part_states(), random, copies)
        self._start(lambda: self.run.save(position.step, tensors, metadata, self.keep))
        if copies is None:
            self._writer.wait()

    def write_state(self, position: Position, parts: Mapping[str, Any]) -> None:
        """Save the run's final state, with `parts` from `part_states`. Returns when the file is complete."""
        self._writer.wait()
        tensors, metadata = self._whole(position, parts)
        self._start(lambda: self.run.save_state(position.step, tensors, metadata))
        self._writer.wait()

    def write_best(self, step: int) -> None:
        """Save the current weights, without other state, as the best so far."""
        self._writer.wait()
        tensors = self.engine.weights(self._copies)
        self._start(lambda: self.run.save_best(step, tensors))

    @property
    def _has_room(self) -> bool:
        """Whether to copy the state to host memory. On a CPU, a large state might not fit twice."""
        weights = sum(parameter.numel() for parameter in self.engine.module.parameters())
        return self.accelerator.device.type != "cpu" or 12 * weights <= _COPIED_ON_CPU

    def _start(self, save: Callable[[], object]) -> None:
        def job() -> None:
            self._copies.wait()
            save()

        if self.accelerator.is_main_process:
            self._writer.start(job)

    def check(self) -> None:
        """Raise the error of a write that has failed, without waiting for one that is still running."""
        self._writer.check()

    def wait(self) -> None:
        """Wait until the last file is complete. Raises its error if the write failed."""
        self._writer.wait()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # If another error ends the run, report that one rather than a failed write.
        with contextlib.suppress(*((OSError, ProctoolError) if kind else ())):
            self._writer.wait()

    def _whole(
        self,
        position: Position,
        parts: Mapping[str, Any],
        random: Mapping[str, Tensor] | None = None,
        copies: HostCopies | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {f"model/{name}": tensor for name, tensor in self.engine.weights(copies).items()}
        tensors |= {f"optimiser/{name}": tensor for name, tensor in self.engine.optimiser_state(copies).items()}
        for rank, states in enumerate(gather_object([random or random_state(self.accelerator.device)])):
            tensors |= {f"random/{rank}/{name}": state for name, state in states.items()}
        scaler = self.accelerator.scaler
        metadata = {
            "format": _FORMAT,
            "processes": self.accelerator.num_processes,
            **({"layout": self.engine.layout} if self.engine.layout else {}),
            "position": asdict(position),
            "scaler": scaler.state_dict() if scaler is not None else None,
            **parts,
        }
        return tensors, metadata


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
