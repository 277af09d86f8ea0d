"""What `proctool doctor` finds, as frozen dataclasses. `--json` prints them; `advice.py` makes sentences of them.

Speeds are per second: bytes, samples, floating-point operations. None means that it could not be measured or found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Software:
    """Versions, and what is installed."""

    python: str
    torch: str
    libraries: Mapping[str, str]
    """Versions of proctool's other main dependencies, by name."""
    cuda: str | None
    """The CUDA or ROCm version that torch was built for; None for a CPU build."""
    compiler: str | None
    """Path of the C compiler."""
    small_heads: bool
    """Whether the C kernel for small attention heads compiles and loads here."""
    trackers: tuple[str, ...]
    """Experiment trackers that --track can use."""
    extras: Mapping[str, bool]
    """proctool's optional dependencies: whether all packages of each are installed."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """Where training runs."""

    kind: str
    """torch's name of the device type: cpu, cuda, mps."""
    name: str
    count: int
    """GPUs, or cores that this process may use."""
    threads: int
    """Threads that torch uses on the CPU."""
    driver: str | None
    memory: int
    """Bytes, of one device."""
    free: int
    """Bytes of it that a run could take now."""
    has_bf16: bool
    """Whether products in bf16 are computed in hardware."""
    unseen_gpu: bool
    """Whether the machine has a GPU that torch cannot use."""


@dataclass(frozen=True, kw_only=True)
class Attention:
    """The attention kernel that a model of one head size gets."""

    head: int
    precision: str
    kernel: Literal["small-heads", "flash", "cudnn", "efficient", "math", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Products:
    """Products of square matrices."""

    precision: str
    size: int
    flops: float
    """Floating-point operations a second."""
    peak: float | None
    """The data sheet's, for GPUs that models/hardware.py knows."""


@dataclass(frozen=True, kw_only=True)
class Disk:
    """The disk where run folders are written."""

    folder: str
    written: float | None
    """Bytes a second of a file written and fsynced."""
    free: int


@dataclass(frozen=True, kw_only=True)
class Feed:
    """A task's stream beside the model that trains on it."""

    task: str
    """Its specification."""
    model: str
    made: float
    """Samples a second that one process of the stream makes."""
    eaten: float
    """Samples a second that training steps of the model take."""

    @property
    def name(self) -> str:
        """The task's name alone."""
        return self.task.partition(":")[0]


@dataclass(frozen=True, kw_only=True)
class Cache:
    """A folder for what can be made or downloaded again."""

    name: str
    folder: str
    writable: bool
    free: int | None


@dataclass(frozen=True, kw_only=True)
class Hub:
    """The Hugging Face hub."""

    endpoint: str
    offline: bool
    """HF_HUB_OFFLINE is set, so it was not asked."""
    reachable: bool | None
    """None where it was not asked."""


@dataclass(frozen=True, kw_only=True)
class Checkup:
    """Everything that the doctor finds."""

    proctool: str
    software: Software
    device: Device
    attention: tuple[Attention, ...]
    products: tuple[Products, ...]
    disk: Disk
    feeds: tuple[Feed, ...]
    caches: tuple[Cache, ...]
    hub: Hub
    seconds: float
    """What the check took."""
