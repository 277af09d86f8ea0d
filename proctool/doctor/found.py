"""What can be looked up: versions, devices, folders, packages, and whether the hub answers."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import torch

from proctool.cache import cache_folder
from proctool.doctor.facts import Attention, Cache, Device, Hub, Software
from proctool.errors import OptionError
from proctool.experiment.launch import accelerated
from proctool.internals import of_accelerate, of_torch
from proctool.models.small_heads import LARGEST_HEAD, kernel
from proctool.training.room import device_memory

_LIBRARIES = ("transformers", "accelerate", "numpy", "safetensors", "huggingface_hub")
_DEVELOPMENT = "dev"
"""The extra for people who change proctool."""
_HUB_SECONDS = 3.0
_SMI_SECONDS = 5.0


def software() -> Software:
    """Versions and packages."""
    return Software(
        python=platform.python_version(),
        torch=torch.__version__,
        libraries={name: version for name in _LIBRARIES if (version := _version(name)) is not None},
        cuda=torch.version.cuda or getattr(torch.version, "hip", None),
        compiler=compiler(),
        small_heads=kernel() is not None,
        trackers=trackers(),
        extras=extras(),
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def compiler() -> str | None:
    """The C compiler that kernels are compiled with: $CC, or cc, gcc or clang on the path."""
    given = os.environ.get("CC", "").split()
    return next(filter(None, map(shutil.which, given[:1] or ("cc", "gcc", "clang"))), None)


def trackers() -> tuple[str, ...]:
    """The trackers of Accelerate whose package is installed."""
    return tuple(name for name in sorted(of_accelerate.trackers()) if importlib.util.find_spec(name) is not None)


def extras() -> dict[str, bool]:
    """proctool's extras, by what its own metadata says they need."""
    try:
        needed = importlib.metadata.requires("proctool") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found: dict[str, bool] = {}
    for requirement in needed:
        extra = re.search(r"""extra\s*==\s*["']([\w-]+)["']""", requirement)
        package = re.match(r"[\w.-]+", requirement)
        if extra is not None and package is not None and extra[1] != _DEVELOPMENT:
            found[extra[1]] = found.get(extra[1], True) and _version(package[0]) is not None
    return found


def device() -> Device:
    """The device that a single training process takes."""
    kind = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    here = torch.device("cpu") if kind is None else torch.device(kind.type, 0) if kind.type == "cuda" else kind
    memory = device_memory(here)
    on_cuda = here.type == "cuda"
    return Device(
        kind=here.type,
        name=torch.cuda.get_device_name(here) if on_cuda else _processor() if kind is None else here.type,
        count=cores if kind is None else torch.accelerator.device_count(),
        threads=torch.get_num_threads(),
        driver=_driver() if on_cuda else None,
        memory=memory.total,
        free=memory.free,
        has_bf16=_has_bf16(here),
        unseen_gpu=kind is None and accelerated(),
    )


def _has_bf16(here: torch.device) -> bool:
    if here.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if here.type == "cpu":
        flags = _cpu_line("flags", "Features").split()
        return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", "bf16"))
    return False


def _cpu_line(*names: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(names)), "")


def _processor() -> str:
    return _cpu_line("model name") or platform.processor() or platform.machine()


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=_SMI_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return said.strip().splitlines()[0] if said.strip() else None


def attention(on: torch.device, precision: str) -> tuple[Attention, ...]:
    """The kernels for heads of 4 (diagnostics) and of 64 numbers (GPT-2), causal and without a mask."""
    found = []
    for head in (4, 64):
        small = on.type == "cpu" and head <= LARGEST_HEAD and precision == "fp32" and kernel() is not None
        chosen = "small-heads" if small else _library_kernel(on, head, precision)
        found.append(Attention(head=head, precision=precision, kernel=chosen))  # type: ignore[arg-type]
    return tuple(found)


def _library_kernel(on: torch.device, head: int, precision: str) -> str:
    """torch's choice, asked with arrays of the shape that training has."""
    from torch.nn.attention import SDPBackend

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    query, key, value = (torch.zeros((1, 2, 64, head), device=on, dtype=dtype, requires_grad=True) for _ in range(3))
    try:
        chosen = SDPBackend(of_torch.attention_backend(query, key, value))
    except (AttributeError, RuntimeError, ValueError, NotImplementedError):
        return "unknown"
    names = {"FLASH_ATTENTION": "flash", "CUDNN_ATTENTION": "cudnn", "EFFICIENT_ATTENTION": "efficient", "MATH": "math"}
    return names.get(chosen.name, "unknown")


def caches() -> tuple[Cache, ...]:
    """proctool's folder and the hub's."""
    from huggingface_hub import constants

    found = []
    for name, place in (("proctool", cache_folder), ("hub", lambda: Path(constants.HF_HUB_CACHE))):
        try:
            folder = place()
        except OptionError:
            continue
        found.append(Cache(name=name, folder=str(folder), writable=_is_writable(folder), free=free_bytes(folder)))
    return tuple(found)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next((each for each in (folder, *folder.absolute().parents) if each.is_dir()), Path("/"))


def _is_writable(folder: Path) -> bool:
    return os.access(_existing(folder), os.W_OK | os.X_OK)


def free_bytes(folder: Path) -> int | None:
    """Bytes free on the disk of a folder, which need not exist yet."""
    try:
        return shutil.disk_usage(_existing(folder)).free
    except OSError:
        return None


class HubAsked:
    """Asks the hub in a thread, since looking a name up has no limit of its own; `answer` waits no longer than that."""

    def __init__(self, ask: Callable[[str], bool] | None = None) -> None:
        from huggingface_hub import constants

        self._endpoint, self._offline = constants.ENDPOINT, bool(constants.HF_HUB_OFFLINE)
        self._reached = False
        self._ask = ask or _answers
        self._thread: threading.Thread | None = None
        if not self._offline:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def _run(self) -> None:
        self._reached = self._ask(self._endpoint)

    def answer(self) -> Hub:
        """Whether the hub answered in time."""
        if self._thread is not None:
            self._thread.join(_HUB_SECONDS)
        reachable = None if self._offline else self._reached
        return Hub(endpoint=self._endpoint, offline=self._offline, reachable=reachable)


def _answers(endpoint: str) -> bool:
    try:
        request = urllib.request.Request(endpoint, method="HEAD")
        with urllib.request.urlopen(request, timeout=_HUB_SECONDS):
            return True
    except urllib.error.HTTPError:
        return True  # a refusal is an answer
    except (OSError, ValueError):
        return False
