"""A run's model and optimiser, distributed over processes as the launch requires.

Each process holds the whole model (DDP) or a shard of it (FSDP2, whose parameters are DTensors). Weights and optimiser
state are saved and restored in full, in the form that a single process would hold, whatever the layout.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import DistributedType
from torch import Tensor, nn

from proctool.internals.of_accelerate import shard_by
from proctool.internals.of_torch import allow_eager_capturable_steps
from proctool.internals.of_transformers import layer_classes
from proctool.training.background import HostCopies
from proctool.training.batch import AnyBatch
from proctool.training.environment import hidden
from proctool.training.loss import TargetLoss
from proctool.training.optimiser import MuonAndAdamW, set_rate

if TYPE_CHECKING:
    from accelerate import Accelerator


class Engine:
    """Gradients, steps and state of one run. All processes must call the same methods in the same order."""

    layout: str | None = None
    """Sharding layout of the saved optimiser state; None if the state is saved in full."""
    steps_early = False
    """Whether `clip_or_step` already takes the step, so that a bad gradient is detected only after it."""

    def __init__(self, accelerator: Accelerator, module: TargetLoss, optimiser: torch.optim.Optimizer) -> None:
        self.accelerator, self.module, self.optimiser = accelerator, module, optimiser
        if accelerator.distributed_type == DistributedType.FSDP:
            self._prepared, self._stepper = self._sharded()
        else:
            with hidden():
                self._prepared, self._stepper = accelerator.prepare(module, optimiser)
        self.optimiser = self._stepper.optimizer  # for FSDP2, another optimiser, over DTensors

    def _sharded(self) -> Any:
        from torch.distributed.fsdp import MixedPrecisionPolicy, register_fsdp_forward_method

        plugin = self.accelerator.state.fsdp_plugin
        plugin.cpu_ram_efficient_loading = False  # every process builds the model from the seed
        if self.accelerator.mixed_precision == "bf16":
            # Accelerate's policy would reduce gradients and return the loss in bf16, on accelerators but not on CPUs.
            plugin.mixed_precision_policy = MixedPrecisionPolicy(torch.bfloat16, reduce_dtype=torch.float32)
        shard_by(self.module, layer_classes(self.module.model))
        with hidden():
            prepared, stepper = self.accelerator.prepare(self.module, self.optimiser)
        register_fsdp_forward_method(prepared, "scores")
        return prepared, stepper

    @property
    def holds(self) -> bool:
        """Whether `step` supports `hold`. Fused AdamW does; for Muon, the host must check gradients before the step."""
        return not isinstance(self.optimiser, MuonAndAdamW)

    def set_learning_rate(self, rate: float) -> None:
        """Set the learning rate of the next step."""
        set_rate(self._stepper.param_groups, rate)

    def make_capturable(self) -> None:
        """Keep the learning rate in a tensor, so that a recorded CUDA graph can be replayed with another rate."""
        for group in self._stepper.param_groups:
            group["lr"] = torch.zeros((), device=self.accelerator.device)
            group["capturable"] = True
        # torch warns about capturable steps outside a recording, which the steps before it are.
        allow_eager_capturable_steps(self.optimiser)

    def forget_gradients(self) -> None:
        """Drop the gradients added so far, to start the step again."""
        self._stepper.zero_grad()

    def add_gradients(self, batch: AnyBatch, targets: int | Tensor, is_last: bool) -> Tensor:
        """Add the gradient of one micro-batch. `targets` (at least 1) is the step's total over all processes.

        Returns the micro-batch's share of the step's mean loss in nats, () float32. For a MixedBatch, returns (2,)
        float32: that share and the part of it from procedural rows.
        """
        with self._meeting(is_last):
            # DDP averages over processes; the loss is a mean over all targets of the step.
            share, told = shares_of(self._prepared(*batch), targets)
            self.accelerator.backward(share * self.accelerator.num_processes)
        return told

    def _meeting(self, is_last: bool) -> contextlib.AbstractContextManager[None]:
        """DDP sums gradients over processes only after a step's last micro-batch, sharded models after each one."""
        if is_last or is_sharded(self._prepared):
            return contextlib.nullcontext()
        return self.accelerator.no_sync(self._prepared)  # type: ignore[no-any-return]

    def clip_or_step(self, limit: float | None) -> Tensor:
        """Clip the gradient to the norm `limit`. Returns its global norm before clipping, () on the device.

        An engine with `steps_early` knows the norm only after the step, so it takes the step here.
        """
        norm: Tensor = _whole(self.accelerator.clip_grad_norm_(self.module.parameters(), limit or math.inf))
        return norm

    def step(self, hold: Tensor | None = None) -> None:
        """Take the optimiser step, unless `clip_or_step` has done so, and drop the gradients.

        If `hold` (() float32, on the device) is 1, the weights and the optimiser with its step count do not change.
        """
        if hold is not None:
            assert self.holds, "this optimiser ignores hold"
            self.optimiser.found_inf = hold  # type: ignore[attr-defined]  # read by fused AdamW
        self._stepper.step()
        self._stepper.zero_grad()

    # -- state --

    def weights(self, copies: HostCopies | None = None) -> dict[str, Tensor]:
        """The model's full parameters by name, on the CPU. Empty on all processes but the first.

        With `copies`, the tensors are copied into its buffers. Without, a run on CPUs returns the parameters, which the
        next step changes.
        """
        return self._on_first("model/", ((name, parameter.detach()) for name, parameter in self._parameters()), copies)

    def optimiser_state(self, copies: HostCopies | None = None) -> dict[str, Tensor]:
        """The optimiser's full tensors by PARAMETER/KEY, on the CPU. As for `weights`, only on the first process."""
        tensors = (
            (f"{name}/{key}", torch.as_tensor(value))
            for name, parameter in self._parameters()
            for key, value in sorted(self.optimiser.state.get(parameter, {}).items())
        )
        return self._on_first("optimiser/", tensors, copies)

    @torch.no_grad()
    def restore(self, weights: Mapping[str, Tensor], optimiser_state: Mapping[str, Tensor]) -> None:
        """Restore what `weights` and `optimiser_state` returned. Every process must pass all tensors."""
        parameters = dict(self._parameters())
        for name, value in weights.items():
            parameters[name].copy_(_place_like(value, parameters[name]))
        for name, value in optimiser_state.items():
            owner, _, key = name.rpartition("/")
            self.optimiser.state[parameters[owner]][key] = _place_like(value.clone(), parameters[owner])

    def _parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        _settle(self.module)
        for name, parameter in self.module.model.named_parameters():
            # Wrappers for checkpointing and compiling add prefixes to names.
            yield name.replace("_checkpoint_wrapped_module.", "").replace("_orig_mod.", ""), parameter

    def _on_first(
        self, prefix: str, tensors: Iterator[tuple[str, Tensor]], copies: HostCopies | None
    ) -> dict[str, Tensor]:
        # Gather one tensor at a time: the full model may not fit on one device.
        found = {}
        for name, tensor in tensors:
            gathered = _whole(tensor)
            if self.accelerator.is_main_process:
                found[name] = copies.take(prefix + name, gathered) if copies else gathered.cpu()
        return found


