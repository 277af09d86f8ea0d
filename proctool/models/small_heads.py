"""A C kernel for attention with small heads on the CPU, for which library kernels are inefficient.

Diagnostics train models with heads of size 4. For these, small_heads.c computes attention in a sixth of the time. The
machine's C compiler compiles it on first use, into the cache folder. Without a compiler, and for other devices or
precisions, larger heads or dropout, attention.py uses torch's attention.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from proctool.artifact import replacing
from proctool.cache import cache_folder
from proctool.errors import CorpusError

LARGEST_HEAD = 16
"""Largest head size; for larger ones torch's kernel is faster (measured on AVX2: docs/benchmarks.md)."""

# These flags may reorder sums, but results do not depend on the number of threads: one thread computes each (sample,
# head) pair. -ffast-math is not used because linking with it makes the whole process flush subnormal numbers to zero.
_FLAGS = (
    *("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", "-Wno-psabi"),
    *("-fassociative-math", "-freciprocal-math", "-fno-signed-zeros", "-fno-trapping-math", "-fno-math-errno"),
)


@functools.cache
def kernel() -> ctypes.CDLL | None:
    """The compiled kernel; None if it cannot be compiled or loaded."""
    source = files("proctool.models").joinpath("small_heads.c").read_bytes()
    given = shlex.split(os.environ.get("CC", ""))  # CC may contain arguments
    compiler = given or [found for found in map(shutil.which, ("cc", "gcc", "clang")) if found][:1]
    if not compiler:
        return None
    key = hashlib.sha256(source + repr((compiler, _FLAGS, _processor())).encode()).hexdigest()[:16]
    try:
        built = cache_folder() / "kernels" / f"small_heads-{key}.so"
        if not built.exists():
            built.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory() as folder, replacing(built) as file:
                (Path(folder) / "small_heads.c").write_bytes(source)
                made = Path(folder) / "made.so"
                command = [*compiler, *_FLAGS, "-o", str(made), str(Path(folder) / "small_heads.c")]
                subprocess.run(command, check=True, capture_output=True, timeout=120)
                file.write(made.read_bytes())
        library = ctypes.CDLL(str(built))
    except (OSError, CorpusError, subprocess.SubprocessError):
        return None
    library.scratch_floats.restype = ctypes.c_int64
    return library


def _processor() -> str:
    """The processor's features, on which compiled code depends. Different machines may share a cache folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        import platform

        return platform.processor() + platform.machine()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def suits(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether the kernel supports these tensors: float32 on the CPU, small heads, equal shapes."""
    return (
        query.shape[-1] <= LARGEST_HEAD
        and query.shape == key.shape == value.shape
        # Under autocast, rotary embeddings can give queries and keys another precision than values.
        and all(part.dtype == torch.float32 and part.device.type == "cpu" for part in (query, key, value))
    )


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float | None = None) -> Tensor:
    """Causal attention for tensors that `suits` accepts: (B, H, T, D) queries, keys and values to (B, T, H, D)."""
    out: Tensor = _forward(query, key, value, query.shape[-1] ** -0.5 if scale is None else scale)[0]
    return out


@torch.library.custom_op("proctool::small_heads", mutates_args=())
def _forward(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Causal attention of (B, H, T, D) tensors. Returns (B, T, H, D) and the log-sum-exp of the scores, (B, H, T)."""
    q, k, v = (_dense_last(part) for part in (q, k, v))
    batch, heads, tokens, size = q.shape
    out, lse = q.new_empty(batch, tokens, heads, size), q.new_empty(batch, heads, tokens)
    _call("forward", q, k, v, scale, (out, lse))
    return out, lse


@_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    batch, heads, tokens, size = q.shape
    return q.new_empty(batch, tokens, heads, size), q.new_empty(batch, heads, tokens)


@torch.library.custom_op("proctool::small_heads_backward", mutates_args=())
def _backward(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, grad: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values, (B, T, H, D) each."""
    q, k, v = (_dense_last(part) for part in (q, k, v))
    dq, dk, dv = torch.empty_like(out), torch.empty_like(out), torch.empty_like(out)
    _call("backward", q, k, v, scale, (out, lse, grad.contiguous(), dq, dk, dv))
    return dq, dk, dv


@_backward.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, grad: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(out), torch.empty_like(out), torch.empty_like(out)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, *output)


def _differentiate(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
    dq, dk, dv = _backward(*ctx.saved_tensors, grad, ctx.scale)
    return dq.transpose(1, 2), dk.transpose(1, 2), dv.transpose(1, 2), None


_forward.register_autograd(_differentiate, setup_context=_keep)


def _dense_last(part: Tensor) -> Tensor:
    return part if part.stride(-1) == 1 else part.contiguous()


def _call(name: str, q: Tensor, k: Tensor, v: Tensor, scale: float, others: tuple[Tensor, ...]) -> None:
    library = kernel()
    assert library is not None, "attention.py checks this first"
    batch, heads, tokens, size = q.shape
    threads = max(1, min(torch.get_num_threads(), batch * heads))
    scratch = q.new_empty(threads * library.scratch_floats(ctypes.c_int64(tokens), ctypes.c_int64(size)))
    strides = (ctypes.c_int64 * 9)(*(stride for part in (q, k, v) for stride in part.stride()[:3]))
    sizes = (ctypes.c_int64(number) for number in (batch, heads, tokens, size))
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (*others, scratch)]
    inputs = [ctypes.c_void_p(part.data_ptr()) for part in (q, k, v)]
    getattr(library, name)(*inputs, strides, *sizes, ctypes.c_float(scale), *pointers, ctypes.c_int(threads))
