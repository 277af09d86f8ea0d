"""Keeps memory that a step frees for the next step. Allocating it again took a seventh of a CPU's time."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator

# malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_MOST = (1 << 31) - 1
_DEFAULTS = ((_TRIM_THRESHOLD, 128 << 10), (_MMAP_THRESHOLD, 32 << 20), (_MMAP_MAX, 1 << 16))
"""Defaults of glibc. The second is the largest value that glibc's own adjustment reaches."""


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Inside the block, glibc's malloc returns no memory to the kernel, which would clear it again for each step.

    This is for training on CPUs; on GPUs, a step's arrays do not come from malloc. Peak memory grows somewhat, by gaps
    between arrays of different sizes. Nothing changes if the user has configured malloc in the environment, or without
    glibc.
    Source: https://man7.org/linux/man-pages/man3/mallopt.3.html
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    tuned = any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if mallopt is None or tuned:
        yield
        return
    mallopt(_TRIM_THRESHOLD, _MOST)
    if not mallopt(_MMAP_THRESHOLD, _MOST):  # glibc before 2.35 accepts at most 32 MiB
        mallopt(_MMAP_MAX, 0)
    try:
        yield
    finally:
        for name, value in _DEFAULTS:
            mallopt(name, value)
        ctypes.CDLL(None).malloc_trim(0)