def shares_of(parts: Tensor | tuple[Tensor, Tensor], targets: int | Tensor) -> tuple[Tensor, Tensor]:
    """A batch's share of the step's mean loss, (); and the same for reports, detached: () or, for mixed rows, (2,)."""
    if isinstance(parts, Tensor):
        share = parts / targets
        return share, share.detach()
    share = parts[0] / targets
    return share, torch.stack([share.detach(), parts[1] / targets])


def is_sharded(module: nn.Module) -> bool:
    """Whether parameters are sharded, so that all processes must run the model at the same time.

    This looks at the module because on CPUs Accelerate does not record that the launch asked for sharding.
    """
    from torch.distributed.fsdp import FSDPModule

    return isinstance(module, FSDPModule) or any(hasattr(each, "ds_id") for each in module.parameters())  # ZeRO 3


def _settle(module: nn.Module) -> None:
    """Free gathered parameters. An evaluation leaves some in place of their shards, in memory that is reused later."""
    from torch.distributed.fsdp import FSDPModule

    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def _whole(tensor: Any) -> Tensor:
    """The full tensor on every process. If it is sharded, all processes must call this together."""
    gather = getattr(tensor, "full_tensor", None)
    return gather() if gather is not None else tensor  # type: ignore[no-any-return]


def _place_like(value: Tensor, parameter: Tensor) -> Tensor:
    """Move a full tensor to the parameter's device and shard it like the parameter."""
    value = value.to(parameter.device)
    mesh = getattr(parameter, "device_mesh", None)
    if mesh is None or not value.dim():
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, mesh, parameter.placements)  # type: ignore[attr-defined]
