"""Memory that one step frees, kept for the next: getting it anew from the kernel took a seventh of a CPU's time."""

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
"""glibc's; the second is where its own adjusting ends."""


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """While the block lasts, glibc's malloc gives no memory back to the kernel, which would clear it for each step.

    For training on CPUs: on GPUs a step's arrays do not come from malloc.

    What a step takes is taken once; its peak grows somewhat, by what lies between arrays of different sizes. Where the
    user has tuned malloc in the environment, or there is no glibc, nothing is changed.
    Source: https://man7.org/linux/man-pages/man3/mallopt.3.html
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    tuned = any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if mallopt is None or tuned:
        yield
        return
    mallopt(_TRIM_THRESHOLD, _MOST)
    if not mallopt(_MMAP_THRESHOLD, _MOST):  # glibc before 2.35 takes no more than 32 MiB
        mallopt(_MMAP_MAX, 0)
    try:
        yield
    finally:
        for name, value in _DEFAULTS:
            mallopt(name, value)
        ctypes.CDLL(None).malloc_trim(0)
