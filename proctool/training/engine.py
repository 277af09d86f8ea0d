"""A run's model and optimiser as its launch lays them out, and the steps that depend on it.

Whole models on every process (DDP), or models sharded over them (FSDP2, where parameters are DTensors). Whatever the
layout, weights and the optimiser's state come out of it as one process alone would hold them, and go back in.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import DistributedType
from torch import Tensor, nn

from proctool.training.background import HostCopies
from proctool.training.batch import AnyBatch
from proctool.training.environment import hidden
from proctool.training.loss import TargetLoss
from proctool.training.optimiser import MuonAndAdamW, set_rate

if TYPE_CHECKING:
    from accelerate import Accelerator


class Engine:
    """Gradients, steps and state of one run. Every process calls each method, in the same order."""

    layout: str | None = None
    """What a checkpoint's optimiser is cut up by, where it is not written in full."""
    steps_early = False
    """Whether `clip_or_step` changes the weights already."""

    def __init__(self, accelerator: Accelerator, module: TargetLoss, optimiser: torch.optim.Optimizer) -> None:
        self.accelerator, self.module, self.optimiser = accelerator, module, optimiser
        if accelerator.distributed_type == DistributedType.FSDP:
            self._prepared, self._stepper = self._sharded()
        else:
            with hidden():
                self._prepared, self._stepper = accelerator.prepare(module, optimiser)
        self.optimiser = self._stepper.optimizer  # FSDP2 puts its own parameters into another one

    def _sharded(self) -> Any:
        from torch.distributed.fsdp import MixedPrecisionPolicy, register_fsdp_forward_method

        plugin = self.accelerator.state.fsdp_plugin
        plugin.cpu_ram_efficient_loading = False  # every process builds the model from the seed
        if self.accelerator.mixed_precision == "bf16":
            # Accelerate's own policy would add gradients up and hand the loss over in bf16, on accelerators alone.
            plugin.mixed_precision_policy = MixedPrecisionPolicy(torch.bfloat16, reduce_dtype=torch.float32)
        self.module._no_split_modules = self.module.model._no_split_modules  # layers, to wrap by
        with hidden():
            prepared, stepper = self.accelerator.prepare(self.module, self.optimiser)
        register_fsdp_forward_method(prepared, "scores")
        return prepared, stepper

    @property
    def holds(self) -> bool:
        """Whether `step` obeys `hold`, as fused AdamW does. Muon does not: the host must ask before its steps."""
        return not isinstance(self.optimiser, MuonAndAdamW)

    def set_learning_rate(self, rate: float) -> None:
        """For the next step."""
        set_rate(self._stepper.param_groups, rate)

    def make_capturable(self) -> None:
        """Keep the learning rate in a tensor, for steps that are recorded once and replayed."""
        for group in self._stepper.param_groups:
            group["lr"] = torch.zeros((), device=self.accelerator.device)
            group["capturable"] = True
        # The steps before a recording are taken without one, which torch warns of.
        self.optimiser._warned_capturable_if_run_uncaptured = True

    def forget_gradients(self) -> None:
        """Begin a step anew."""
        self._stepper.zero_grad()

    def add_gradients(self, batch: AnyBatch, targets: int | Tensor, is_last: bool) -> Tensor:
        """Add a micro-batch's share of the gradient of a step with so many targets (1 or more) in all its processes.

        Returns its share of the mean loss, in nats; () float32. With procedural rows among corpus rows, the share of
        those follows; (2,).
        """
        with self._meeting(is_last):
            # DDP averages over processes; the loss is a mean over all targets of the step.
            share, told = shares_of(self._prepared(*batch), targets)
            self.accelerator.backward(share * self.accelerator.num_processes)
        return told

    def _meeting(self, is_last: bool) -> contextlib.AbstractContextManager[None]:
        """Processes add their gradients up after the last micro-batch of a step, sharded ones after each."""
        if is_last or is_sharded(self._prepared):
            return contextlib.nullcontext()
        return self.accelerator.no_sync(self._prepared)  # type: ignore[no-any-return]

    def clip_or_step(self, limit: float | None) -> Tensor:
        """The gradient's norm over all parameters and processes, before it is cut to `limit`; () on the device.

        An engine that `steps_early` knows it after the step alone, and takes that here.
        """
        norm: Tensor = _whole(self.accelerator.clip_grad_norm_(self.module.parameters(), limit or math.inf))
        return norm

    def step(self, hold: Tensor | None = None) -> None:
        """Change the weights by the gradients added up, where that is still to be done, and forget those.

        Where `hold` (() float32, on the device) is 1, weights and optimiser stay as they are, step count included.
        """
        if hold is not None:
            assert self.holds, "this optimiser would step all the same"
            self.optimiser.found_inf = hold  # type: ignore[attr-defined]  # what fused AdamW looks for
        self._stepper.step()
        self._stepper.zero_grad()

    # -- state --

    def weights(self, copies: HostCopies | None = None) -> dict[str, Tensor]:
        """The model's parameters in full, on the CPU of the first process; nothing on the others.

        On CPUs they are the parameters themselves, which change with the next step; or else copies, in `copies`.
        """
        return self._on_first("model/", ((name, parameter.detach()) for name, parameter in self._parameters()), copies)

    def optimiser_state(self, copies: HostCopies | None = None) -> dict[str, Tensor]:
        """The optimiser's tensors in full, by PARAMETER/KEY, where `weights` are."""
        tensors = (
            (f"{name}/{key}", torch.as_tensor(value))
            for name, parameter in self._parameters()
            for key, value in sorted(self.optimiser.state.get(parameter, {}).items())
        )
        return self._on_first("optimiser/", tensors, copies)

    @torch.no_grad()
    def restore(self, weights: Mapping[str, Tensor], optimiser_state: Mapping[str, Tensor]) -> None:
        """Put back what `weights` and `optimiser_state` gave; every process has it all."""
        parameters = dict(self._parameters())
        for name, value in weights.items():
            parameters[name].copy_(_place_like(value, parameters[name]))
        for name, value in optimiser_state.items():
            owner, _, key = name.rpartition("/")
            self.optimiser.state[parameters[owner]][key] = _place_like(value.clone(), parameters[owner])

    def _parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        _settle(self.module)
        for name, parameter in self.module.model.named_parameters():
            # Wrappers put words of their own into names.
            yield name.replace("_checkpoint_wrapped_module.", "").replace("_orig_mod.", ""), parameter

    def _on_first(
        self, prefix: str, tensors: Iterator[tuple[str, Tensor]], copies: HostCopies | None
    ) -> dict[str, Tensor]:
        # One tensor at a time is whole on a device.
        found = {}
        for name, tensor in tensors:
            gathered = _whole(tensor)
            if self.accelerator.is_main_process:
                found[name] = copies.take(prefix + name, gathered) if copies else gathered.cpu()
        return found


