"""The device that a plan is for: a GPU by its data sheet, or the CPU of this machine as measured."""

from __future__ import annotations

from dataclasses import dataclass

from proctool.experiment.plan_options import HardwareOptions
from proctool.models.hardware import GPU, find_gpu

_USUAL_MFU, _USUAL_CPU_MFU = 0.4, 0.6
"""Of a GPU's peak in training, and of the speed of a layer's largest product on a CPU (docs/planning.md)."""


@dataclass(frozen=True)
class Cpu:
    """The CPU of this machine. Products are measured, in the width of the model."""

    name: str
    threads: int
    gigabytes: int
    room: int
    """Bytes that a run can have: what is free now, less a reserve."""
    source: str = "measured on this machine"

    def peak(self, precision: str, width: int) -> float:
        """FLOP/s of the largest product in a layer of this width, on all threads."""
        import torch

        from proctool.training.speed import layer_flops

        return layer_flops(torch.device("cpu"), precision, width)


Device = Cpu | GPU


def planned_device(hardware: HardwareOptions) -> Device:
    """The GPU that is asked for, or this machine's CPU. Raises OptionError."""
    if not hardware.is_cpu:
        return find_gpu(hardware.gpu)
    import torch

    from proctool.training.room import device_memory

    memory, threads = device_memory(torch.device("cpu")), torch.get_num_threads()
    return Cpu("CPU", threads, round(memory.total / 2**30), memory.room)


def peak(device: Device, precision: str, width: int) -> float | None:
    """FLOP/s at best in a precision; None for a GPU without it."""
    return device.peak(precision, width) if isinstance(device, Cpu) else device.peak(precision)


def usual_mfu(device: Device) -> float:
    """The share of the peak that training usually reaches."""
    return _USUAL_CPU_MFU if isinstance(device, Cpu) else _USUAL_MFU
