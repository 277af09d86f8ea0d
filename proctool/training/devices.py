"""Where a run computes: devices, processes and precision, all through Accelerate."""

from __future__ import annotations

import atexit
import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, FullyShardedDataParallelPlugin
from torch import Tensor

from proctool.errors import RunError, first_line
from proctool.internals.of_accelerate import forget_other_precision
from proctool.launched import launch
from proctool.models.hardware import peak_flops
from proctool.signals import Stop
from proctool.training import zero
from proctool.training.engine import Engine
from proctool.training.environment import flag, hidden, prepare_allocator, refuse
from proctool.training.loss import TargetLoss
from proctool.training.options import TrainingOptions

_AUTOCAST = {"fp32": "no", "tf32": "no", "bf16": "bf16", "fp16": "fp16"}

_DDP = DistributedDataParallelKwargs(gradient_as_bucket_view=True, bucket_cap_mb=100, broadcast_buffers=False)
"""Gradients are views of DDP's buckets instead of copies. Buckets of 100 MB send GPT-2 small's half a gigabyte of
gradients in about five messages instead of twenty. Smaller ones would gain nothing: the last bucket, which no
computation hides, holds the token embeddings, which alone take 154 MB. Buffers (rotary frequencies) never change, so
they are not broadcast."""

# Words in the errors of torch.distributed when another process is gone.
_GONE = ("closed by peer", "connection reset", "socket", "broken pipe", "timed out", "timeout", "nccl")


def start_process() -> PartialState:
    """Join the other processes of this launch, by gloo if there is no accelerator. Call this first. Raises RunError."""
    atexit.unregister(_leave)
    prepare_allocator()
    launch()  # an unsupported launch is an error of one line here
    if flag("ACCELERATE_USE_FSDP"):  # otherwise only one process would load donors' weights
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
    on_cpu = computes_on_cpu()
    try:
        with hidden():
            return PartialState(cpu=on_cpu)
    except (ValueError, RuntimeError) as error:
        raise RunError(
            f"cannot join the processes of this launch ({first_line(error)}); "
            "start them with torchrun or accelerate launch"
        ) from None


def end_process() -> None:
    """Mark this process as successful, so that it leaves the process group when it exits.

    Otherwise threads of the backend can abort an exiting process. After a failure this is not called, because leaving
    could wait forever for the others.
    """
    atexit.unregister(_leave)
    atexit.register(_leave)


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
        # A gloo thread may still be freeing the last tensors, which needs a running interpreter.
        time.sleep(0.1)


def computes_on_cpu() -> bool:
    """Whether this launch computes on CPUs."""
    # By default, Accelerate treats the processes of a torchrun on CPUs as unrelated processes.
    return flag("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()


def make_accelerator(options: TrainingOptions) -> Accelerator:
    """The Accelerator for this launch. Raises RunError for launches that are not supported."""
    refuse(options.precision)
    accelerator = accelerator_of(options.precision)
    if accelerator.device.type == "cpu" and flag("ACCELERATE_USE_FSDP"):
        # Accelerate does not shard on CPUs, but torch does; tests of sharding need no accelerator then.
        accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
    kind = accelerator.distributed_type
    if kind == DistributedType.FSDP and not accelerator.is_fsdp2:
        raise RunError("FSDP 1 is not supported; launch with --fsdp_version 2")
    if kind == DistributedType.FSDP and options.precision == "fp16":
        raise RunError("precision = fp16: not supported with sharded models; use bf16")
    if kind in (DistributedType.MEGATRON_LM, DistributedType.XLA):
        raise RunError(f"{kind.value} is not supported; use DDP, FSDP2 (--use_fsdp --fsdp_version 2) or DeepSpeed")
    layout = getattr(accelerator, "parallelism_config", None)
    if layout is not None and any(getattr(layout, f"{name}_size", 1) > 1 for name in ("tp", "cp", "sp")):
        raise RunError("tensor, context and sequence parallelism are not supported; use DDP, FSDP2 or DeepSpeed")
    return accelerator


def make_engine(
    accelerator: Accelerator, module: TargetLoss, optimiser: torch.optim.Optimizer, options: TrainingOptions
) -> Engine:
    """The engine that this launch asks for. Raises RunError for configurations that are not supported."""
    if zero.is_asked():
        return zero.ZeroEngine(accelerator, module, optimiser, options)
    return Engine(accelerator, module, optimiser)


def accelerator_of(precision: str) -> Accelerator:
    """An Accelerator in `precision`, even if this process used another precision before.

    Raises RunError if the device does not support the precision.
    """
    start_process()
    autocast, on_cpu = _AUTOCAST[precision], computes_on_cpu()
    try:
        with hidden():
            forget_other_precision(autocast)
            accelerator = Accelerator(cpu=on_cpu, mixed_precision=autocast, kwargs_handlers=[_DDP])
    except ValueError as error:
        raise RunError(f"precision = {precision}, as the launch asks: {error}") from None
    if accelerator.device.type == "cuda":  # allows TF32 in fp32 products
        torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
    return accelerator


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The states of this process's random generators, which draw dropout."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_random_state(states: dict[str, Tensor], device: torch.device) -> None:
    """Restore what `random_state` returned."""
    torch.set_rng_state(states["cpu"].clone())
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"].clone(), device)


def agreed_to_stop(stop: Stop, accelerator: Accelerator, may_meet: bool) -> bool:
    """Whether to stop now. Signals reach processes at different steps, so several processes agree at log steps only."""
    if accelerator.num_processes == 1:
        return bool(stop)
    if not may_meet:
        return False
    return bool(accelerator.reduce(torch.tensor(float(bool(stop)), device=accelerator.device)) > 0)


@contextlib.contextmanager
def losing_peers_is_one_line() -> Iterator[None]:
    """Turn errors of torch.distributed about a lost process into a RunError of one line."""
    try:
        yield
    except RuntimeError as error:
        said = str(error).lower()
        if launch().processes == 1 or not any(word in said for word in _GONE):
            raise
        raise RunError(
            f"process {launch().rank}: another process of this run died or cannot be reached; its own output says why. "
            "Launch again to resume from the last checkpoint"
        ) from error


def device_peak(device: torch.device, precision: str) -> float | None:
    """The GPU's peak in FLOP/s, for a MIG slice its share; None for CPUs and unknown GPUs."""
    if device.type != "cuda":
        return None
    multiprocessors = torch.cuda.get_device_properties(device).multi_processor_count
    return peak_flops(torch.cuda.get_device_name(device), precision, multiprocessors)


def launched_settings() -> dict[str, Any]:
    """Environment variables of the launch and the number of threads, for the log. None contains a host name."""
    names = (
        "WORLD_SIZE",
        "LOCAL_WORLD_SIZE",
        "RANK",
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OMP_DYNAMIC",
        "OPENBLAS_CORETYPE",
        "CC",
    )
    return {name: os.environ[name] for name in names if name in os.environ} | {"threads": torch.get_num_threads()}