def shares_of(parts: Tensor | tuple[Tensor, Tensor], targets: int | Tensor) -> tuple[Tensor, Tensor]:
    """The loss of a batch as its share of the step's mean; and what is told of it, without gradients: () or (2,)."""
    if isinstance(parts, Tensor):
        share = parts / targets
        return share, share.detach()
    share = parts[0] / targets
    return share, torch.stack([share.detach(), parts[1] / targets])


def is_sharded(module: nn.Module) -> bool:
    """Whether each process holds a part of every parameter, so that all must run the model in step.

    Asked of the module: on CPUs Accelerate forgets that the launch was for sharding.
    """
    from torch.distributed.fsdp import FSDPModule

    return isinstance(module, FSDPModule) or any(hasattr(each, "ds_id") for each in module.parameters())  # ZeRO 3


def _settle(module: nn.Module) -> None:
    """Let go of gathered parameters: an evaluation leaves some in place of their shards, in memory that is reused."""
    from torch.distributed.fsdp import FSDPModule

    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def _whole(tensor: Any) -> Tensor:
    """The full tensor on every process; all of them must ask together where it is sharded."""
    gather = getattr(tensor, "full_tensor", None)
    return gather() if gather is not None else tensor  # type: ignore[no-any-return]


def _place_like(value: Tensor, parameter: Tensor) -> Tensor:
    """A full tensor on the parameter's device, sharded as the parameter is."""
    value = value.to(parameter.device)
    mesh = getattr(parameter, "device_mesh", None)
    if mesh is None or not value.dim():
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, mesh, parameter.placements)  # type: ignore[attr-defined]
