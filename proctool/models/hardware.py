"""Peak speeds and memory of known GPUs, from their manufacturers' data sheets."""

from __future__ import annotations

import re
from dataclasses import dataclass

from proctool import config
from proctool.errors import OptionError

_ROOM = 0.95
"""Of a GPU's memory: the rest is the driver's, CUDA's, or lost between allocations."""


@dataclass(frozen=True)
class GPU:
    """One GPU. Products are dense: data sheets that count structured sparsity give twice as much."""

    name: str
    fp32: float
    """Floating-point operations a second."""
    tf32: float
    half: float
    """In fp16 and, where there is any, bf16, summed in fp32."""
    gigabytes: int
    source: str
    """The data sheet."""
    has_bf16: bool = True
    multiprocessors: int | None = None
    """Of the whole GPU, for those that MIG can cut into slices; a slice has fewer."""

    @property
    def room(self) -> int:
        """Bytes that a run can have."""
        return int(_ROOM * self.gigabytes * 2**30)

    def peak(self, precision: str) -> float | None:
        """Floating-point operations a second in fp32, tf32, bf16 or fp16; None for bf16 where there is none."""
        if precision == "bf16" and not self.has_bf16:
            return None
        return {"fp32": self.fp32, "tf32": self.tf32}.get(precision, self.half)


_NVIDIA = "https://www.nvidia.com/en-us/data-center/"
_IMAGES = "https://images.nvidia.com/aem-dam/"
_H100, _H200 = _NVIDIA + "h100/", _NVIDIA + "h200/"
_A100, _V100 = _NVIDIA + "a100/", "https://www.nvidia.com/en-gb/data-center/tesla-v100/"
_ADA = _IMAGES + "en-zz/Solutions/geforce/ada/nvidia-ada-gpu-architecture.pdf"
_BLACKWELL = _IMAGES + "Solutions/geforce/blackwell/nvidia-rtx-blackwell-gpu-architecture.pdf"
_AMPERE = "https://www.nvidia.com/content/PDF/nvidia-ampere-ga-102-gpu-architecture-whitepaper-v2.pdf"
_A10G = "https://d1.awsstatic.com/product-marketing/ec2/NVIDIA_AWS_A10G_DataSheet_FINAL_02_17_2022.pdf"
_H800 = "https://lenovopress.lenovo.com/lp1814-thinksystem-nvidia-h800-pcie-gen5-gpu"
_MI300X = "https://www.amd.com/en/products/accelerators/instinct/mi300/mi300x.html"

# If a short name fits several GPUs, the first is used.
GPUS = (
    GPU("GB300", 80e12, 1250e12, 2500e12, 279, _NVIDIA + "gb300-nvl72/"),
    GPU("B300", 75e12, 1125e12, 2250e12, 268, _NVIDIA + "hgx/"),
    GPU("GB200", 80e12, 1250e12, 2500e12, 186, _NVIDIA + "gb200-nvl72/"),
    GPU("B200", 75e12, 1125e12, 2250e12, 180, _NVIDIA + "dgx-b200/", multiprocessors=148),
    GPU("GH200", 67e12, 494e12, 989e12, 96, _NVIDIA + "grace-hopper-superchip/", multiprocessors=132),
    GPU("H200", 67e12, 494e12, 989e12, 141, _H200, multiprocessors=132),
    GPU("H200 NVL", 60e12, 417e12, 835e12, 141, _H200, multiprocessors=132),
    GPU("H100", 67e12, 494e12, 989e12, 80, _H100, multiprocessors=132),
    GPU("H100 PCIe", 51e12, 378e12, 756e12, 80, _H100, multiprocessors=114),
    GPU("H100 NVL", 60e12, 417e12, 835e12, 94, _H100, multiprocessors=132),
    # An H100 with slower links between GPUs and hardly any fp64.
    GPU("H800", 67e12, 494e12, 989e12, 80, _H800, multiprocessors=132),
    GPU("H800 PCIe", 51e12, 378e12, 756e12, 80, _H800, multiprocessors=114),
    GPU("A100 80GB", 19.5e12, 156e12, 312e12, 80, _A100, multiprocessors=108),
    GPU("A100 40GB", 19.5e12, 156e12, 312e12, 40, _A100, multiprocessors=108),
    GPU("L40S", 91.6e12, 183e12, 362e12, 48, _NVIDIA + "l40s/"),
    GPU("L4", 30.3e12, 60e12, 121e12, 24, _NVIDIA + "l4/"),
    GPU("A10G", 31.5e12, 35e12, 70e12, 24, _A10G),
    GPU("A10", 31.2e12, 62.5e12, 125e12, 24, _NVIDIA + "products/a10-gpu/"),
    GPU("RTX 5090", 104.8e12, 104.8e12, 209.5e12, 32, _BLACKWELL),
    GPU("RTX 4090", 82.6e12, 82.6e12, 165e12, 24, _ADA),
    GPU("RTX 3090", 35.6e12, 35.6e12, 71e12, 24, _AMPERE),
    GPU("V100 32GB", 15.7e12, 15.7e12, 125e12, 32, _V100, has_bf16=False),
    GPU("V100 16GB", 15.7e12, 15.7e12, 125e12, 16, _V100, has_bf16=False),
    GPU("T4", 8.1e12, 8.1e12, 65e12, 16, _NVIDIA + "tesla-t4/", has_bf16=False),
    GPU("MI300X", 163.4e12, 653.7e12, 1307.4e12, 192, _MI300X),
)

_OTHER_CHIPS = {"laptop", "d"}
"""Words after a GPU's name that mean another, smaller GPU: RTX 4090 D, RTX 4090 Laptop GPU."""


def find_gpu(name: str) -> GPU:
    """The GPU with a name in any usual spelling: h100, a100-40gb, "RTX 4090", 4090. Raises OptionError."""
    asked = _words(name)
    exact = [gpu for gpu in GPUS if _words(gpu.name) == asked]
    if found := exact or [gpu for gpu in GPUS if asked and asked <= _words(gpu.name)]:
        return found[0]
    known = [gpu.name.lower().replace(" ", "-") for gpu in GPUS]
    raise OptionError(f'gpu: unknown GPU "{name}"{config.suggestion(name.lower().replace(" ", "-"), known)}')


def peak_flops(device_name: str, precision: str, multiprocessors: int | None = None) -> float | None:
    """The peak of a GPU by its name (as torch writes it) in fp32, tf32, bf16 or fp16; None if unknown.

    A slice of a GPU (MIG) has the same share of the peak as of the multiprocessors.
    """
    words = _words(device_name)
    fitting = [gpu for gpu in GPUS if _words(gpu.name) <= words]
    # A name without the memory size: all sizes have the same speed.
    fitting = fitting or [gpu for gpu in GPUS if _words(gpu.name.split()[0]) <= words and gpu.name.endswith("GB")]
    best = max(fitting, key=lambda gpu: len(_words(gpu.name)), default=None)
    if best is None or words & _OTHER_CHIPS:
        return None
    peak = best.peak(precision)
    if "mig" not in words or peak is None:
        return peak
    if multiprocessors is None or best.multiprocessors is None:
        return None
    return peak * min(1.0, multiprocessors / best.multiprocessors)


def _words(name: str) -> set[str]:
    return set(re.split(r"[\s_-]+", name.lower().strip())) - {"", "nvidia"}
