"""The same bits again on a GPU: torch's deterministic algorithms, for --deterministic."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

import torch

from proctool.errors import RunError
from proctool.training.environment import CUBLAS_WORKSPACE, DETERMINISTIC_WORKSPACE

_ALLOWED = (DETERMINISTIC_WORKSPACE, ":16:8")
"""The workspaces with which cuBLAS gives the same bits (cuBLAS's documentation, section "Results reproducibility")."""


@contextlib.contextmanager
def deterministic(asked: bool | None) -> Iterator[None]:
    """While the block lasts, torch uses deterministic algorithms alone, if `asked`. Enter it before CUDA is used.

    Raises RunError where CUDA is used already, and for an operation that has no such algorithm.
    """
    if not asked:
        yield
        return
    if torch.cuda.is_available():
        _set_workspace()
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    before_in_cudnn = cudnn.deterministic, cudnn.benchmark
    # Not to warn only: some kernels, such as memory-efficient attention's, are deterministic only if they have to be.
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
    """Give cuBLAS a workspace of fixed size. It reads the variable when CUDA starts, so it stays set."""
    found = os.environ.get(CUBLAS_WORKSPACE)
    if found is None and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        raise RunError(
            "deterministic: this process already uses CUDA; "
            f"set {CUBLAS_WORKSPACE}={DETERMINISTIC_WORKSPACE} before it starts"
        )
    if found not in (None, *_ALLOWED):
        raise RunError(f"{CUBLAS_WORKSPACE}={found}: not with --deterministic; set it to {' or '.join(_ALLOWED)}")
    os.environ.setdefault(CUBLAS_WORKSPACE, DETERMINISTIC_WORKSPACE)
