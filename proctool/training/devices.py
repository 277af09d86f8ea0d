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
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, FullyShardedDataParallelPlugin
from torch import Tensor

from proctool.errors import RunError, first_line
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
"""Gradients lie in DDP's buckets, not beside them. With 100 MB GPT-2 small's half a gigabyte of them meets in about
five messages, not twenty; its last bucket, which nothing hides, is larger than that anyway: the token embeddings alone
are 154 MB. Buffers (rotary frequencies) do not change."""

# What torch.distributed says when the other end of a connection has gone.
_GONE = ("closed by peer", "connection reset", "socket", "broken pipe", "timed out", "timeout", "nccl")


def start_process() -> PartialState:
    """Join the other processes of this launch, over gloo where there is no accelerator. Call before anything else."""
    atexit.unregister(_leave)
    prepare_allocator()
    launch()  # refused in one line where Accelerate would not know what to do
    if flag("ACCELERATE_USE_FSDP"):  # otherwise only one process gets donors' weights
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
    """Say that this process's part went well, so that it takes leave of the others when it exits.

    Without that, threads of a backend can abort a process on its way out; after a failure it could wait for ever.
    """
    atexit.unregister(_leave)
    atexit.register(_leave)


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
        # A thread of gloo may still be letting go of the last tensors, for which it needs the interpreter alive.
        time.sleep(0.1)


def computes_on_cpu() -> bool:
    """Whether this launch computes on CPUs."""
    # By default, Accelerate treats the processes of a torchrun on CPUs as unrelated processes.
    return flag("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()


def make_accelerator(options: TrainingOptions) -> Accelerator:
    """Accelerate's view of this launch. Raises RunError for what the launch asks and the loop cannot do."""
    refuse(options.precision)
    accelerator = accelerator_of(options.precision)
    if accelerator.device.type == "cpu" and flag("ACCELERATE_USE_FSDP"):
        # Accelerate shards on accelerators alone; torch does on CPUs too, which shows the code right without any.
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
    """Lay the model and the optimiser out as the launch asks. Raises RunError for what the loop cannot do."""
    if zero.is_asked():
        return zero.ZeroEngine(accelerator, module, optimiser, options)
    return Engine(accelerator, module, optimiser)


def accelerator_of(precision: str) -> Accelerator:
    """Accelerate's view of this launch, computing in `precision` whatever this process did before.

    Raises RunError where the device does not have that precision.
    """
    start_process()
    autocast, on_cpu = _AUTOCAST[precision], computes_on_cpu()
    try:
        with hidden():
            if AcceleratorState._shared_state and AcceleratorState().mixed_precision != autocast:
                AcceleratorState._reset_state()  # the processes of the launch stay joined: they are PartialState's
            accelerator = Accelerator(cpu=on_cpu, mixed_precision=autocast, kwargs_handlers=[_DDP])
    except ValueError as error:
        raise RunError(f"precision = {precision}, as the launch asks: {error}") from None
    if accelerator.device.type == "cuda":  # TF32 where a product is left in fp32
        torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
    return accelerator


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The states of the generators that draw dropout on this process."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_random_state(states: dict[str, Tensor], device: torch.device) -> None:
    """Put back what `random_state` gave."""
    torch.set_rng_state(states["cpu"].clone())
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"].clone(), device)


def agreed_to_stop(stop: Stop, accelerator: Accelerator, may_meet: bool) -> bool:
    """Whether to stop now. Signals reach processes at different steps, so several agree when they meet to log."""
    if accelerator.num_processes == 1:
        return bool(stop)
    if not may_meet:
        return False
    return bool(accelerator.reduce(torch.tensor(float(bool(stop)), device=accelerator.device)) > 0)


@contextlib.contextmanager
def losing_peers_is_one_line() -> Iterator[None]:
    """Say in one line that another process of the run is gone, instead of torch.distributed's many."""
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
    """The GPU's peak in operations a second, a MIG slice's by its share; None for CPUs and GPUs that are not known."""
    if device.type != "cuda":
        return None
    multiprocessors = torch.cuda.get_device_properties(device).multi_processor_count
    return peak_flops(torch.cuda.get_device_name(device), precision, multiprocessors)


def launched_settings() -> dict[str, Any]:
    """How the processes were laid out, for the log: none of it names a host."""
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
