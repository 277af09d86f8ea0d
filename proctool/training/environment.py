"""What Accelerate, torch and others read from the environment: ignored, refused, or recorded.

The result of a run depends on its options. Variables that a launcher, a profile or `accelerate config` left in the
environment are therefore ignored (`hidden`), refused (`refuse`), or recorded and printed (`found`). docs/training.md
has a table of them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from proctool.errors import RunError
from proctool.launched import launch

_FSDP, _MEGATRON, _SAGEMAKER = "ACCELERATE_USE_FSDP", "ACCELERATE_USE_MEGATRON_LM", "ACCELERATE_USE_SAGEMAKER"
_PARALLELISM, _AXES = "ACCELERATE_USE_PARALLELISM_CONFIG", ("TP", "CP", "SP")
_LAYOUTS = "use DDP, FSDP2 (--use_fsdp --fsdp_version 2) or DeepSpeed"

_OBEYED = (_FSDP, _PARALLELISM, "ACCELERATE_CPU_AFFINITY", "ACCELERATE_DEBUG_MODE")
"""The variables that Accelerate may see when it starts. zero.py reads those of DeepSpeed."""

_NEUTRAL = ("", "0", "no", "none", "default", "false", "1")
"""Values that mean "off"; `accelerate launch` sets many variables to them."""

_INSTEAD = {
    "ACCELERATE_MIXED_PRECISION": "--precision",
    "ACCELERATE_DOWNCAST_BF16": "--precision",
    "ACCELERATE_FP8_*": "--precision",
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "--accumulate",
    "ACCELERATE_DYNAMO_BACKEND": "--compile",
    "ACCELERATE_TORCH_DEVICE": "CUDA_VISIBLE_DEVICES",
}
"""Ignored variables that would change results, each with the option to use instead."""

CUBLAS_WORKSPACE, DETERMINISTIC_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
"""What --deterministic sets."""

_RECORDED = (
    # choose instructions and kernels, and thereby the rounding of sums
    "ATEN_CPU_CAPABILITY", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "MKL_DISABLE_FAST_MM", "DNNL_MAX_CPU_ISA",
    "ONEDNN_MAX_CPU_ISA", "DNNL_CPU_ISA_HINTS", "ONEDNN_CPU_ISA_HINTS", "TORCH_MKLDNN_*",
    "TORCH_LINEAR_FLATTEN_3D", "TORCH_BLAS_PREFER_*", "TORCH_LINALG_PREFER_*", "TORCH_CUDNN_*", "TORCH_ROCM_*",
    "CUBLAS_WORKSPACE_CONFIG", "CUBLASLT_*", "CUDNN_*", "NVIDIA_TF32_OVERRIDE", "ROCBLAS_*", "HIPBLASLT_*",
    "MIOPEN_*", "PYTORCH_TUNABLEOP_*", "PYTORCH_MIOPEN_*", "PYTORCH_MPS_*", "PYTORCH_ENABLE_MPS_FALLBACK",
    # the order of sums over processes
    "NCCL_ALGO", "NCCL_PROTO", "NCCL_NVLS_ENABLE", "NCCL_COLLNET_ENABLE",
    # implementations of attention and layers in transformers
    "TRANSFORMERS_SDPA_FORCE_GQA", "FLASH_ATTENTION_DETERMINISTIC", "USE_HUB_KERNELS", "USE_TORCH_XLA",
    "PYTORCH_JIT", "PYTORCH_JIT_DISABLE",
)  # fmt: skip

_COMPILER = (
    "TORCHINDUCTOR_*", "TORCHDYNAMO_*", "TORCH_DYNAMO_*", "TORCH_COMPILE_*", "TRITON_*", "TENSORIFY_PYTHON_SCALARS",
)  # fmt: skip
"""Recorded where a run compiles."""

_PLACES = ("*_DIR", "*_PATH", "*_FILE", "*_FILENAME", "*_LOGPATH", "*CACHE*", "*_LOG*", "*DEBUG*")
"""Those of them that name a folder or a log and change no result."""

_ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
"""The variable that torch reads, and its older names."""

_FPMATH = ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE")


@dataclass(frozen=True)
class Surroundings:
    """Variables of the environment that could change a run's result."""

    ignored: Mapping[str, str] = field(default_factory=dict)
    recorded: Mapping[str, str] = field(default_factory=dict)

    @property
    def lines(self) -> list[str]:
        """A line for each kind of variable that is set."""
        said = []
        if self.ignored:
            each = (f"{name}={value} (use {_instead(name)})" for name, value in self.ignored.items())
            said.append(f"ignored from the environment: {', '.join(each)}")
        if self.recorded:
            each = (f"{name}={value}" for name, value in self.recorded.items())
            said.append(f"the environment may change results slightly: {', '.join(each)}")
        return said


