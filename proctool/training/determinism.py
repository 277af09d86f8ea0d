"""Deterministic algorithms for --deterministic, so that a run on a GPU repeats bit for bit."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

import torch

from proctool.errors import RunError
from proctool.training.environment import CUBLAS_WORKSPACE, DETERMINISTIC_WORKSPACE

_ALLOWED = (DETERMINISTIC_WORKSPACE, ":16:8")
"""Workspace settings with which cuBLAS is reproducible (its documentation, section "Results reproducibility")."""


@contextlib.contextmanager
def deterministic(asked: bool | None) -> Iterator[None]:
    """If `asked`, let torch use only deterministic algorithms inside the block. Enter it before CUDA is used.

    Raises RunError if CUDA is already in use, and for an operation without a deterministic algorithm.
    """
    if not asked:
        yield
        return
    if torch.cuda.is_available():
        _set_workspace()
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    before_in_cudnn = cudnn.deterministic, cudnn.benchmark
    # warn_only would not be enough: some kernels, such as memory-efficient attention, would stay nondeterministic.
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    except RuntimeError as error:
        operation = re.match(r"(\S+) does not have a deterministic implementation", str(error))
        if operation is None:
            raise
        raise RunError(
            f"deterministic: torch has no deterministic algorithm for {operation[1]} here; leave --deterministic out"
        ) from None
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.deterministic, cudnn.benchmark = before_in_cudnn


def _set_workspace() -> None:
    """Set a workspace of fixed size for cuBLAS. The variable stays set, because cuBLAS reads it when CUDA starts."""
    found = os.environ.get(CUBLAS_WORKSPACE)
    if found is None and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        raise RunError(
            "deterministic: this process already uses CUDA; "
            f"set {CUBLAS_WORKSPACE}={DETERMINISTIC_WORKSPACE} before it starts"
        )
    if found not in (None, *_ALLOWED):
        raise RunError(f"{CUBLAS_WORKSPACE}={found}: not with --deterministic; set it to {' or '.join(_ALLOWED)}")
    os.environ.setdefault(CUBLAS_WORKSPACE, DETERMINISTIC_WORKSPACE)
