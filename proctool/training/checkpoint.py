"""A run's whole state in one artifact, gathered from all its processes: written by the first, read by all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from accelerate.utils import gather_object
from torch import Tensor

from proctool import artifact
from proctool.errors import RunError
from proctool.training.devices import place_like, plain_name, random_state, restore_random_state, settle, whole

if TYPE_CHECKING:
    from accelerate import Accelerator
    from accelerate.optimizer import AcceleratedOptimizer

    from proctool.training.loss import TargetLoss
    from proctool.training.run import RunFolder

_FORMAT = 2
"""Raised when a checkpoint comes to hold something else."""


class HasState(Protocol):
    """A part of the loop that a resumed run must find as it was."""

    def state(self) -> dict[str, Any]:
        """JSON values."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` gave."""


@dataclass
class Position:
    """How far a run is."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    """Of all sittings."""


class Checkpoints:
    """Saves and restores the model, the optimiser, random numbers, the gradient scaler and `parts`.

    Every process calls each method: sharded tensors are gathered, one at a time, and the first process writes.
    """

    def __init__(
        self,
        run: RunFolder,
        accelerator: Accelerator,
        module: TargetLoss,
        optimiser: AcceleratedOptimizer,
        parts: Mapping[str, HasState],
        keep: int,
    ) -> None:
        self.run, self.accelerator, self.module, self.keep = run, accelerator, module, keep
        self.optimiser: torch.optim.Optimizer = optimiser.optimizer
        self.parts = parts

    def restore(self) -> Position | None:
        """Go back to the latest checkpoint; None where there is none. Raises RunError."""
        saved = self.run.latest()
        if saved is None:
            return None
        if saved.about.get("format") != _FORMAT:
            raise RunError(
                f"{saved.path}: made by another version of proctool; finish with that one, or --resume never"
            )
        if saved.about["processes"] != self.accelerator.num_processes:
            raise RunError(
                f"{saved.path}: made by {saved.about['processes']} processes, resumed by "
                f"{self.accelerator.num_processes}; use as many, or --resume never"
            )
        tensors = artifact.read_torch(saved, check=False)  # `latest` has just checked every hash
        parameters = dict(self._parameters())
        with torch.no_grad():
            for name, value in _under(tensors, "model/").items():
                parameters[name].copy_(place_like(value, parameters[name]))
        for name, value in _under(tensors, "optimiser/").items():
            owner, _, key = name.rpartition("/")
            self.optimiser.state[parameters[owner]][key] = place_like(value.clone(), parameters[owner])
        mine = _under(tensors, f"random/{self.accelerator.process_index}/")
        restore_random_state(mine, self.accelerator.device)
        if self.accelerator.scaler is not None and saved.about["scaler"]:
            self.accelerator.scaler.load_state_dict(saved.about["scaler"])
        for name, part in self.parts.items():
            part.restore(saved.about[name])
        return Position(**saved.about["position"])

    def write(self, position: Position) -> None:
        """Save everything, as of `position`."""
        tensors = {f"model/{name}": tensor for name, tensor in self.weights().items()}
        for name, parameter in self._parameters():
            for key, value in sorted(self.optimiser.state.get(parameter, {}).items()):
                self._take(tensors, f"optimiser/{name}/{key}", torch.as_tensor(value))
        for rank, states in enumerate(gather_object([random_state(self.accelerator.device)])):
            tensors |= {f"random/{rank}/{name}": state for name, state in states.items()}
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            about = {
                "format": _FORMAT,
                "processes": self.accelerator.num_processes,
                "position": asdict(position),
                "scaler": scaler.state_dict() if scaler is not None else None,
                **{name: part.state() for name, part in self.parts.items()},
            }
            self.run.save(position.step, tensors, about, self.keep)

    def write_best(self, step: int) -> None:
        """Save the weights alone, as the best so far."""
        tensors = self.weights()
        if self.accelerator.is_main_process:
            self.run.save_best(step, tensors)

    def weights(self) -> dict[str, Tensor]:
        """The model's parameters in full, on the CPU of the first process; nothing on the others."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self._parameters():
            self._take(tensors, name, parameter.detach())
        return tensors

    def _parameters(self) -> Iterator[tuple[str, Tensor]]:
        settle(self.module)
        for name, parameter in self.module.model.named_parameters():
            yield plain_name(name), parameter

    def _take(self, tensors: dict[str, Tensor], name: str, value: Tensor) -> None:
        gathered = whole(value)
        if self.accelerator.is_main_process:
            tensors[name] = gathered.cpu()


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