def found(precision: str, compiles: bool, deterministic: bool | None = False) -> Surroundings:
    """The variables that are set and could change a run's result."""
    ignored = {name: value for name, value in _set(*_INSTEAD).items() if not _is_neutral(name, value, precision)}
    recorded = _set(*_RECORDED)
    if deterministic and recorded.get(CUBLAS_WORKSPACE) == DETERMINISTIC_WORKSPACE:
        del recorded[CUBLAS_WORKSPACE]  # the option says so
    if compiles:
        recorded |= {name: value for name, value in _set(*_COMPILER).items() if not _matches(name, _PLACES)}
    return Surroundings(ignored, recorded)


def refuse(precision: str) -> None:
    """Raise RunError for variables that contradict the run's options."""
    if flag(_MEGATRON):
        raise RunError(f"Megatron-LM is not supported; {_LAYOUTS}")
    if flag(_SAGEMAKER) and os.environ.get("ACCELERATE_SAGEMAKER_DISTRIBUTED_TYPE", "NO") != "NO":
        raise RunError("SageMaker's data parallelism is not supported; start with torchrun")
    if flag(_PARALLELISM) and any(os.environ.get(f"PARALLELISM_CONFIG_{each}_SIZE", "1") != "1" for each in _AXES):
        raise RunError(f"tensor, context and sequence parallelism are not supported; {_LAYOUTS}")
    for name, kind in ((_FSDP, "FSDP"), (_PARALLELISM, "parallelism")):
        if flag(name) and launch().processes == 1:
            raise RunError(f"{kind} needs several processes, but the launch has one; start more with accelerate launch")
    if flag(_FSDP) and os.environ.get("FSDP_IGNORED_MODULES"):
        raise RunError(
            "FSDP's ignored modules are not supported, because their gradients are not reduced; remove that setting"
        )
    tf32 = os.environ.get("NVIDIA_TF32_OVERRIDE")
    if (tf32 == "1" and precision == "fp32") or (tf32 == "0" and precision != "fp32"):
        raise RunError(f"NVIDIA_TF32_OVERRIDE={tf32} overrides --precision {precision}; unset it")
    for name in _FPMATH:
        if os.environ.get(name, "").upper() not in ("", "STRICT"):
            raise RunError(f"{name}={os.environ[name]} overrides --precision {precision}; unset it")


def prepare_allocator() -> None:
    """Let torch use expandable memory segments on GPUs, unless the user has configured the allocator.

    Batches of different lengths would otherwise fragment memory. torch reads the variable when CUDA starts.
    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#optimizing-memory-usage-with-pytorch-alloc-conf
    """
    if not any(os.environ.get(name) for name in _ALLOCATOR):
        os.environ[_ALLOCATOR[0]] = "expandable_segments:True"


def flag(name: str) -> bool:
    """The value of a boolean variable; false if it is not set. Raises RunError for other values."""
    written = os.environ.get(name, "").lower()
    if written in ("true", "1", "yes", "y", "on", "t"):
        return True
    if written in ("", "false", "0", "no", "n", "off", "f", "none"):
        return False
    raise RunError(f"{name}={os.environ[name]}: neither true nor false")


@contextlib.contextmanager
def hidden() -> Iterator[None]:
    """Hide from Accelerate, inside the block, all of its variables that proctool does not obey."""
    kept = {name: value for name, value in os.environ.items() if name.startswith("ACCELERATE_")}
    obeyed = {name: str(flag(name)).lower() for name in _OBEYED if name in kept}
    for name in kept:
        del os.environ[name]
    os.environ.update(obeyed)
    try:
        yield
    finally:
        for name in obeyed:
            os.environ.pop(name, None)
        os.environ.update(kept)


def _set(*patterns: str) -> dict[str, str]:
    return {name: os.environ[name] for name in sorted(os.environ) if _matches(name, patterns)}


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _instead(name: str) -> str:
    return next(option for pattern, option in _INSTEAD.items() if fnmatchcase(name, pattern))


def _is_neutral(name: str, value: str, precision: str) -> bool:
    return value.lower() in (("", "no", precision) if name == "ACCELERATE_MIXED_PRECISION" else _NEUTRAL)
