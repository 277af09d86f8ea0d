"""The memory of the device that a run computes on: what it has, and what a run can take of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

_ON_GPU, _ON_CPU = 0.9, 0.7
"""Of free memory. Estimates are a few percent off, and on a CPU the C library keeps freed memory for later steps."""
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes of one device."""

    total: int
    free: int
    """What programs could take now."""
    room: int
    """What one process of a run should take: less than is free."""


def device_memory(device: torch.device, sharers: int = 1) -> DeviceMemory:
    """The memory of a GPU, or of this machine for a CPU, which `sharers` processes of the run share."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(
            device
        )  # torch's own, to be used again
        return DeviceMemory(total, free, int(_ON_GPU * free))
    total, free = _machine()
    return DeviceMemory(total, free, int(_ON_CPU * free) // sharers)


def _machine() -> tuple[int, int]:
    """All memory, and what is free of it, within the limit of this process's container. (bytes, bytes)"""
    total, free = _of_system()
    limit, used = (_number(_CGROUP / f"memory.{name}") for name in ("max", "current"))
    if limit is not None and used is not None and limit < total:
        # Pages of files that were read count as used; the kernel drops them when memory is needed.
        return limit, min(free, limit - used + _cached())
    return total, free


def _of_system() -> tuple[int, int]:
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text(encoding="ascii").splitlines())
        total, free = (int(lines[name].split()[0]) << 10 for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError, IndexError):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return total, total // 2  # not known here: half of it is a guess that leaves room for others
    return total, free


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # "max" is no limit
        return None


def _cached() -> int:
    try:
        lines = (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
        counts = {name: int(count) for name, count in map(str.split, lines)}
    except (OSError, ValueError):
        return 0
    return counts.get("inactive_file", 0)
