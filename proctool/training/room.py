"""The memory of the device that a run uses: how much it has, and how much a run may take."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

_ON_GPU, _ON_CPU = 0.9, 0.7
"""Shares of free memory to use. Estimates are a few percent off, and on a CPU the C library keeps freed memory."""
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class DeviceMemory:
    """Memory of one device, in bytes."""

    total: int
    free: int
    """Memory that is free now."""
    room: int
    """Memory that one process of a run may take; less than is free."""


def device_memory(device: torch.device, sharers: int = 1) -> DeviceMemory:
    """The memory of a GPU or, for a CPU, of this machine. `sharers` processes of the run share it."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        # torch can reuse its cache.
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return DeviceMemory(total, free, int(_ON_GPU * free))
    total, free = _machine()
    return DeviceMemory(total, free, int(_ON_CPU * free) // sharers)


def _machine() -> tuple[int, int]:
    """Total and free memory in bytes, within the limit of this process's container."""
    total, free = _of_system()
    limit, used = (_number(_CGROUP / f"memory.{name}") for name in ("max", "current"))
    if limit is not None and used is not None and limit < total:
        # The page cache counts as used, but the kernel frees it when memory is needed.
        return limit, min(free, limit - used + _cached())
    return total, free


def _of_system() -> tuple[int, int]:
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text(encoding="ascii").splitlines())
        total, free = (int(lines[name].split()[0]) << 10 for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError, IndexError):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return total, total // 2  # unknown on this system; half is a guess that leaves memory for other programs
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
